"""An environment of its own for packages that cannot live beside trimem's: made once, kept in the cache folder."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from trimem.errors import MissingDependencyError
from trimem.lm.load import cache_folder
from trimem.progress import announce

KVPRESS = "0.5.5"

TRANSFORMERS = "5.2.0"
"""The newest that kvpress works with."""

_UNREACHABLE = ("connection broken", "connection error", "Max retries exceeded", "ConnectTimeout", "ReadTimeout")
"""What pip says when there is no way to the registry."""

_LAST_LINES = 12


def kvpress_folder() -> Path:
    """Return where the environment with kvpress lies, whether it has been made or not."""
    names = (f"kvpress-{KVPRESS}", f"transformers-{TRANSFORMERS}", f"torch-{_torch()}")
    return cache_folder() / "environments" / "-".join((*names, f"python-{sys.version_info[0]}.{sys.version_info[1]}"))


def kvpress_python() -> Path:
    """Return the interpreter of an environment with kvpress, making it at the first call.

    It gets the torch that trimem runs with, from where pip finds it: where pip is told of the build for
    CPUs (``find-links`` or an index of one's own), it is that one. 1.4 GB and a minute.

    Raises:
        MissingDependencyError: The environment cannot be made.
    """
    requirements = (f"torch=={_torch()}", f"transformers=={TRANSFORMERS}", f"kvpress=={KVPRESS}")
    return make(kvpress_folder(), requirements, imports="kvpress")


def make(folder: Path, requirements: Sequence[str], *, imports: str) -> Path:
    """Return the interpreter of an environment with some packages, making it if it is not there.

    It is made under another name and renamed when it works, so a broken one is never left behind.

    Args:
        folder: Where it lies.
        requirements: What pip is to install.
        imports: The module that must then be found.

    Raises:
        MissingDependencyError: The environment cannot be made.
    """
    if interpreter(folder).is_file():
        return interpreter(folder)
    shutil.rmtree(folder, ignore_errors=True)  # the Python it was made with is gone
    folder.parent.mkdir(parents=True, exist_ok=True)
    with announce(f"making an environment with {', '.join(requirements)}, once"):
        temporary = Path(tempfile.mkdtemp(prefix=f"{folder.name}.", dir=folder.parent))
        try:
            wanted = " ".join(requirements)
            _run([sys.executable, "-I", "-m", "venv", str(temporary)], wanted)
            python = str(interpreter(temporary))
            pip = [python, "-I", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input"]
            _run([*pip, "--retries", "2", *requirements], wanted)
            _run([python, "-I", "-c", f"import {imports}"], wanted)
            try:
                temporary.rename(folder)
            except OSError:
                if not interpreter(folder).is_file():  # else another process was faster, with the same result
                    raise
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return interpreter(folder)


def interpreter(folder: Path) -> Path:
    """Return where the interpreter of an environment lies."""
    return folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def _run(command: Sequence[str], wanted: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - no shell, our words
    if done.returncode == 0:
        return
    said = f"{done.stdout}\n{done.stderr}".strip()
    if any(sign in said for sign in _UNREACHABLE):
        why = "pip cannot reach the package registry. Connect to it, or name one that can be reached in pip's settings"
    else:
        why = f"{' '.join(command[1:4])} failed"
    last = "\n".join(said.splitlines()[-_LAST_LINES:])
    raise MissingDependencyError(f"no environment with {wanted} could be made: {why}. What was said:\n{last}")


def _torch() -> str:
    """Return the version of this torch without the name of its build, which an index may not have."""
    return version("torch").split("+")[0]
