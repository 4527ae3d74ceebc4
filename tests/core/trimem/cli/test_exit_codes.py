"""What commands exit with: 1 on errors of trimem and of files, 2 where the command line itself is wrong."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from tests.commands import trimem
from trimem import errors
from trimem.cli import app


def commands(of: Any, *above: str) -> Iterator[tuple[str, ...]]:
    """Yield all commands by their names."""
    below = getattr(of, "commands", {})
    for name, command in below.items():
        yield from commands(command, *above, name)
    if not below:
        yield above


ALL = list(commands(typer.main.get_command(app)))

WRONG = [
    "remember absent --bank new --namespace a",
    "recall x --bank absent --namespace a",
    "ask x --bank absent --namespace a",
    "hear x --bank absent --namespace a",
    "forget --bank absent --namespace a --all",
    "stats --bank absent",
    "sync absent --bank new --namespace a",
    "serve --bank new --namespace a --waiting 0",
    "verify --bank absent",
    "repair --bank absent",
    "compact --bank absent",
    "evict --bank absent",
    "export x.zip --bank absent",
    "import absent.zip --bank new",
    "recompile --bank absent --encoder x",
    "demo --model absent.gguf",
    "advise --uses 1 --model absent.gguf",
    "calibrate --model absent.gguf",
    "bench explicit --data absent --json x.json",
    "bench needle --data absent --tokens 128 --json x.json",
    "bench hops --n 0 --json x.json",
    "bench follow-ups --model absent.gguf --json x.json",
    "bench selection --data absent --json x.json",
    "bench recall --data absent --json x.json",
    "bench resonance --text absent --json x.json",
    "bench serving --data absent --json x.json",
    "bench transit --json x.json",
    "bench crash --kills 0 --json x.json",
    "bench store --writers 0 --json x.json",
    "transit fit absent --codec x",
    "transit fit-texts absent --codec x",
    "transit compress absent --codec absent --out x",
    "transit expand absent --codec absent --out x",
]


@pytest.mark.parametrize("command", ALL, ids=" ".join)
def test_what_is_no_option_exits_with_2(command: tuple[str, ...]) -> None:
    assert "--nonsense" in trimem(*command, "--nonsense", code=2).stderr


@pytest.mark.parametrize("group", [(), ("bench",), ("transit",)], ids=" ".join)
def test_no_command_and_an_unknown_one_exit_with_2(group: tuple[str, ...]) -> None:
    assert "Usage" in trimem(*group, code=2).output
    assert "nonsense" in trimem(*group, "nonsense", code=2).stderr


@pytest.mark.parametrize("arguments", WRONG)
def test_errors_are_named_exit_with_1_and_leave_nothing(
    arguments: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    said = trimem(*arguments.split(), code=1).stderr
    name = said.split(":")[0]
    assert issubclass(getattr(errors, name), errors.TrimemError), said
    assert list(tmp_path.iterdir()) == []


def test_an_error_of_every_command_is_tried() -> None:
    tried = [tuple(arguments.split()) for arguments in WRONG]
    assert [command for command in ALL if not any(one[: len(command)] == command for one in tried)] == []
