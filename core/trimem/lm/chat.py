"""A conversation as a model's chat template writes it, tools included, and its continuation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from jinja2 import TemplateError

from trimem.errors import InvalidInputError, UnsupportedModelError
from trimem.lm.model import LanguageModel

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


def prompt(lm: LanguageModel, messages: Sequence[ChatMessage], tools: Sequence[Tool] = ()) -> list[int]:
    """Return the token ids of a conversation, up to where the model's next message begins.

    A model without a chat template reads questions and answers in plain text.

    Args:
        lm: The model.
        messages: The conversation, oldest first.
        tools: What the model may call.

    Raises:
        InvalidInputError: The model's chat template refuses such a conversation.
        UnsupportedModelError: There are tools, and the template does not tell of them.
    """
    if tools:
        check_tools(lm)
    if lm.tokenizer.chat_template is None:
        return lm.tokenize(f"{lm.tokenizer.bos_token or ''}{''.join(map(_plain, messages))}Answer:")
    return lm.tokenize(_applied(lm, messages, tools))


def _applied(lm: LanguageModel, messages: Sequence[ChatMessage], tools: Sequence[Tool]) -> str:
    try:
        text = lm.tokenizer.apply_chat_template(
            [dict(message) for message in messages],
            tools=[dict(tool) for tool in tools] or None,
            tokenize=False,
            add_generation_prompt=True,
        )
    except TemplateError as error:
        raise InvalidInputError(f"the chat template of {lm.name} does not take this conversation: {error}") from error
    assert isinstance(text, str)  # what tokenize=False means
    return text


def _plain(message: ChatMessage) -> str:
    before = {"user": "Question: ", "assistant": "Answer: "}.get(message["role"], "")
    return f"{before}{message['content']}\n" if before else f"{message['content']}\n\n"
