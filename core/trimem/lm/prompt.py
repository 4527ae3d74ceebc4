"""The words around references: the prefix they are encoded after, and the question that follows them.

What a model reads, as memory or as text, is ``prefix, reference, ..., reference, question``. The
prefix is the same for all references and is encoded once; its first tokens are the attention sink
that every reference was written under (Memory³, section 3.2).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

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


def followed(lm: LanguageModel, instruction: str, history: Sequence[Message], format: PromptFormat) -> PromptFormat:
    """Return the format of a question that follows others: the references come first, then what was said.

    Args:
        lm: The model.
        instruction: As of ``format``.
        history: What was said before the question.
        format: The format without history; the new one has its prefix, which references were written after.

    Raises:
        InvalidInputError: The model's chat template refuses such a conversation.
    """
    if lm.tokenizer.chat_template is None:
        said = "".join(
            f"Question: {one['content']}\nAnswer:" if one["role"] == "user" else f" {one['content']}{SEPARATOR}"
            for one in history
        )
        return PromptFormat(format.prefix, f"{said}{format.before_question}", format.after_question)
    for found in _formats(lm, instruction, history):
        if found.prefix == format.prefix:
            return found
    raise InvalidInputError(
        f"the chat template of {lm.name} does not take this history after references: its first message must be the "
        "user's, and user and assistant must take turns"
    )


def _formats(lm: LanguageModel, instruction: str, history: Sequence[Message]) -> Iterator[PromptFormat]:
    """Return the formats with the references in the system message, and in the first message of the user."""
    notes = f"{instruction}{SEPARATOR}{_REFERENCES}"
    said = [*map(dict, history), {"role": "user", "content": _QUESTION}]
    ways = [[{"role": "system", "content": notes}, *said]]
    if said[0]["role"] == "user":
        ways.append([{"role": "user", "content": f"{notes}{said[0]['content']}"}, *said[1:]])
    for messages in ways:
        try:
            rendered = _render(lm, messages)
        except TemplateError:
            continue
        if _REFERENCES in rendered:
            prefix, rest = rendered.split(_REFERENCES, 1)
            before, after = rest.rsplit(_QUESTION, 1)
            yield PromptFormat(prefix, before, after)


def _render(lm: LanguageModel, messages: list[dict[str, str]]) -> str:
    rendered = lm.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert isinstance(rendered, str)  # what tokenize=False means
    return rendered
