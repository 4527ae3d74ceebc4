"""What may be given to a call: checked where it comes in, and shown in the message where it is refused."""

from __future__ import annotations

import math
import os
import reprlib
import stat
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

from trimem.errors import InvalidInputError, InvalidNamespaceError

T = TypeVar("T")

MOST_HITS = 2**31 - 1
"""That can be asked for at once; a search multiplies it, and SQLite counts to 2**63."""

LARGEST = 2**31 - 1
"""The most of anything that is counted in a configuration."""

_LONGEST = timedelta(days=100_000)  # what is added to now must be a date
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


def real(number: float, what: str, above: float, most: float = math.inf) -> float:
    """Return ``number``, which is finite.

    Args:
        number: What was given.
        what: What it is, for the message.
        above: What it must be above.
        most: The most it can be.

    Raises:
        InvalidInputError: It is no number, or outside of that.
    """
    try:
        told = isinstance(number, int | float) and not isinstance(number, bool)
        if told and math.isfinite(number) and above < number <= most:
            return number
    except OverflowError:  # a whole number that is larger than any float
        pass
    limits = [f"above {above:g}"] * (above > -math.inf) + [f"at most {most:g}"] * (most < math.inf)
    raise InvalidInputError(f"{what} must be {' and '.join(limits) or 'a finite number'}, got {shown(number)}")


def one_of(given: str, what: str, known: Collection[str]) -> str:
    """Return ``given``, which is one of the names that are known.

    Raises:
        InvalidInputError: It is none of them.
    """
    if isinstance(given, str) and given in known:
        return given
    raise InvalidInputError(f"{what} must be one of {', '.join(known)}, got {shown(given)}")


def flag(given: bool, what: str) -> bool:
    """Return ``given``, which is True or False.

    Raises:
        InvalidInputError: It is something else.
    """
    if isinstance(given, bool):
        return given
    raise InvalidInputError(f"{what} must be True or False, got {shown(given)}")


def typed(given: T, what: str, kind: type) -> T:
    """Return ``given``, which is of a kind, or None where nothing is given.

    Raises:
        InvalidInputError: It is of another.
    """
    if given is None or isinstance(given, kind):
        return given
    raise InvalidInputError(f"{what} must be a {kind.__name__} or None, got {shown(given)}")


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


def is_folder(path: Path) -> bool | None:
    """Return whether a path is that of a folder; None where there is nothing, or nothing can be called so."""
    try:
        return stat.S_ISDIR(path.stat().st_mode)
    except (OSError, ValueError):
        return None


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


def as_namespace(namespace: str | Sequence[str]) -> tuple[str, ...]:
    """Check a namespace and return it as a tuple; a plain string is a tuple of one.

    A namespace is a path of tenants: what is remembered under ``("acme", "hr")`` is read by
    ``("acme", "hr")`` and by ``("acme",)``, and by nobody else.

    Raises:
        InvalidNamespaceError: It is empty, or a part is no string, empty, or holds ``/`` or a
            control character.
    """
    if not isinstance(namespace, Sequence):  # a set has no order, and a path has
        raise InvalidNamespaceError(f"a namespace is a string or several in order, got {shown(namespace)}")
    parts = (namespace,) if isinstance(namespace, str) else tuple(namespace)
    for part in parts:
        if not isinstance(part, str) or not part or "/" in part or not part.isprintable():
            raise InvalidNamespaceError(
                f"a namespace is one or more non-empty strings of printable characters without '/', "
                f'got {shown(namespace)}; write ("acme", "hr") for what the command line calls acme/hr'
            )
    if not parts:
        raise InvalidNamespaceError("a namespace is required and must not be empty: it says whose memory is meant")
    return parts


def check_text(text: object, what: str) -> str:
    """Return ``text``, which is to be stored or searched for.

    Args:
        text: What was given.
        what: What it is, for the message.

    Raises:
        InvalidInputError: It is no string, empty, or not made of whole characters.
    """
    if not isinstance(text, str) or not text.strip():
        raise InvalidInputError(f"{what} must be a string that is not empty, got {shown(text)}")
    return check_characters(text, what)


def check_characters(text: str, what: str) -> str:
    """Return ``text``, which may be empty.

    Args:
        text: What was given.
        what: What it is, for the message.

    Raises:
        InvalidInputError: It is no string, or holds an unpaired surrogate, which no file, database or tokenizer takes.
    """
    if not isinstance(text, str):
        raise InvalidInputError(f"{what} must be a string, got {shown(text)}")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidInputError(
            f"{what} holds an unpaired surrogate at character {error.start}, which is half of a character: decode it "
            "from its bytes again, or replace it"
        ) from error
    return text


def check_history(history: Sequence[Mapping[str, str]]) -> Sequence[Mapping[str, str]]:
    """Return ``history``, what was said before a question.

    Raises:
        InvalidInputError: It is no list of messages of a user and an assistant.
    """
    if not isinstance(history, Sequence) or not all(map(_is_message, history)):
        raise InvalidInputError(
            'history is a list of {"role": "user", "content": ...} and {"role": "assistant", "content": ...}, oldest '
            f"first, without the question itself; got {shown(history)}"
        )
    for message in history:
        check_characters(message["content"], "what was said before")
    return history


def _is_message(message: object) -> bool:
    return (
        isinstance(message, Mapping)
        and message.get("role") in ("user", "assistant")
        and isinstance(message.get("content"), str)
    )


def check_k(k: int) -> int:
    """Return ``k``, the number of hits asked for.

    Raises:
        InvalidInputError: It is not a whole number of at least 1, or more than :data:`MOST_HITS`.
    """
    if isinstance(k, bool) or not isinstance(k, int) or not 1 <= k <= MOST_HITS:
        raise InvalidInputError(
            f"k is the number of hits to return, at least 1 and at most {MOST_HITS:,}; got {shown(k)}"
        )
    return k


def check_ttl(ttl: timedelta | None) -> timedelta | None:
    """Return ``ttl``, how long something is to be held; None is for ever.

    Raises:
        InvalidInputError: It is no timedelta, not longer than none, or longer than a hundred thousand days.
    """
    if ttl is None or (isinstance(ttl, timedelta) and timedelta(0) < ttl <= _LONGEST):
        return ttl
    raise InvalidInputError(
        f"ttl is a timedelta longer than none and of at most {_LONGEST.days:,} days, or None for ever; got {shown(ttl)}"
    )


def check_trust(trust: float, what: str) -> float:
    """Return ``trust``, how far something is to be trusted.

    Raises:
        InvalidInputError: It is no number from 0 to 1.
    """
    if isinstance(trust, bool) or not isinstance(trust, int | float) or not 0 <= trust <= 1:
        raise InvalidInputError(f"{what} is a number from 0, not at all, to 1, fully; got {shown(trust)}")
    return float(trust)
