"""The program that answers with kvpress, from here: started with the model, asked by lines of JSON, ended at last."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import torch

from trimem.errors import InvalidInputError, PeerError
from trimem.lm.model import LanguageModel

RUNNER = Path(__file__).with_name("runner.py")

_LAST_LINES = 20
_PATIENCE = 10.0
"""Seconds the program has to end by itself."""


class KvpressProcess:
    """A running program that answers each line of JSON with one.

    Args:
        process: The program, with pipes for its standard input and output.
        errors: The file that its standard error goes into.

    Raises:
        PeerError: It ended before it was ready.
    """

    def __init__(self, process: subprocess.Popen[str], errors: IO[bytes]) -> None:
        self._process = process
        self._errors = errors
        self.versions: Mapping[str, Any] = self._heard()

    def __call__(self, **request: Any) -> Mapping[str, Any]:
        """Ask, and wait for what is answered; see :func:`trimem.bench.kvpress.runner.answer`.

        Raises:
            PeerError: It failed, and says why.
        """
        assert self._process.stdin is not None
        with suppress(OSError):  # it has ended: what it said before tells more
            self._process.stdin.write(f"{json.dumps(request)}\n")
            self._process.stdin.flush()
        return self._heard()

    def _heard(self) -> Mapping[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if line.endswith("\n"):
            heard: Mapping[str, Any] = json.loads(line)
            return heard
        status = self._process.wait()
        self._errors.seek(0)
        said = self._errors.read().decode(errors="replace").strip().splitlines()
        raise PeerError(
            f"the program that answers with kvpress ended with status {status}. Its last words:\n"
            + "\n".join(said[-_LAST_LINES:])
        )


@contextmanager
def running(lm: LanguageModel, python: Path, program: Path = RUNNER) -> Iterator[KvpressProcess]:
    """Run a program with a copy of a model and as many threads as torch has here.

    Args:
        lm: The model, on the CPU.
        python: The interpreter to run it with.
        program: What to run, given the folder of the model and the number of threads.

    Yields:
        The program, ready to answer.

    Raises:
        InvalidInputError: The model is not on the CPU.
        PeerError: The program ends early.
    """
    if lm.device.type != "cpu":
        raise InvalidInputError(
            f"kvpress is measured on the CPU, and {lm.name} is on {lm.device}: times would not compare. Load the model "
            "on the CPU, or leave out the systems whose names begin with kvpress"
        )
    with (
        tempfile.TemporaryDirectory(prefix="trimem-kvpress-") as folder,
        tempfile.TemporaryFile() as errors,
    ):
        lm.model.save_pretrained(folder)
        lm.tokenizer.save_pretrained(folder)
        command = [str(python), "-I", str(program), folder, str(torch.get_num_threads())]
        with subprocess.Popen(  # noqa: S603 - no shell, our words
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            encoding="utf-8",
            env={**os.environ, "HF_HUB_OFFLINE": "1"},
        ) as process:
            assert process.stdin is not None
            try:
                yield KvpressProcess(process, errors)
            finally:
                with suppress(OSError):
                    process.stdin.close()  # at which it ends
                try:
                    process.wait(_PATIENCE)
                except subprocess.TimeoutExpired:
                    process.kill()
