"""Runs the code of README and docs: Python blocks as they stand, shell blocks that begin with ``$ trimem``."""

from __future__ import annotations

import gc
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sybil import Example, Sybil
from sybil.parsers.markdown import CodeBlockParser, PythonCodeBlockParser

ROOT = Path(__file__).parent
PAGES = ("01-about-us.md", "05-people-and-roles.md", "17-vehicles.md")  # of the handbook, for ``handbook/``


def run_commands(example: Example) -> None:
    """Run the commands of a console block; what they print is theirs, that they succeed is checked."""
    for line in example.parsed.splitlines():
        if line.startswith("$ trimem "):
            command = [
                str(Path(sys.executable).parent / "trimem"),
                *shlex.split(line[len("$ trimem ") :], comments=True),
            ]
            if command[-1] == "&":
                serve(example.namespace, command[:-1])
                continue
            done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - our own
            assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"


def serve(namespace: dict[str, Any], command: list[str]) -> None:
    """Run a server on a free port until the document ends, and tell OpenAI's clients where it is."""
    process = subprocess.Popen([*command, "--port", "0"], stderr=subprocess.PIPE, text=True)  # noqa: S603 - our own
    namespace["_server"] = process
    assert process.stderr is not None
    for line in process.stderr:
        if found := re.search(r"http://\S+:\d+", line):
            os.environ["OPENAI_BASE_URL"] = f"{found[0]}/v1"
            return
    raise AssertionError(f"{command} did not serve")


def enter(namespace: dict[str, Any]) -> None:
    """Give each document a folder of its own, with a small handbook in it."""
    namespace["_before"] = Path.cwd()
    namespace["_folder"] = Path(tempfile.mkdtemp(prefix="trimem-docs-"))
    os.chdir(namespace["_folder"])
    Path("handbook").mkdir()
    for page in PAGES:
        shutil.copy(ROOT / "core" / "trimem" / "demo" / "handbook" / page, "handbook")


def leave(namespace: dict[str, Any]) -> None:
    """Close what the document opened, and remove its folder."""
    for value in list(namespace.values()):
        close: Callable[[], None] | None = getattr(value, "close", None)
        if close is not None and type(value).__module__.startswith("trimem"):
            close()
    if (server := namespace.get("_server")) is not None:
        server.terminate()
        server.communicate()
        del os.environ["OPENAI_BASE_URL"]
    os.chdir(namespace["_before"])
    shutil.rmtree(namespace["_folder"])
    namespace.clear()  # with the models in it, which would add up
    gc.collect()


pytest_collect_file = Sybil(
    parsers=[PythonCodeBlockParser(), CodeBlockParser(language="console", evaluator=run_commands)],
    patterns=["README.md", "docs/**/*.md", "docs/*.md", "CONTRIBUTING.md"],
    setup=enter,
    teardown=leave,
).pytest()
