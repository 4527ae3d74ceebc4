"""Bars are shown where somebody looks, one below the other."""

from __future__ import annotations

import io
import sys

import pytest
from rich.console import Console

from trimem import progress
from trimem.progress import track


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """What a terminal gets."""
    written = io.StringIO()
    monkeypatch.setattr(progress, "_console", lambda: Console(file=written, force_terminal=True, width=80))
    return written


def test_a_bar_in_a_bar_is_shown_below_it(screen: io.StringIO) -> None:
    with track("files", 2) as outer:
        for _ in range(2):
            with track("references", 5) as inner:
                inner(5)
                progress._shown.get().refresh()  # type: ignore[union-attr]
            outer(1)
    said = screen.getvalue()
    assert "files" in said
    assert "references" in said
    assert "5/5" in said
    assert progress._shown.get() is None


def test_a_bar_in_one_that_is_not_shown_is_not_shown(screen: io.StringIO) -> None:
    with track("files", 2, show=False), track("references", 5, show=True) as inner:
        inner(5)
    assert screen.getvalue() == ""


def test_a_bar_after_an_error_is_a_bar_of_its_own(screen: io.StringIO) -> None:
    with pytest.raises(KeyError), track("files", 2):
        raise KeyError
    with track("again", 2) as advance:
        advance(2)
    assert "again" in screen.getvalue()


def test_what_is_printed_beside_a_bar_in_a_notebook_is_printed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "_console", lambda: Console(force_jupyter=True))
    with track("files", 2) as advance:
        sys.stdout.write("hello\n")
        sys.stderr.write("there\n")
        advance(2)
    said = capsys.readouterr()
    assert "hello" in said.out
    assert "there" in said.err
