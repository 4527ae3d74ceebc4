"""A conversation with a local model that reads a bank: what chat models and servers are made of.

How the memory is read depends on the bank. It is attached to the model's attention where that is possible; from
explicit memory, a conversation without tools is answered by :meth:`trimem.ExplicitBank.ask`. What cannot be attached
is quoted in the prompt.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from trimem.bank import Bank
from trimem.errors import InvalidInputError, UnfinishedCallError
from trimem.explicit.answering import read_found
from trimem.explicit.attribution import citations
from trimem.explicit.bank import ExplicitBank
from trimem.explicit.read_config import ReadConfig
from trimem.explicit.reading import AnswerStream, Reading
from trimem.lm.answering import speak
from trimem.lm.calling import MustCall
from trimem.lm.chat import ChatMessage, Tool, check_tools, prompt
from trimem.lm.generate import COLD
from trimem.lm.load import load_model
from trimem.lm.model import LanguageModel
from trimem.text.quoting import quoted
from trimem.types import Answer, Hit, Message


def chat(
    lm: LanguageModel,
    messages: Sequence[ChatMessage],
    *,
    bank: Bank | None = None,
    namespace: str | Sequence[str] | None = None,
    k: int = 5,
    where: Mapping[str, Any] | None = None,
    min_trust: float = 0.0,
    tools: Sequence[Tool] = (),
    must_call: Collection[str] = (),
    max_new_tokens: int = 256,
    temperature: float | None = None,
    read: ReadConfig | str = "dense",
    **options: Any,
) -> AnswerStream:
    """Say what comes next in a conversation, having read what a bank holds for the user's last message.

    The search is done when this returns; the model speaks while the answer is iterated over.

    Args:
        lm: The model.
        messages: The conversation, oldest first.
        bank: What is read; None is nothing.
        namespace: Whose memory; required with a bank.
        k: How many hits at most.
        where: Filter on metadata, as in :meth:`trimem.Bank.recall`.
        min_trust: The least trust of a hit, as there.
        tools: What the model may call; calls stand in the text of the answer (:mod:`trimem.lm.tool_calls`).
        must_call: Names of tools of which the model has to call one, and say nothing else
            (:mod:`trimem.lm.calling`); none is forced if it is empty.
        max_new_tokens: Most tokens of the answer.
        temperature: Of sampling; None, or less than :data:`trimem.lm.generate.COLD`, is greedy.
        read: How explicit memory is read, as in :meth:`trimem.ExplicitBank.attach`.
        options: Passed to transformers' ``generate``; greedy by default.

    Raises:
        InvalidInputError: There is no message, no namespace, no tool of a name that must be called, or the chat
            template refuses the conversation.
        UnsupportedModelError: There are tools, and the model's chat template does not tell of them.
        ContextLengthError: Memory, conversation and answer do not fit the model's context.
        FingerprintMismatch: Another model compiled the bank.
        UnfinishedCallError: The call that the model had to make is longer than the answer may be; raised by the
            stream.
    """
    started = time.perf_counter()
    if temperature is not None and temperature >= COLD:
        options |= {"do_sample": True, "temperature": temperature}
    if not messages:
        raise InvalidInputError("a conversation must have at least one message, got none")
    if tools:
        check_tools(lm)
    call = MustCall(lm, _named(must_call, tools)) if must_call else None
    question = _question(messages)
    if bank is None or not question.strip():
        return AnswerStream(_Speaking(lm, messages, tools, call, max_new_tokens, options, started).speak)
    if namespace is None:
        raise InvalidInputError("namespace= must say whose memory is read")
    find: Callable[..., Sequence[Hit]] = partial(
        bank.recall, question, k, namespace=namespace, where=where, min_trust=min_trust
    )
    if not bank.attachable:
        hits = find()
        return AnswerStream(
            _Speaking(lm, _with_notes(messages, hits), tools, call, max_new_tokens, options, started, hits).speak
        )
    attach: Callable[..., AbstractContextManager[Any]] = partial(bank.attach, lm)
    if isinstance(bank, ExplicitBank):
        system, history, plain = _parted(messages)
        if plain and not tools and lm is bank.model:
            return bank.ask(
                question,
                namespace=namespace,
                k=k,
                where=where,
                min_trust=min_trust,
                history=history,
                system=system,
                max_new_tokens=max_new_tokens,
                read=read,
                stream=True,
                **options,
            )
        find, attach = partial(find, history=history), partial(attach, read=read)
    reader = _Reader(find, attach)
    speaking = _Speaking(
        lm, messages, tools, call, max_new_tokens, options, started, reader=reader, instruction=bank.instruction
    )
    return AnswerStream(speaking.speak)


class _Reader:
    """Finds hits, and attaches them, or what replaced them meanwhile."""

    def __init__(self, find: Callable[[], Sequence[Hit]], attach: Callable[..., AbstractContextManager[Any]]) -> None:
        self._find = find
        self._attach = attach
        self.hits = find()

    @contextmanager
    def attached(self) -> Iterator[Any]:
        with ExitStack() as stack:
            yield read_found(self.hits, find=self._find, read=lambda hits: stack.enter_context(self._attach(hits=hits)))


class _Speaking:
    """One message of the model that is being said."""

    def __init__(
        self,
        lm: LanguageModel,
        messages: Sequence[ChatMessage],
        tools: Sequence[Tool],
        call: MustCall | None,
        max_new_tokens: int,
        options: Mapping[str, Any],
        started: float,
        hits: Sequence[Hit] = (),
        reader: _Reader | None = None,
        instruction: str = "",
    ) -> None:
        self._lm = lm
        self._prompt = prompt(lm, messages, tools, instruction=instruction)
        self._call = call
        self._max_new_tokens = max_new_tokens
        self._options = options if call is None else call.added_to(options)
        self._hits = tuple(hits)
        self._reader = reader
        self._started = started
        self._searched = time.perf_counter()

    def speak(self, on_text: Callable[[str], None], stop: Callable[[], bool]) -> Answer:
        """Generate, with what was found attached; arguments as of :func:`trimem.lm.generate.generate`."""
        call = self._call
        answer, reading = speak(
            self._lm,
            self._prompt,
            nullcontext(_AsText(self._hits)) if self._reader is None else self._reader.attached(),
            started=self._started,
            searched=self._searched,
            max_new_tokens=self._max_new_tokens,
            on_text=on_text,
            stop=stop if call is None else lambda: stop() or call.finished,
            on_token=None if call is None else lambda _, ids: call.heard(ids),
            **self._options,
        )
        if call is not None and not call.finished and not stop():
            raise UnfinishedCallError(
                f"{self._lm.name} had to call a tool and was cut off after {answer.new_tokens} tokens: allow an answer "
                "more, and no stop strings"
            )
        if not isinstance(reading, Reading):
            return answer
        return replace(answer, citations=citations(self._lm, reading.passages, answer.new_tokens))


class _AsText:
    """Hits that the prompt quotes: nothing is attached."""

    tokens = 0

    def __init__(self, hits: tuple[Hit, ...]) -> None:
        self._hits = hits

    def attended(self) -> tuple[Hit, ...]:
        return self._hits


def speaker(model: LanguageModel | str | Path | None, bank: Bank | None) -> LanguageModel:
    """Return the model that speaks: what :func:`trimem.load_model` makes of it; None is the bank's or the default."""
    if isinstance(model, LanguageModel):
        return model
    return bank.model if model is None and isinstance(bank, ExplicitBank) else load_model(model)


