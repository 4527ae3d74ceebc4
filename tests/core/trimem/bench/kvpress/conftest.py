"""What the tests of kvpress share: a question with three references, and the environment where there is one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.contracts.bank import BOAT, CAKE, PUMP
from trimem import ExplicitBank
from trimem.bench.corpus import Question
from trimem.bench.kvpress.environment import interpreter, kvpress_folder
from trimem.bench.trials import Trial, remember, search


@pytest.fixture
def trial(bank: ExplicitBank) -> Trial:
    """A question whose three references are some hundred tokens of the tiny model, each a letter."""
    remember(bank, [PUMP, BOAT, CAKE], progress=False)
    return search(bank, Question("When does the boat leave?", ("Tuesday",), (1,)), 3)


@pytest.fixture(scope="session")
def kvpress_python() -> Path:
    """The interpreter of kvpress' environment, which a benchmark has made."""
    python = interpreter(kvpress_folder())
    if not python.is_file():
        pytest.skip("kvpress' environment has not been made; `trimem bench explicit --system kvpress_none` makes it")
    return python
