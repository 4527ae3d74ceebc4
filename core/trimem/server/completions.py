"""An answer as OpenAI's chat completion, whole or in chunks."""

from __future__ import annotations

import json
import logging
import time
import uuid
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from trimem.errors import InvalidInputError
from trimem.lm.generate import COLD
from trimem.server.errors import logged, refusal
from trimem.server.schemas import ChatRequest
from trimem.types import Answer, Citation, Hit

_logger = logging.getLogger(__name__)


def arguments(request: ChatRequest, *, k: int, read: str, max_new_tokens: int) -> dict[str, Any]:
    """Return what :meth:`trimem.ExplicitBank.ask` is to be called with; the namespace is not the client's to say.

    Greedy unless temperature or top_p say otherwise.

    Args:
        request: The request.
        k: Where it does not say how many memories are read.
        read: Where it does not say how.
        max_new_tokens: Where it does not say how long the answer may be.

    Raises:
        InvalidInputError: The user does not speak last, or two limits contradict each other.
    """
    system = [message.text for message in request.messages if message.role in ("system", "developer")]
    talk = [message for message in request.messages if message.role in ("user", "assistant")]
    if not talk or talk[-1] is not request.messages[-1] or talk[-1].role != "user":
        raise InvalidInputError("the last message must be the user's: it is the question")
    limits = {request.max_tokens, request.max_completion_tokens} - {None}
    if len(limits) > 1:
        raise InvalidInputError("max_tokens is the old name of max_completion_tokens: give one of them")
    asked: dict[str, Any] = {
        "question": talk[-1].text,
        "history": [{"role": message.role, "content": message.text} for message in talk[:-1]],
        "system": "\n\n".join(system),
        "k": k if request.memory.k is None else request.memory.k,
        "where": request.memory.where,
        "read": request.memory.read or read,
        "max_new_tokens": next(iter(limits), max_new_tokens),
    }
    if request.stop:
        asked["stop_strings"] = stops(request)
    temperature = request.temperature if request.temperature is not None else 1.0 if request.top_p is not None else 0.0
    if temperature >= COLD:
        top_p = 1.0 if request.top_p is None else request.top_p
        asked |= {"do_sample": True, "temperature": temperature, "top_p": top_p, "top_k": 0, "seed": request.seed}
    return asked


def stops(request: ChatRequest) -> list[str]:
    """Return the strings that end the answer."""
    return [request.stop] if isinstance(request.stop, str) else request.stop or []


@dataclass(frozen=True, slots=True)
class Reply:
    """What one request is answered with.

    Attributes:
        model: Name of the model.
        fingerprint: The model's.
        limit: Most tokens of the answer.
        stops: Strings that end it.
        id: Identifies the reply.
        created: When, in seconds since 1970.
    """

    model: str
    fingerprint: str
    limit: int
    stops: list[str]
    id: str = field(default_factory=lambda: f"chatcmpl-{uuid.uuid4().hex}")
    created: int = field(default_factory=lambda: int(time.time()))

    def whole(self, answer: Answer) -> dict[str, Any]:
        """Return the JSON of a chat completion."""
        message = {"role": "assistant", "content": answer.text, "refusal": None}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": self._reason(answer)}
        return {**self._head("chat.completion"), "choices": [choice], "usage": usage(answer), **memory(answer)}

    async def events(
        self, spoken: AsyncGenerator[str | Answer, None], first: str | Answer, *, with_usage: bool
    ) -> AsyncGenerator[str, None]:
        """Yield the events of a stream; the last chunk of the answer says which memories were read.

        Args:
            spoken: The pieces of the answer, and the answer last.
            first: Of them.
            with_usage: Whether to end with what it cost.
        """
        yield self._chunk({"role": "assistant", "content": "", "refusal": None})
        async with aclosing(spoken):
            said = first
            try:
                while isinstance(said, str):
                    yield self._chunk({"content": said})
                    said = await anext(spoken)
            except Exception as error:  # noqa: BLE001 - the status is said already, so it is told in the stream
                logged(_logger, error)
                yield _event(refusal(error).body)
                return
        yield self._chunk({}, self._reason(said), **memory(said))
        if with_usage:
            yield _event({**self._head("chat.completion.chunk"), "choices": [], "usage": usage(said)})
        yield "data: [DONE]\n\n"

    def _chunk(self, delta: dict[str, Any], reason: str | None = None, **more: Any) -> str:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
        return _event({**self._head("chat.completion.chunk"), "choices": [choice], **more})

    def _head(self, kind: str) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": f"fp_{self.fingerprint[:10]}",
        }

    def _reason(self, answer: Answer) -> str:
        """Return why the answer ends; a token that ends the text says nothing."""
        spoken = "".join(answer.pieces)
        cut = answer.new_tokens >= self.limit and bool(answer.pieces[-1])
        return "length" if cut and not any(stop in spoken for stop in self.stops) else "stop"


def usage(answer: Answer) -> dict[str, Any]:
    """Return what an answer cost. Memory counts as prompt that is cached: attended to, and not read again."""
    prompt = answer.prompt_tokens + answer.memory_tokens
    return {
        "prompt_tokens": prompt,
        "completion_tokens": answer.new_tokens,
        "total_tokens": prompt + answer.new_tokens,
        "prompt_tokens_details": {"cached_tokens": answer.memory_tokens},
    }


def memory(answer: Answer) -> dict[str, Any]:
    """Return trimem's own part of a reply: what was read, what was looked at most, and how long it took."""
    quotes = {citation.hit.id: citation for citation in answer.citations}
    timings = {name: getattr(answer.timings, name) for name in ("search", "load", "first_token", "total")}
    return {"memory": {"sources": list(_sources(answer.hits, quotes)), "seconds": timings}}


def _sources(hits: tuple[Hit, ...], quotes: dict[str, Citation]) -> Iterator[dict[str, Any]]:
    for hit in hits:
        quote = quotes.get(hit.id)
        said = quote and {"text": quote.text, "start": quote.start, "stop": quote.stop, "share": quote.share}
        yield {**source(hit), "share": hit.attention, "quote": said}


def source(hit: Hit) -> dict[str, Any]:
    """Return where a hit is from: start and stop are offsets in the text that was remembered."""
    slot = hit.slot
    return {
        "id": slot.id,
        "source": slot.source,
        "line": slot.line,
        "start": slot.start,
        "stop": slot.stop,
        "score": hit.score,
    }


def _event(data: dict[str, Any]) -> str:
    return f"data: {json.dumps(data, ensure_ascii=False)}\n\n"