def check_reading(bank: object, namespace: object) -> None:
    """Raise unless there is no bank, or a bank and whose memory of it is read.

    Raises:
        InvalidInputError: It is no bank, or nobody's memory.
    """
    if bank is not None and not isinstance(bank, Bank):
        raise InvalidInputError(f"bank must be one of trimem's banks, got {type(bank).__name__}")
    if bank is not None and namespace is None:
        raise InvalidInputError("namespace must say whose memory of the bank is read")


def sources(answer: Answer) -> list[dict[str, Any]]:
    """Return where what was read for an answer is from, without its text."""
    return [
        {
            "id": hit.id,
            "document": hit.slot.document,
            "source": hit.source,
            "line": hit.slot.line,
            "score": hit.score,
            "attention": hit.attention,
        }
        for hit in answer.hits
    ]


def _named(names: Collection[str], tools: Sequence[Tool]) -> list[Tool]:
    """Return the tools of these names."""
    known = {str(tool["function"]["name"]): tool for tool in tools}
    if unknown := sorted(set(names) - set(known)):
        raise InvalidInputError(f"the tools are {', '.join(known) or 'none'}; got {', '.join(unknown)} to be called")
    return [known[name] for name in dict.fromkeys(names)]


def _question(messages: Sequence[ChatMessage]) -> str:
    """Return what the user said last."""
    return next((str(one["content"]) for one in reversed(messages) if one["role"] == "user"), "")


def _parted(messages: Sequence[ChatMessage]) -> tuple[str, list[Message], bool]:
    """Return what the application says, what was said before the last question, and whether that is all there is."""
    system = str(messages[0]["content"]) if messages[0]["role"] == "system" else ""
    rest = messages[1:] if messages[0]["role"] == "system" else messages
    asked = max(i for i, one in enumerate(rest) if one["role"] == "user")
    history: list[Message] = [
        {"role": one["role"], "content": one["content"]}
        for one in rest[:asked]
        if one["role"] in ("user", "assistant") and isinstance(one["content"], str) and not one.get("tool_calls")
    ]
    return system, history, asked == len(rest) - 1 == len(history)


def _with_notes(messages: Sequence[ChatMessage], hits: Sequence[Hit]) -> Sequence[ChatMessage]:
    """Return messages with hits quoted before what the user said last."""
    if not hits:
        return messages
    asked = max(i for i, one in enumerate(messages) if one["role"] == "user")
    told = {**messages[asked], "content": f"{quoted(hits)}\n\n{messages[asked]['content']}"}
    return [*messages[:asked], told, *messages[asked + 1 :]]
