"""Tool calls in the formats that chat templates teach, whole and as they are spoken."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimem.lm.tool_calls import Said, ToolCall, said, speech

ADD = ToolCall("add", {"a": 1, "b": [2, "}"]})
NOW = ToolCall("now", {})
CALL = '{"name": "add", "arguments": {"a": 1, "b": [2, "}"]}}'
TOOLS = ("add", "now")

FORMATS = {
    "hermes": (f"<tool_call>\n{CALL}\n</tool_call>", Said("", (ADD,))),
    "two": (f'<tool_call>{CALL}</tool_call>\n<tool_call>{{"name": "now"}}</tool_call>', Said("", (ADD, NOW))),
    "unfinished": (f"<tool_call>\n{CALL}", Said("", (ADD,))),
    "with words": (f"Let me see.\n<tool_call>{CALL}</tool_call>", Said("Let me see.", (ADD,))),
    "smollm": (f'<tool_call>[{CALL}, {{"name": "now", "arguments": {{}}}}]</tool_call>', Said("", (ADD, NOW))),
    "unknown but marked": ('<tool_call>{"name": "no"}</tool_call>', Said("", (ToolCall("no", {}),))),
    "broken": ('<tool_call>{"name": </tool_call>', Said("", (), ('{"name":',))),
    "llama": ('{"name": "add", "parameters": {"a": 1, "b": [2, "}"]}}', Said("", (ADD,))),
    "two llamas": (f'<|python_tag|>{CALL}; {{"name": "now", "parameters": {{}}}}', Said("", (ADD, NOW))),
    "mistral": (f"[{CALL}]", Said("", (ADD,))),
    "openai": ('{"name": "add", "arguments": "{\\"a\\": 1, \\"b\\": [2, \\"}\\"]}"}', Said("", (ADD,))),
    "json that is none": ('{"name": "Ada", "age": 36}', Said('{"name": "Ada", "age": 36}')),
    "no name": ('[{"arguments": {}}]', Said('[{"arguments": {}}]')),
    "no json": ("{x", Said("{x")),
    "arguments of another kind": ('{"name": "add", "arguments": [1]}', Said('{"name": "add", "arguments": [1]}')),
    "words": ("1 < 2, and <tool is no call", Said("1 < 2, and <tool is no call")),
    "nothing": ("", Said("")),
}


@pytest.mark.parametrize("name", FORMATS)
def test_calls_are_parted_from_words(name: str) -> None:
    text, expected = FORMATS[name]
    assert said(text, TOOLS) == expected


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("size", [1, 3, 1000])
def test_only_words_are_spoken(name: str, size: int) -> None:
    text, expected = FORMATS[name]
    pieces = [text[i : i + size] for i in range(0, len(text), size)]
    assert "".join(speech(pieces, TOOLS)).strip() == expected.text


def test_words_are_spoken_as_soon_as_they_are_certain() -> None:
    spoken = speech(iter(["I ", "think", " <to", "ol>", " <tool_", "call>{}"]), TOOLS)
    assert [next(spoken) for _ in range(4)] == ["I ", "think", " ", "<tool>"]
    assert "".join(spoken).strip() == ""


@given(st.lists(st.text(alphabet='<tool_call>/ {}[]"n', max_size=6), max_size=12))
def test_nothing_a_model_says_breaks_it(pieces: list[str]) -> None:
    whole = said("".join(pieces), TOOLS)
    assert "".join(speech(pieces, TOOLS)).strip() == whole.text.strip() or "<tool_call>" in "".join(pieces)
