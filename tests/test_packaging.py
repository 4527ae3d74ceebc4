"""What a user installs: built from the source distribution, in an environment of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCES = {"core": ["trimem"], "integrations": ["langchain_trimem", "llama_index_trimem"]}


def run(*command: object, cwd: Path) -> str:
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(
        list(map(str, command)), cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout.strip()


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the source distribution; the build backend is the one already installed."""
    out = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", out, ROOT, cwd=out)
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clean environment with the wheel, and the dependencies of this one to save installing them again."""
    home = tmp_path_factory.mktemp("clean")
    venv.create(home / "env", with_pip=True)
    python = home / "env" / "bin" / "python"
    run(python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", wheel, cwd=home)
    packages = run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=home)
    # A .pth file adds the folder, but not what that folder's own .pth files (of an editable trimem) add.
    (Path(packages) / "borrowed.pth").write_text(sysconfig.get_path("purelib"))
    return python


def test_the_wheel_holds_every_file_of_the_sources(wheel: Path) -> None:
    wanted = {
        file.relative_to(ROOT / root).as_posix()
        for root, packages in SOURCES.items()
        for package in packages
        for file in (ROOT / root / package).rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert held == wanted
    for name in ("trimem/py.typed", "langchain_trimem/py.typed", "llama_index_trimem/py.typed"):
        assert name in held
    assert "trimem/demo/handbook/questions.json" in held
    assert "trimem/store/migrations/versions/0001_first_schema.py" in held


def test_every_public_module_imports(python: Path, tmp_path: Path) -> None:
    said = run(
        python,
        "-c",
        "import importlib, pkgutil, sys\n"
        "import trimem, langchain_trimem, llama_index_trimem\n"
        "for package in (trimem, langchain_trimem, llama_index_trimem):\n"
        "    assert 'clean' in package.__file__, package.__file__\n"
        "    for module in pkgutil.walk_packages(package.__path__, package.__name__ + '.'):\n"
        "        if not module.name.endswith('migrations.env'):\n"
        "            importlib.import_module(module.name)\n"
        "    for name in package.__all__:\n"
        "        getattr(package, name)\n"
        "print(trimem.__version__)",
        cwd=tmp_path,
    )
    assert said == "0.1.0"


def test_no_top_level_core_or_integrations(python: Path, tmp_path: Path) -> None:
    code = "import importlib.util as u; print([u.find_spec(name) for name in ('core', 'integrations')])"
    assert run(python, "-c", code, cwd=tmp_path) == "[None, None]"


def test_the_command_works_and_ships_its_handbook(python: Path, tmp_path: Path) -> None:
    assert "remember" in run(python.parent / "trimem", "--help", cwd=tmp_path)
    assert run(python, "-c", "from trimem.demo import handbook; print(len(handbook()))", cwd=tmp_path) == "32"


def test_a_bank_is_made_by_the_installed_package(python: Path, tmp_path: Path) -> None:
    code = (
        "from pathlib import Path\n"
        "from trimem.store.metadata import MetadataStore\n"
        "store = MetadataStore(Path('bank.sqlite'))\n"
        "print(store.stats(None).slots)\n"
        "store.close()"
    )
    assert run(python, "-c", code, cwd=tmp_path) == "0", "the migrations are found where they are installed"
