"""A local model with a bank attached, as a LangChain chat model."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import Any, Self, TypeAlias

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.language_models.base import LangSmithParams
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    convert_to_openai_messages,
    merge_message_runs,
)
from langchain_core.messages.ai import InputTokenDetails, UsageMetadata
from langchain_core.messages.tool import invalid_tool_call, tool_call, tool_call_chunk
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable
from langchain_core.tools import BaseTool
from langchain_core.utils.function_calling import convert_to_openai_tool
from pydantic import ConfigDict, Field, PrivateAttr, SkipValidation, model_validator

from trimem import AnswerStream, LanguageModel, ReadConfig
from trimem.bank import Bank
from trimem.chat import chat, check_reading, sources, speaker
from trimem.errors import InvalidInputError
from trimem.lm.calling import call_format
from trimem.lm.chat import ChatMessage, check_tools
from trimem.lm.tool_calls import Said, said, speech
from trimem.types import Answer

ToolChoice: TypeAlias = str | bool | Mapping[str, Any] | list[str] | None
"""Which tool must be called, in the words of LangChain or OpenAI, or as a list of names."""


class ChatTrimem(BaseChatModel):
    """Speaks with a local model that has read, before each message, what its bank holds for the user's last one.

    With an :class:`trimem.ExplicitBank`, memory is attached to the model's attention and its text is in no prompt;
    hits of other banks are quoted in the prompt. Without a bank it is the model alone. ``namespace``, ``k``,
    ``filter``, ``max_tokens`` and ``temperature`` may be given anew with every call.

    A message's ``usage_metadata`` counts memory among the input tokens, as read from a cache. Its
    ``response_metadata`` holds ``sources``: id, document, source, line and score of what was read, with the share of
    ``attention`` it got where that is known.
    """

    model_config = ConfigDict(populate_by_name=True, arbitrary_types_allowed=True)

    model: SkipValidation[LanguageModel | str | Path | None] = Field(default=None, repr=False, exclude=True)
    """The model, or what :func:`trimem.load_model` takes; None is the one of an explicit bank, else the default."""
    bank: SkipValidation[Bank | None] = Field(default=None, repr=False, exclude=True)
    """What it reads."""
    namespace: str | tuple[str, ...] | None = None
    """Whose memory is read, and below; required with a bank."""
    k: int = Field(default=5, ge=1)
    """How many slots are read at most."""
    filter: dict[str, Any] | None = None
    """Metadata they must have, as ``where`` of :meth:`trimem.Bank.recall`."""
    min_trust: float = Field(default=0.0, ge=0, le=1)
    """How far they must be trusted at least."""
    read: SkipValidation[ReadConfig | str] = "dense"
    """How explicit memory is read, as in :meth:`trimem.ExplicitBank.attach`."""
    max_tokens: int = Field(default=256, ge=1)
    """Most tokens of a message."""
    temperature: float | None = Field(default=None, ge=0)
    """Of sampling; None or 0 is greedy."""
    stop: list[str] | None = Field(default=None, alias="stop_sequences")
    """Words that end a message, and are left out of it."""
    timeout: float | None = Field(default=None, gt=0)
    """Most seconds of a message; transformers ends it at the next token."""
    model_kwargs: dict[str, Any] = Field(default_factory=dict, repr=False, exclude=True)
    """Passed to transformers' ``generate``: ``top_p``, ``seed``, ..."""

    _loading: Any = PrivateAttr(default_factory=Lock)

    @model_validator(mode="after")
    def _check(self) -> Self:
        check_reading(self.bank, self.namespace)
        if self.bank is not None and self.cache is None:
            self.cache = False  # what a bank holds changes, and what a tenant was told is nobody else's
        return self

    @cached_property
    def lm(self) -> LanguageModel:
        """The model; loaded at the first use if it was given by name."""
        with self._loading:
            return speaker(self.model, self.bank)

    @property
    def _llm_type(self) -> str:
        return "trimem"

    @property
    def _name(self) -> str:
        """What the model is called, without loading it."""
        given = self.model
        return given.name if isinstance(given, LanguageModel) else "default" if given is None else str(given)

    @property
    def _identifying_params(self) -> Mapping[str, Any]:
        own = ("namespace", "k", "filter", "min_trust", "max_tokens", "temperature", "stop")
        return {"model_name": self._name, "bank": repr(self.bank), **{name: getattr(self, name) for name in own}}

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        params = super()._get_ls_params(stop=stop or self.stop, **kwargs)
        params["ls_provider"] = "trimem"
        params["ls_model_name"] = str(kwargs.get("model", self._name))
        params["ls_max_tokens"] = kwargs.get("max_tokens", self.max_tokens)
        return params

    def bind_tools(
        self,
        tools: Sequence[dict[str, Any] | type | Callable[..., Any] | BaseTool],
        *,
        tool_choice: ToolChoice = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """Tell the model of tools, which it then calls as it was trained to, or has to.

        Args:
            tools: The tools.
            tool_choice: None or "auto" leaves it to the model, "none" does not tell it of any. "any", "required" or
                True lets it say nothing but the call of one of them, and a name that of one. It is held to the
                tool's schema; what the arguments say is the model's (:mod:`trimem.lm.calling`).
            kwargs: Bound, too.

        Raises:
            InvalidInputError: No tool is called what ``tool_choice`` says.
            UnsupportedModelError: The model's chat template does not tell of tools, or writes calls in a format of
                its own and has to call one.
        """
        check_tools(self.lm)
        told = [convert_to_openai_tool(tool) for tool in tools]
        if chosen := _chosen(tool_choice, told):
            call_format(self.lm)
        return self.bind(tools=[] if tool_choice == "none" else told, tool_choice=chosen, **kwargs)

    # Speaking

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        with _Talk(self, messages, stop, kwargs) as talk:
            return talk.result()

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        talk = _Talk(self, messages, stop, kwargs)
        async for _ in talk.apieces():
            pass
        return talk.result()

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        with _Talk(self, messages, stop, kwargs) as talk:
            for piece in talk.pieces():
                chunk = talk.chunk(piece)
                if run_manager is not None:
                    run_manager.on_llm_new_token(piece, chunk=chunk)
                yield chunk
            yield talk.last_chunk()

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        talk = _Talk(self, messages, stop, kwargs)
        async with aclosing(talk.apieces()) as pieces:  # who stops listening ends the generation at once
            async for piece in pieces:
                chunk = talk.chunk(piece)
                if run_manager is not None:
                    await run_manager.on_llm_new_token(piece, chunk=chunk)
                yield chunk
        yield talk.last_chunk()


class _Talk:
    """One message of a model, from LangChain's words to trimem's and back."""

    def __init__(
        self, model: ChatTrimem, messages: Sequence[BaseMessage], stop: Sequence[str] | None, given: dict[str, Any]
    ) -> None:
        self._model = model
        if "model" in given:
            raise InvalidInputError("a ChatTrimem has one model: make another to speak with another model")
        self._messages = as_messages(messages)
        self._tools: list[dict[str, Any]] = given.pop("tools", [])
        self._must_call = _chosen(given.pop("tool_choice", None), self._tools)
        self._names = [str(tool["function"]["name"]) for tool in self._tools]
        own = {name: given.pop(name, getattr(model, name)) for name in ("namespace", "k", "filter", "max_tokens")}
        self._most = own["max_tokens"]
        self._scope = {"namespace": own["namespace"], "k": own["k"], "where": own["filter"]}
        self._options = {**model.model_kwargs, **given}
        self._options.setdefault("temperature", model.temperature)
        if words := model.stop if stop is None else stop:
            self._options["stop_strings"] = list(words)
        if model.timeout is not None:
            self._options["max_time"] = model.timeout
        self._id = f"run-{uuid.uuid4()}"
        self._stream: AnswerStream | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._stream is not None:
            self._stream.close()

    def pieces(self) -> Iterator[str]:
        """Search, then speak."""
        self._stream = chat(
            self._model.lm,
            self._messages,
            bank=self._model.bank,
            tools=self._tools,
            must_call=self._must_call,
            max_new_tokens=self._most,
            read=self._model.read,
            min_trust=self._model.min_trust,
            **self._scope,
            **self._options,
        )
        return speech(self._stream, self._names) if self._tools else self._stream

    async def apieces(self) -> AsyncGenerator[str, None]:
        """The same, where nothing waits on the event loop."""
        try:
            pieces = await asyncio.to_thread(self.pieces)
            while (piece := await asyncio.to_thread(next, pieces, None)) is not None:
                yield piece
        finally:
            await asyncio.to_thread(self.__exit__)  # which waits for the token that is being computed

    def chunk(self, piece: str) -> ChatGenerationChunk:
        return ChatGenerationChunk(message=AIMessageChunk(content=piece, id=self._id))

    def last_chunk(self) -> ChatGenerationChunk:
        """Return what is known at the end."""
        answer, told = self._told()
        message = AIMessageChunk(
            content="",
            id=self._id,
            tool_call_chunks=[
                tool_call_chunk(name=call.name, args=json.dumps(call.arguments), id=_call_id(), index=i)
                for i, call in enumerate(told.calls)
            ],
            invalid_tool_calls=_invalid(told),
            usage_metadata=_usage(answer),
            response_metadata=self._about(answer),
            chunk_position="last",
        )
        return ChatGenerationChunk(message=message)

    def result(self) -> ChatResult:
        """Return the whole message."""
        if self._stream is None:
            self.pieces()
        answer, told = self._told()
        message = AIMessage(
            content=told.text,
            id=self._id,
            tool_calls=[tool_call(name=call.name, args=dict(call.arguments), id=_call_id()) for call in told.calls],
            invalid_tool_calls=_invalid(told),
            usage_metadata=_usage(answer),
            response_metadata=self._about(answer),
        )
        return ChatResult(generations=[ChatGeneration(message=message)])

    def _told(self) -> tuple[Answer, Said]:
        assert self._stream is not None  # it has spoken
        answer = self._stream.answer
        return answer, said(answer.text, self._names) if self._tools else Said(answer.text)

    def _about(self, answer: Answer) -> dict[str, Any]:
        return {
            "model_name": self._model.lm.name,
            "model_provider": "trimem",
            "finish_reason": "length" if answer.new_tokens >= self._most else "stop",
            "sources": sources(answer),
            "first_token_seconds": answer.timings.first_token,
        }


def as_messages(messages: Sequence[BaseMessage]) -> list[ChatMessage]:
    """Return LangChain's messages as transformers has them; what one side says in a row is one message.

    Raises:
        InvalidInputError: One holds something other than text.
    """
    told: list[dict[str, Any]] = convert_to_openai_messages(merge_message_runs(messages))
    for message in told:
        message["content"] = message["content"] or ""
        if not isinstance(message["content"], str):
            raise InvalidInputError(
                f"a message of {message['role']} holds more than text, which a model here cannot read"
            )
        for call in message.get("tool_calls", ()):
            call["function"]["arguments"] = json.loads(call["function"]["arguments"])
    return list(told)


def _chosen(choice: ToolChoice, tools: Sequence[dict[str, Any]]) -> list[str]:
    """Return the names of the tools of which one must be called; none where it need not."""
    names = [str(tool["function"]["name"]) for tool in tools]
    if isinstance(choice, Mapping):  # as OpenAI has it
        choice = str(choice.get("function", {}).get("name"))
    if choice in (None, False, "auto", "none") or isinstance(choice, list):
        return choice if isinstance(choice, list) else []
    if choice in (True, "any", "required"):
        return names
    if choice not in names:
        raise InvalidInputError(
            f"tool_choice must be None, 'auto', 'none', 'any' or a tool, which are {', '.join(names) or 'none'}, got "
            f"{choice!r}"
        )
    return [str(choice)]


def _usage(answer: Answer) -> UsageMetadata:
    read = answer.prompt_tokens + answer.memory_tokens
    return UsageMetadata(
        input_tokens=read,
        output_tokens=answer.new_tokens,
        total_tokens=read + answer.new_tokens,
        input_token_details=InputTokenDetails(cache_read=answer.memory_tokens),
    )


def _invalid(told: Said) -> list[Any]:
    return [invalid_tool_call(args=text, error="this is no call of a tool") for text in told.invalid]


def _call_id() -> str:
    return f"call_{uuid.uuid4().hex}"
