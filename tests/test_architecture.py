"""The shape of the house: who imports whom, what loads what, what is public."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import langchain_trimem
import llama_index_trimem
import trimem

ROOT = Path(__file__).parent.parent
CORE = ROOT / "core" / "trimem"

# Which rooms a room may import from; each is a folder or file directly under core/trimem.
LEAVES = {"errors", "checks", "types", "reports", "progress", "versioned", "drawing", "tracing"}
FOUNDATION = LEAVES | {"text", "lm", "store"}
ALLOWED = {
    "errors": set[str](),
    "checks": {"errors"},
    "types": {"errors", "checks"},
    "reports": {"types"},
    "progress": set[str](),
    "versioned": {"errors", "checks"},
    "drawing": {"errors"},
    "tracing": {"types", "reports"},
    "text": LEAVES,
    "lm": LEAVES,
    "store": LEAVES,
    "bank": FOUNDATION,
    "banks": FOUNDATION | {"bank"},
    "explicit": FOUNDATION | {"bank", "banks"},
    "resonance": FOUNDATION | {"bank", "banks", "console"},
    "transit": FOUNDATION | {"bank", "banks", "console"},
    "chat": FOUNDATION | {"bank", "explicit"},
    "console": {"errors", "checks", "types", "reports"},
    "server": FOUNDATION | {"bank", "explicit", "console"},
    "bench": FOUNDATION | {"bank", "banks", "explicit", "resonance", "transit", "console"},
    "demo": FOUNDATION | {"bank", "explicit", "resonance", "transit", "bench"},
    "cli": FOUNDATION | {"bank", "banks", "explicit", "resonance", "transit", "bench", "demo", "console", "server"},
}


def imports_of(file: Path) -> set[str]:
    """Return the modules of trimem that a file imports anywhere."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
        elif isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
    return {name for name in found if name.split(".")[0] in {"trimem", "langchain_trimem", "llama_index_trimem"}}


@pytest.mark.parametrize("file", sorted(CORE.rglob("*.py")), ids=lambda file: str(file.relative_to(CORE)))
def test_dependencies_point_one_way(file: Path) -> None:
    room = file.relative_to(CORE).parts[0].removesuffix(".py")
    if room == "__init__":
        return
    rooms = {name.split(".")[1] for name in imports_of(file) if name.startswith("trimem.")}
    assert rooms - {room} <= ALLOWED[room], f"{room} may not import {rooms - {room} - ALLOWED[room]}"
    assert not any(name.startswith(("langchain_", "llama_index_")) for name in imports_of(file))


def test_only_lm_touches_transformers() -> None:
    for file in CORE.rglob("*.py"):
        room = file.relative_to(CORE).parts[0]
        if room in {"lm", "console.py"}:  # the command line turns transformers' progress bars off
            continue
        if file == CORE / "bench" / "kvpress" / "runner.py":  # runs elsewhere, without trimem
            assert not imports_of(file)
            continue
        modules = {
            node.module.split(".")[0]
            for node in ast.walk(ast.parse(file.read_text()))
            if isinstance(node, ast.ImportFrom) and node.module
        }
        assert "transformers" not in modules, file


def run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.parametrize("package", ["trimem", "langchain_trimem", "llama_index_trimem", "trimem.cli"])
def test_importing_loads_neither_torch_nor_a_framework(package: str) -> None:
    heavy = "torch transformers fastapi uvicorn langchain_core llama_index sentence_transformers sqlalchemy numpy"
    assert run(f"import sys, {package}; print([m for m in '{heavy}'.split() if m in sys.modules])") == "[]"


def test_importing_is_quick() -> None:
    times = [float(run("import time; t = time.perf_counter(); import trimem; print(time.perf_counter() - t)"))]
    times += [float(run("import time; t = time.perf_counter(); import trimem; print(time.perf_counter() - t)"))]
    assert min(times) < 0.3


@pytest.mark.parametrize("package", [trimem, langchain_trimem, llama_index_trimem])
def test_public_names_exist_and_are_sorted(package: object) -> None:
    names = package.__all__  # type: ignore[attr-defined]
    assert names == sorted(names, key=lambda name: (name.startswith("__") is False and name[0].islower(), name))
    assert len(set(names)) == len(names)
    for name in names:
        value = getattr(package, name)
        if inspect.isclass(value) or inspect.isfunction(value):
            assert value.__doc__, f"{name} has no docstring"
    with pytest.raises(AttributeError):
        _ = package.absent  # type: ignore[attr-defined]


def test_every_module_imports() -> None:
    for package in (trimem, langchain_trimem, llama_index_trimem):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not module.name.endswith("migrations.env"):  # runs only under Alembic
                importlib.import_module(module.name)


def test_every_error_is_in_the_tree() -> None:
    from trimem import errors

    drawn = errors.__doc__ or ""
    for name, value in vars(errors).items():
        if inspect.isclass(value):
            assert issubclass(value, errors.TrimemError)
            assert name in drawn


def test_a_missing_framework_names_its_cure() -> None:
    for package, blocked, extra in (
        ("langchain_trimem", "langchain_core", "langchain"),
        ("llama_index_trimem", "llama_index", "llama-index"),
    ):
        said = run(
            f"import sys; sys.modules['{blocked}'] = None\n"
            f"import {package}\n"
            f"try: {package}.ExplicitRetriever\n"
            f"except ImportError as error: print(type(error).__name__, error)"
        )
        assert said.startswith("MissingDependencyError")
        assert f'pip install "trimem[{extra}]"' in said
