"""Places of a dialogue in words: "minute 12", "0:12:30", "turn 7", "word 1500", a moment in ISO 8601."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

_UNIT = {"second": 1, "sec": 1, "minute": 60, "min": 60, "hour": 3600}
_ASKED = r"(?:what (?:was|did (?:he|she|they|we|you|i)) sa(?:id|y) )?"
_AT = r"(?:at |in |around )?(?:the )?"
_NUMBERED = re.compile(
    rf"{_ASKED}{_AT}(second|sec|minute|min|hour|turn|word|position)\s+(?:number\s+)?(\d+)\s*\??", re.IGNORECASE
)
_AFTER = re.compile(
    rf"{_ASKED}{_AT}(?:after )?(\d+)(?:st|nd|rd|th)?\s+(second|sec|minute|min|hour|turn)s?\s*\??", re.IGNORECASE
)
_CLOCK = re.compile(rf"{_ASKED}{_AT}(?:(\d+):)?(\d{{1,3}}):(\d\d)\s*\??", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Spot:
    """A place of a dialogue; one of these is set.

    Attributes:
        since: From its first moment.
        moment: By the clock, in UTC.
        turn: Its number, from 1.
        word: Its number, from 0.
    """

    since: timedelta | None = None
    moment: datetime | None = None
    turn: int | None = None
    word: int | None = None


def parse_spot(query: str) -> Spot | None:
    """Return the place that a query names, if it names one and nothing else."""
    said = query.strip()
    if match := _NUMBERED.fullmatch(said):
        return _counted(match[1].lower(), int(match[2]))
    if match := _AFTER.fullmatch(said):
        return _counted(match[2].lower(), int(match[1]))
    if match := _CLOCK.fullmatch(said):
        hours, minutes, seconds = (int(part or 0) for part in match.groups())
        return Spot(since=timedelta(hours=hours, minutes=minutes, seconds=seconds))
    try:
        told = datetime.fromisoformat(said)
    except ValueError:
        return None
    return Spot(moment=told.astimezone(UTC) if told.tzinfo else told.replace(tzinfo=UTC))


def _counted(unit: str, number: int) -> Spot:
    if unit == "turn":
        return Spot(turn=number)
    if unit in ("word", "position"):
        return Spot(word=number)
    return Spot(since=timedelta(seconds=min(number * _UNIT[unit], 10**9)))
