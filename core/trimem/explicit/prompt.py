"""The words around references: the prefix they are encoded after, and the question that follows them.

What a model reads, as memory or as text, is ``prefix, reference, ..., reference, question``. The
prefix is the same for all references and is encoded once; its first tokens are the attention sink
that every reference was written under (Memory³, section 3.2).
"""

from __future__ import annotations

from dataclasses import dataclass

from jinja2 import TemplateError

from trimem.lm.model import LanguageModel

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
    tokenizer = lm.tokenizer
    if tokenizer.chat_template is None:
        start = tokenizer.bos_token or ""
        return PromptFormat(f"{start}{instruction}{SEPARATOR}", "Question: ", "\nAnswer:")
    notes = f"{instruction}{SEPARATOR}{_REFERENCES}"
    messages = [{"role": "system", "content": notes}, {"role": "user", "content": _QUESTION}]
    try:
        rendered = _render(lm, messages)
    except TemplateError:
        rendered = ""
    if _REFERENCES not in rendered:
        rendered = _render(lm, [{"role": "user", "content": f"{notes}{_QUESTION}"}])
    prefix, rest = rendered.split(_REFERENCES)
    before, after = rest.split(_QUESTION)
    return PromptFormat(prefix, before, after)


def _render(lm: LanguageModel, messages: list[dict[str, str]]) -> str:
    rendered = lm.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert isinstance(rendered, str)  # what tokenize=False means
    return rendered
