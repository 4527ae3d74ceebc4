"""Tool calls in what a model says, in the formats that chat templates teach.

``<tool_call>{"name": ..., "arguments": {...}}</tool_call>`` of Hermes, Qwen and SmolLM, any number of times and
with text around it; or nothing but ``{"name": ..., "parameters": {...}}`` of Llama, several of them parted by
semicolons or in a list, as Mistral has it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

_OPEN = "<tool_call>"
_TAG = "<|python_tag|>"
_TAGGED = re.compile(r"<tool_call>(.*?)(?:</tool_call>|\Z)", re.DOTALL)
_BARE = re.compile(rf"\s*(?:{re.escape(_TAG)})?\s*(?=[{{\[])")
_BETWEEN = re.compile(r"[\s;]*")


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A tool that a model wants to be called.

    Attributes:
        name: Of the tool.
        arguments: By name.
    """

    name: str
    arguments: Mapping[str, Any] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Said:
    """What a model said.

    Attributes:
        text: What is meant to be read.
        calls: The tools it calls.
        invalid: What begins like a call and is none.
    """

    text: str
    calls: tuple[ToolCall, ...] = ()
    invalid: tuple[str, ...] = ()


def said(text: str, tools: Collection[str]) -> Said:
    """Part text from tool calls.

    Args:
        text: What a model said.
        tools: Names of the tools it was told of; a call that is not marked must be of one of them.
    """
    if _OPEN in text:
        calls, invalid = list[ToolCall](), list[str]()
        for block in _TAGGED.findall(text):
            found = _calls(block)
            calls += found
            if not found:
                invalid.append(block.strip())
        return Said(_TAGGED.sub("", text).strip(), tuple(calls), tuple(invalid))
    bare = _calls(text[begin.end() :]) if (begin := _BARE.match(text)) else []
    if bare and all(call.name in tools for call in bare):
        return Said("", tuple(bare))
    return Said(text)


def speech(pieces: Iterable[str], tools: Collection[str]) -> Iterator[str]:
    """Yield of what is spoken piece by piece what is meant to be read, as soon as it is certain to be that."""
    whole = spoken = ""
    for piece in pieces:
        whole += piece
        if _OPEN in whole:
            certain = whole[: whole.index(_OPEN)]
        elif _BARE.match(whole) or _TAG.startswith(whole.strip()):
            certain = ""
        else:
            certain = whole[: len(whole) - _begun(whole)]
        if certain.strip() and len(certain) > len(spoken):
            yield certain[len(spoken) :]
            spoken = certain
    rest = said(whole, tools).text
    if rest.startswith(spoken) and len(rest) > len(spoken):
        yield rest[len(spoken) :]


def _begun(text: str) -> int:
    """Return how many characters at the end of a text may be the beginning of a marked call."""
    most = min(len(text), len(_OPEN) - 1)
    return next((n for n in range(most, 0, -1) if _OPEN.startswith(text[-n:])), 0)


def _calls(text: str) -> list[ToolCall]:
    """Return the calls that a text is made of; none if it is not."""
    values: list[Any] = []
    at = _end_of_gap(text, 0)
    while at < len(text):
        try:
            value, at = json.JSONDecoder(strict=False).raw_decode(text, at)
        except ValueError:
            return []
        values += value if isinstance(value, list) else [value]
        at = _end_of_gap(text, at)
    calls = [_call(value) for value in values]
    return [call for call in calls if call is not None] if None not in calls else []


def _end_of_gap(text: str, at: int) -> int:
    gap = _BETWEEN.match(text, at)
    return at if gap is None else gap.end()


def _call(value: object) -> ToolCall | None:
    if not isinstance(value, Mapping) or not isinstance(value.get("name"), str):
        return None
    arguments = value.get("arguments", value.get("parameters", {}))
    if isinstance(arguments, str):  # JSON within JSON, as OpenAI has it
        try:
            arguments = json.loads(arguments)
        except ValueError:
            return None
    return ToolCall(value["name"], arguments) if isinstance(arguments, Mapping) else None
