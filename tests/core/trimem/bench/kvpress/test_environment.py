"""An environment is made once, whole or not at all, and says why it cannot be made."""

from __future__ import annotations

import os
import subprocess
import zipfile
from pathlib import Path

import pytest

from trimem import MissingDependencyError
from trimem.bench.kvpress import environment
from trimem.bench.kvpress.environment import interpreter, kvpress_folder, kvpress_python, make

NAME = "peer_of_trimem"


@pytest.fixture
def wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a wheel, all that pip knows of."""
    folder, facts = tmp_path / "wheels", f"{NAME}-1.0.dist-info"
    folder.mkdir()
    with zipfile.ZipFile(folder / f"{NAME}-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"{NAME}.py", "WORD = 'hello'\n")
        wheel.writestr(f"{facts}/METADATA", f"Metadata-Version: 2.1\nName: {NAME}\nVersion: 1.0\n")
        wheel.writestr(
            f"{facts}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{facts}/RECORD", "".join(f"{name},,\n" for name in [*wheel.namelist(), f"{facts}/RECORD"]))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    return folder


def test_it_is_made_once(
    wheels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "environments" / "peer"
    (folder / "bin").mkdir(parents=True)  # what is left when Python itself was removed
    python = make(folder, [f"{NAME}==1.0"], imports=NAME)
    assert capfd.readouterr().err.split() == f"making an environment with {NAME}==1.0, once ...".split()
    monkeypatch.setenv("PYTHONPATH", str(Path(environment.__file__).parents[3]))
    asked = f"import sys, {NAME}; print({NAME}.WORD, sys.prefix)"
    done = subprocess.run([python, "-I", "-c", asked], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["hello", str(folder)]
    assert subprocess.run([python, "-I", "-c", "import trimem"], capture_output=True, check=False).returncode == 1
    assert [path.name for path in folder.parent.iterdir()] == ["peer"]

    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("it is there"))
    assert make(folder, [f"{NAME}==1.0"], imports=NAME) == python == interpreter(folder)
    assert capfd.readouterr().err == ""


def test_a_broken_one_is_not_left_behind(wheels: Path, tmp_path: Path) -> None:
    folder = tmp_path / "environments" / "peer"
    said = f"(?s)no environment with {NAME}==1.0 could be made: .*import absent failed.*No module named 'absent'"
    with pytest.raises(MissingDependencyError, match=said):
        make(folder, [f"{NAME}==1.0"], imports="absent")
    assert list(folder.parent.iterdir()) == []


def test_a_registry_out_of_reach_is_named(wheels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")  # where nobody listens
    with pytest.raises(MissingDependencyError, match="cannot reach the package registry"):
        make(tmp_path / "peer", ["kvpress"], imports="kvpress")


def test_kvpress_lies_in_the_cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[tuple[Path, list[str], str]] = []

    def noted(folder: Path, requirements: list[str], *, imports: str) -> Path:
        made.append((folder, list(requirements), imports))
        return interpreter(folder)

    monkeypatch.setattr(environment, "make", noted)
    monkeypatch.setattr(environment, "version", lambda _: "2.13.0+cpu")
    monkeypatch.setenv("TRIMEM_CACHE", str(tmp_path))
    assert kvpress_python() == interpreter(kvpress_folder())
    ((folder, requirements, imports),) = made
    assert folder == kvpress_folder()
    assert folder.is_relative_to(tmp_path)
    assert "torch==2.13.0" in requirements
    assert imports == "kvpress"
    monkeypatch.setattr(environment, "version", lambda _: "2.14.0")
    assert kvpress_folder() != folder, "another torch is another environment"
