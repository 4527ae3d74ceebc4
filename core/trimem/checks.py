"""What may be given to a call: checked where it comes in, and shown in the message where it is refused."""

from __future__ import annotations

import os
import reprlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TypeVar

from trimem.errors import InvalidInputError

T = TypeVar("T")

_LONGEST_NUMBER = 4000  # bits: Python refuses to write numbers of more than 4300 digits


class _Short(reprlib.Repr):
    """Writes anything in short, however deep or long it is."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel, self.maxstring, self.maxother = 4, 200, 200

    def repr_int(self, x: int, level: int) -> str:
        return repr(x) if x.bit_length() <= _LONGEST_NUMBER else f"a whole number of {x.bit_length()} bits"


shown = _Short().repr
"""Returns how something that was given reads in a message."""


def whole(number: int, what: str, least: int, most: int | None = None) -> int:
    """Return ``number``, which is whole.

    Args:
        number: What was given.
        what: What it is, for the message.
        least: The least it can be.
        most: The most it can be; None is any number.

    Raises:
        InvalidInputError: It is not whole, less, or more.
    """
    fits = isinstance(number, int) and not isinstance(number, bool) and least <= number
    if not fits or (most is not None and number > most):
        limit = "" if most is None else f" and at most {most:,}"
        raise InvalidInputError(f"{what} must be a whole number of at least {least}{limit}, got {shown(number)}")
    return number


def several(given: Iterable[T], what: str, kind: type | tuple[type, ...] = object) -> list[T]:
    """Return what is given as a list.

    Args:
        given: What was given.
        what: What it is, for the message.
        kind: Of what it must be.

    Raises:
        InvalidInputError: It is not several of anything, or not all of that kind.
    """
    if not isinstance(given, Iterable):
        raise InvalidInputError(f"{what} are one or several, got {type(given).__name__}")
    listed = list(given)
    for one in listed:
        if not isinstance(one, kind):
            kinds = " or ".join(each.__name__ for each in (kind if isinstance(kind, tuple) else (kind,)))
            raise InvalidInputError(f"{what} must each be a {kinds}, got {shown(one)}")
    return listed


def as_path(file: object, what: str) -> Path:
    """Return what is given as a path.

    Raises:
        InvalidInputError: It is no path, or the system could not name a file so.
    """
    try:
        if isinstance(file, str | os.PathLike) and b"\0" not in os.fsencode(file):
            return Path(os.fspath(file))
    except (TypeError, UnicodeEncodeError):
        pass
    raise InvalidInputError(f"{what} must be a path, as a string or a Path, got {shown(file)}")


def check_nesting(value: object, what: str, deepest: int, most: int | None = None) -> None:
    """Raise if objects and lists are within one another so often that databases and parsers refuse them.

    Args:
        value: Anything.
        what: What it is, for the message.
        deepest: How many levels are allowed.
        most: How many keys and values are allowed in all; None is any number.

    Raises:
        InvalidInputError: There are more.
    """
    level, held = [value], 0
    for _ in range(deepest + 1):
        inner = [one for each in level for one in _members(each)]
        held += len(inner)
        if most is not None and held > most:
            raise InvalidInputError(f"{what} must hold at most {most} keys and values, got more: split it")
        level = list({id(one): one for one in inner}.values())  # what holds itself does not grow
        if not level:
            return
    raise InvalidInputError(
        f"{what} must have at most {deepest} objects and lists within one another, got more: make it flatter"
    )


def _members(value: object) -> Iterable[object]:
    if isinstance(value, Mapping):
        return value.values()
    return value if isinstance(value, list | tuple | set | frozenset) else ()
