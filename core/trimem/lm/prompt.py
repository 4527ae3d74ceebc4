"""The words around references: the prefix they are encoded after, and the question that follows them.

What a model reads, as memory or as text, is ``prefix, reference, ..., reference, question``. The
prefix is the same for all references and is encoded once; its first tokens are the attention sink
that every reference was written under (Memory³, section 3.2).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jinja2 import TemplateError

from trimem.errors import InvalidInputError, UnsupportedModelError
from trimem.lm.model import LanguageModel
from trimem.types import Message

SEPARATOR = "\n\n"
"""What follows each reference, as part of it."""

_REFERENCES = "\u241e"  # stands for the references while the chat template is applied
_QUESTION = "\u241f"


@dataclass(frozen=True, slots=True)
class PromptFormat:
    """Where references and question go in a prompt.

    Attributes:
        prefix: Text before the references.
        before_question: Text between the last reference and the question.
        after_question: Text after the question, up to where the answer begins.
    """

    prefix: str
    before_question: str
    after_question: str

    def question(self, question: str) -> str:
        """Return what follows the references."""
        return f"{self.before_question}{question}{self.after_question}"


def prompt_format(lm: LanguageModel, instruction: str) -> PromptFormat:
    """Return the format for a model: its chat template, or plain text where it has none.

    The references stand in the system message, or before the question where a template knows no
    system message.
    """
    if lm.tokenizer.chat_template is None:
        start = lm.tokenizer.bos_token or ""
        return PromptFormat(f"{start}{instruction}{SEPARATOR}", "Question: ", "\nAnswer:")
    for found in _formats(lm, instruction, ()):
        return found
    raise UnsupportedModelError(
        f"the chat template of {lm.name} takes neither a system message nor a user's: set another, or none"
    )


def told(system: str, history: Sequence[Message], question: str) -> tuple[Sequence[Message], str]:
    """Return history and question with ``system`` before the first thing the user says."""
    if not system:
        return history, question
    for i, message in enumerate(history):
        if message["role"] == "user":
            first = {"role": "user", "content": f"{system}{SEPARATOR}{message['content']}"}
            return [*history[:i], first, *history[i + 1 :]], question
    return history, f"{system}{SEPARATOR}{question}"


def followed(lm: LanguageModel, instruction: str, history: Sequence[Message]) -> PromptFormat:
    """Return the format of a question that follows others: the references come first, then what was said.

    Args:
        lm: The model.
        instruction: As of :func:`prompt_format`; what stands before the references is the same.
        history: What was said before the question.

    Raises:
        InvalidInputError: The model's chat template refuses such a conversation.
    """
    plain = prompt_format(lm, instruction)  # anew, since a template may tell what day it is
    if lm.tokenizer.chat_template is None:
        said = "".join(
            f"Question: {one['content']}\nAnswer:" if one["role"] == "user" else f" {one['content']}{SEPARATOR}"
            for one in history
        )
        return PromptFormat(plain.prefix, f"{said}{plain.before_question}", plain.after_question)
    for found in _formats(lm, instruction, history):
        if found.prefix == plain.prefix:
            return found
    raise InvalidInputError(
        f"the chat template of {lm.name} does not take this history after references: its first message must be the "
        "user's, and user and assistant must take turns"
    )


def after_references(
    lm: LanguageModel, instruction: str, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]] = ()
) -> str | None:
    """Return how a conversation goes on after references: its system message is the one they stand in.

    Args:
        lm: The model, which has a chat template.
        instruction: As of :func:`prompt_format`.
        messages: The conversation; what its system message says comes after the references.
        tools: What the model may call.

    Returns:
        What follows the references; None where the template tells of tools before them, or takes no such conversation.
    """
    prefix = prompt_format(lm, instruction).prefix
    without = [rest for _, rest in _written(lm, instruction, messages)] if tools else []
    for before, rest in _written(lm, instruction, messages, tools):
        if before == prefix or (tools and rest not in without):  # Llama's tells before, too, that there are tools
            return rest
    return None


def _formats(lm: LanguageModel, instruction: str, history: Sequence[Message]) -> Iterator[PromptFormat]:
    """Return the formats with the references in the system message, and in the first message of the user."""
    for prefix, rest in _written(lm, instruction, [*history, {"role": "user", "content": _QUESTION}]):
        before, after = rest.rsplit(_QUESTION, 1)
        yield PromptFormat(prefix, before, after)


def _written(
    lm: LanguageModel, instruction: str, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]] = ()
) -> Iterator[tuple[str, str]]:
    """Return what stands before and after references in the system message, and in the first message of the user."""
    notes = f"{instruction}{SEPARATOR}{_REFERENCES}"
    system, said = ("", messages) if messages[0]["role"] != "system" else (str(messages[0]["content"]), messages[1:])
    ways = [[{"role": "system", "content": f"{notes}{system}"}, *said]]
    if said and said[0]["role"] == "user":
        asked = f"{system}{SEPARATOR}{said[0]['content']}" if system else said[0]["content"]
        ways.append([{**said[0], "content": f"{notes}{asked}"}, *said[1:]])
    for way in ways:
        try:
            rendered = render(lm, way, tools)
        except TemplateError:
            continue
        if _REFERENCES in rendered:
            prefix, rest = rendered.split(_REFERENCES, 1)
            yield prefix, rest


def render(
    lm: LanguageModel,
    messages: Sequence[Mapping[str, Any]],
    tools: Sequence[Mapping[str, Any]],
    *,
    begin: bool = True,
) -> str:
    """Return a conversation as a model's chat template writes it.

    Args:
        lm: The model.
        messages: The conversation, oldest first.
        tools: What the model may call.
        begin: Whether the model's next message is begun.

    Raises:
        TemplateError: The template refuses it.
    """
    rendered = lm.tokenizer.apply_chat_template(
        [dict(message) for message in messages],
        tools=[dict(tool) for tool in tools] or None,
        tokenize=False,
        add_generation_prompt=begin,
    )
    assert isinstance(rendered, str)  # what tokenize=False means
    return rendered
