"""A model made to call a tool: of all it could say next, what its template and a tool's schema allow.

A small model that is told to call a tool often does not, or writes arguments that are none. Here every token is taken
from those that continue a call as the model's own chat template writes calls, with arguments of the tool's JSON schema
(llguidance). What the arguments say is the model's, as is the choice among several tools.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from jinja2 import TemplateError
from torch import Tensor
from transformers import LogitsProcessor, LogitsProcessorList, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from trimem.errors import InvalidInputError, MissingDependencyError, UnsupportedModelError
from trimem.lm.attach import decoder_config
from trimem.lm.chat import Tool
from trimem.lm.marks import marks
from trimem.lm.model import LanguageModel
from trimem.lm.prompt import render
from trimem.lm.tool_calls import said

if TYPE_CHECKING:
    from llguidance import LLTokenizer

_NAME, _ARGUMENTS = "probe", {"probed": "x"}
_JSON = {"whitespace_flexible": False, "lenient": True}  # spaced as templates do; keywords it does not know are skipped


@dataclass(frozen=True, slots=True)
class CallFormat:
    """How a model's chat template writes a call.

    Attributes:
        before: What stands before the tool's name.
        between: What stands between name and arguments.
        after: What follows the arguments, up to the end of the message.
    """

    before: str
    between: str
    after: str


def call_format(lm: LanguageModel) -> CallFormat:
    """Return how a model's chat template writes a call, found by having it write one.

    Raises:
        UnsupportedModelError: It writes none that :func:`trimem.lm.tool_calls.said` would find again.
    """
    tool = {"type": "function", "function": {"name": _NAME, "description": "", "parameters": {"type": "object"}}}
    call = {"id": "0" * 9, "type": "function", "function": {"name": _NAME, "arguments": _ARGUMENTS}}
    asked: list[dict[str, Any]] = [{"role": "user", "content": "?"}]
    called = {"role": "assistant", "content": "", "tool_calls": [call]}
    try:
        before, whole = render(lm, asked, [tool]), render(lm, [*asked, called], [tool], begin=False)
    except TemplateError:
        before, whole = "", ""
    special = "|".join(map(re.escape, marks(lm))) or "$"
    written = re.fullmatch(
        rf"(.*?\"){_NAME}(\".*?){re.escape(json.dumps(_ARGUMENTS))}(.*?)(?:(?:{special}).*)?",
        whole.removeprefix(before),
        re.DOTALL,
    )
    plain = re.sub(special, "", written[0]) if written else ""
    if written is None or not whole.startswith(before) or [call.name for call in said(plain, [_NAME]).calls] != [_NAME]:
        raise UnsupportedModelError(
            f"{lm.name} cannot be made to call a tool: its chat template writes calls in another format than those of "
            "Hermes, Qwen, Llama and Mistral. Let it decide for itself"
        )
    return CallFormat(written[1], written[2], written[3].rstrip())


class MustCall(LogitsProcessor):
    """Lets a model say nothing but one call of one of the tools; for ``logits_processor`` of ``generate``.

    Args:
        lm: The model.
        tools: The tools.

    Raises:
        InvalidInputError: There is no tool, or the parameters of one are no JSON schema.
        MissingDependencyError: llguidance is not installed.
        UnsupportedModelError: The model's chat template writes calls in a format of its own.
    """

    def __init__(self, lm: LanguageModel, tools: Sequence[Tool]) -> None:
        try:
            from llguidance import LLMatcher
        except ModuleNotFoundError as error:
            raise MissingDependencyError(
                'to make a model call a tool takes llguidance: pip install "trimem[langchain]"'
            ) from error
        if not tools:
            raise InvalidInputError("a model can only be made to call a tool that it is told of, got none")
        self._matcher = LLMatcher(_tokenizer(lm), _grammar(lm, call_format(lm), tools))
        if wrong := self._matcher.get_error():
            raise InvalidInputError(f"the parameters of each tool must be a JSON schema: {wrong.splitlines()[0]}")

    def added_to(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Return options of ``generate`` with this after what they have of its kind."""
        return {**options, "logits_processor": LogitsProcessorList([*options.get("logits_processor", ()), self])}

    @property
    def finished(self) -> bool:
        """Whether the call is complete."""
        return bool(self._matcher.is_stopped())

    def heard(self, input_ids: Tensor) -> None:
        """Take note of the newest token of prompt and answer (1, tokens)."""
        self._matcher.consume_token(int(input_ids[0, -1]))

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return the scores (1, vocabulary) with all that does not continue the call at minus infinity."""
        if len(input_ids) > 1:
            raise InvalidInputError("a model that must call a tool speaks in one row: num_beams must be 1")
        allowed = np.unpackbits(np.frombuffer(self._matcher.compute_bitmask(), np.uint8), bitorder="little")
        mask = torch.zeros(scores.shape[1], dtype=torch.bool)
        mask[: len(allowed)] = torch.from_numpy(allowed[: len(mask)].astype(bool))
        return scores.masked_fill(~mask.to(scores.device), -torch.inf)


def _grammar(lm: LanguageModel, form: CallFormat, tools: Sequence[Tool]) -> str:
    """Return the calls of all tools as a grammar in llguidance's variant of Lark."""
    rules = [f"start: {_literal(lm, form.before)} ({' | '.join(f'call{i}' for i in range(len(tools)))})"]
    for i, tool in enumerate(tools):
        name = json.dumps(str(tool["function"]["name"]))[1:-1]
        declared = tool["function"].get("parameters") or {}
        schema = {"type": "object", "additionalProperties": False, **declared, "x-guidance": _JSON}
        rules.append(f"call{i}: {_literal(lm, name + form.between)} arguments{i} {_literal(lm, form.after)}")
        rules.append(f"arguments{i}: %json {json.dumps(schema)}")
    return "\n".join(rules)


def _literal(lm: LanguageModel, text: str) -> str:
    """Return a text as a grammar has it, special tokens by their ids."""
    special = marks(lm)
    parts = re.split(f"({'|'.join(map(re.escape, special))})", text) if special else [text]
    return " ".join(f"<[{special[part]}]>" if part in special else json.dumps(part) for part in parts if part) or '""'


_tokenizers: WeakKeyDictionary[PreTrainedTokenizerBase, LLTokenizer] = WeakKeyDictionary()


def _tokenizer(lm: LanguageModel) -> LLTokenizer:
    """Return the tokenizer as llguidance has it; made once, since that takes a second for a large vocabulary."""
    from llguidance.hf import from_tokenizer

    if lm.tokenizer not in _tokenizers:
        if not isinstance(lm.tokenizer, PreTrainedTokenizerFast):
            raise UnsupportedModelError(
                f"{lm.name} cannot be made to call a tool: its tokenizer is not one of the tokenizers library"
            )
        _tokenizers[lm.tokenizer] = from_tokenizer(lm.tokenizer, n_vocab=decoder_config(lm.model).vocab_size)
    return _tokenizers[lm.tokenizer]
