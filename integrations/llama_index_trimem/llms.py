"""A local model that reads a bank, as an LLM of LlamaIndex."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import Any, Self

from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    ChatResponseAsyncGen,
    ChatResponseGen,
    CompletionResponse,
    CompletionResponseAsyncGen,
    CompletionResponseGen,
    LLMMetadata,
    MessageRole,
)
from llama_index.core.llms import CustomLLM
from llama_index.core.llms.callbacks import llm_chat_callback, llm_completion_callback
from pydantic import ConfigDict, Field, PrivateAttr, SkipValidation, model_validator

from llama_index_trimem._messages import as_messages
from trimem import AnswerStream, LanguageModel, ReadConfig
from trimem.bank import Bank
from trimem.chat import chat, check_reading, sources, speaker
from trimem.types import Answer


class TrimemLLM(CustomLLM):
    """Speaks with a local model that has read, before each answer, what its bank holds for the user's last message.

    With an :class:`trimem.ExplicitBank`, memory is attached to the model's attention and its text is in no prompt;
    hits of other banks are quoted in the prompt. Without a bank it is the model alone. ``namespace``, ``k``, ``where``,
    ``max_tokens`` and ``temperature`` may be given anew with every call.

    ``additional_kwargs`` of an answer holds ``sources``: id, document, source, line and score of what was read, with
    the share of ``attention`` it got where that is known; ``raw`` holds the :class:`trimem.Answer`.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    model: SkipValidation[LanguageModel | str | Path | None] = Field(default=None, exclude=True, repr=False)
    """The model, or what :func:`trimem.load_model` takes; None is the one of an explicit bank, else the default."""
    bank: SkipValidation[Bank | None] = Field(default=None, exclude=True, repr=False)
    """What it reads."""
    namespace: str | tuple[str, ...] | None = None
    """Whose memory is read, and below; required with a bank."""
    k: int = Field(default=5, ge=1)
    """How many slots are read at most."""
    where: dict[str, Any] | None = None
    """Metadata they must have, as in :meth:`trimem.Bank.recall`."""
    read: SkipValidation[ReadConfig | str] = "dense"
    """How explicit memory is read, as in :meth:`trimem.ExplicitBank.attach`."""
    max_tokens: int = Field(default=256, ge=1)
    """Most tokens of an answer."""
    temperature: float | None = Field(default=None, ge=0)
    """Of sampling; None or 0 is greedy."""
    generate_kwargs: dict[str, Any] = Field(default_factory=dict, exclude=True, repr=False)
    """Passed to transformers' ``generate``: ``top_p``, ``seed``, ..."""

    _loading: Any = PrivateAttr(default_factory=Lock)

    @model_validator(mode="after")
    def _check_bank(self) -> Self:
        check_reading(self.bank, self.namespace)
        return self

    @classmethod
    def class_name(cls) -> str:
        return "TrimemLLM"

    @cached_property
    def lm(self) -> LanguageModel:
        """The model; loaded at the first use if it was given by name."""
        with self._loading:
            return speaker(self.model, self.bank)

    @property
    def metadata(self) -> LLMMetadata:
        return LLMMetadata(
            context_window=self.lm.context_length,
            num_output=self.max_tokens,
            is_chat_model=True,
            model_name=self.lm.name,
        )

    # Whole

    @llm_chat_callback()
    def chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        return _chat_response(self._speak(as_messages(messages), kwargs).answer)

    @llm_chat_callback()
    async def achat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        return _chat_response(await self._answer(as_messages(messages), kwargs))

    @llm_completion_callback()
    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        return _completion(self._speak(_asked(prompt), kwargs).answer)

    @llm_completion_callback()
    async def acomplete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        return _completion(await self._answer(_asked(prompt), kwargs))

    # Piece by piece

    @llm_chat_callback()
    def stream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseGen:
        def responses() -> ChatResponseGen:
            for said, piece, answer in self._pieces(as_messages(messages), kwargs):
                yield _chat_response(answer) if answer else _chat_piece(said, piece)

        return responses()

    @llm_chat_callback()
    async def astream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseAsyncGen:
        async def responses() -> ChatResponseAsyncGen:
            async for said, piece, answer in self._apieces(as_messages(messages), kwargs):
                yield _chat_response(answer) if answer else _chat_piece(said, piece)

        return responses()

    @llm_completion_callback()
    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponseGen:
        def responses() -> CompletionResponseGen:
            for said, piece, answer in self._pieces(_asked(prompt), kwargs):
                yield _completion(answer) if answer else CompletionResponse(text=said, delta=piece)

        return responses()

    @llm_completion_callback()
    async def astream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponseAsyncGen:
        async def responses() -> CompletionResponseAsyncGen:
            async for said, piece, answer in self._apieces(_asked(prompt), kwargs):
                yield _completion(answer) if answer else CompletionResponse(text=said, delta=piece)

        return responses()

    def _speak(self, messages: Sequence[Mapping[str, Any]], given: Mapping[str, Any]) -> AnswerStream:
        """Search, and return the answer that is spoken as it is iterated over."""
        options = {"temperature": self.temperature, **self.generate_kwargs, **given}
        own = {name: options.pop(name, getattr(self, name)) for name in ("namespace", "k", "where")}
        most = options.pop("max_tokens", self.max_tokens)
        return chat(self.lm, messages, bank=self.bank, max_new_tokens=most, read=self.read, **own, **options)

    async def _answer(self, messages: Sequence[Mapping[str, Any]], given: Mapping[str, Any]) -> Answer:
        async for _, _, answer in self._apieces(messages, given):
            if answer:
                return answer
        raise AssertionError("the last piece carries the answer")

    def _pieces(
        self, messages: Sequence[Mapping[str, Any]], given: Mapping[str, Any]
    ) -> Iterator[tuple[str, str, Answer | None]]:
        """Yield what was said so far with each new piece, and at the end the answer."""
        stream = self._speak(messages, given)
        try:
            said = ""
            for piece in stream:
                said += piece
                yield said, piece, None
            yield said, "", stream.answer
        finally:
            stream.close()

    async def _apieces(
        self, messages: Sequence[Mapping[str, Any]], given: Mapping[str, Any]
    ) -> AsyncIterator[tuple[str, str, Answer | None]]:
        """:meth:`_pieces`, where nothing waits on the event loop."""
        pieces = self._pieces(messages, given)
        try:
            while (piece := await asyncio.to_thread(next, pieces, None)) is not None:
                yield piece
        finally:
            await asyncio.to_thread(pieces.close)  # type: ignore[attr-defined]  # of a generator


def _asked(prompt: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": prompt}]


def _chat_piece(said: str, piece: str) -> ChatResponse:
    return ChatResponse(message=ChatMessage(role=MessageRole.ASSISTANT, content=said), delta=piece)


def _chat_response(answer: Answer) -> ChatResponse:
    about = _about(answer)
    message = ChatMessage(
        role=MessageRole.ASSISTANT, content=answer.text, additional_kwargs={"sources": about["sources"]}
    )
    return ChatResponse(message=message, delta="", raw=answer, additional_kwargs=about)


def _completion(answer: Answer) -> CompletionResponse:
    return CompletionResponse(text=answer.text, delta="", raw=answer, additional_kwargs=_about(answer))


def _about(answer: Answer) -> dict[str, Any]:
    return {
        "sources": sources(answer),
        "prompt_tokens": answer.prompt_tokens,
        "memory_tokens": answer.memory_tokens,
        "completion_tokens": answer.new_tokens,
        "total_tokens": answer.prompt_tokens + answer.memory_tokens + answer.new_tokens,
    }
