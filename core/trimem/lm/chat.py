"""A conversation as a model's chat template writes it, tools included, and its continuation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from jinja2 import TemplateError

from trimem.errors import InvalidInputError, UnsupportedModelError
from trimem.lm.marks import hidden_in, tokenize
from trimem.lm.model import LanguageModel
from trimem.lm.prompt import after_references, render

ChatMessage: TypeAlias = Mapping[str, Any]
"""As transformers has it: ``role`` and ``content``, and ``tool_calls`` where the model called tools."""

Tool: TypeAlias = Mapping[str, Any]
"""A tool as transformers has it: ``{"type": "function", "function": {"name", "description", "parameters"}}``."""

_PROBE: Tool = {
    "type": "function",
    "function": {"name": "probe", "description": "probe", "parameters": {"type": "object", "properties": {}}},
}


def takes_tools(lm: LanguageModel) -> bool:
    """Return whether the model's chat template tells the model of tools."""
    if lm.tokenizer.chat_template is None:
        return False
    question = [{"role": "user", "content": "?"}]
    return _applied(lm, question, [_PROBE]) != _applied(lm, question, ())


def check_tools(lm: LanguageModel) -> None:
    """Raise unless the model's chat template tells the model of tools.

    Raises:
        UnsupportedModelError: It does not.
    """
    if not takes_tools(lm):
        raise UnsupportedModelError(
            f"{lm.name} calls no tools: its chat template does not mention any. Take a model that was trained to, such "
            "as a Qwen or Llama Instruct, or set a template that does"
        )


def prompt(
    lm: LanguageModel, messages: Sequence[ChatMessage], tools: Sequence[Tool] = (), *, instruction: str = ""
) -> list[int]:
    """Return the token ids of a conversation, up to where the model's next message begins.

    A model without a chat template reads questions and answers in plain text. Whatever marks of a template stand in
    what is said, none of it is more than text.

    Args:
        lm: The model.
        messages: The conversation, oldest first.
        tools: What the model may call.
        instruction: Of the memory that is attached, whose message the conversation continues where the template can:
            there is one system message, of the instruction, what is remembered, what the application says and tools.

    Raises:
        InvalidInputError: The model's chat template refuses such a conversation.
        UnsupportedModelError: There are tools, and the template does not tell of them.
    """
    if tools:
        check_tools(lm)
    said = hidden_in(lm, messages)
    if lm.tokenizer.chat_template is None:
        start = "" if instruction else lm.tokenizer.bos_token or ""
        return tokenize(lm, f"{start}{''.join(map(_plain, said))}Answer:")
    rest = after_references(lm, instruction, said, tools) if instruction else None
    return tokenize(lm, _applied(lm, said, tools) if rest is None else rest)


def _applied(lm: LanguageModel, messages: Sequence[ChatMessage], tools: Sequence[Tool]) -> str:
    try:
        return render(lm, messages, tools)
    except TemplateError as error:
        raise InvalidInputError(f"the chat template of {lm.name} does not take this conversation: {error}") from error


def _plain(message: ChatMessage) -> str:
    before = {"user": "Question: ", "assistant": "Answer: "}.get(message["role"], "")
    return f"{before}{message['content']}\n" if before else f"{message['content']}\n\n"
