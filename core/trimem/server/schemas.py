"""What a request may say. What this server does not do is refused, not passed over."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias, TypeVar

from pydantic import BaseModel, ConfigDict, Field

T = TypeVar("T")
Many: TypeAlias = Annotated[list[T], Field(fail_fast=True)]  # to find all that is wrong with a million takes seconds
Stop = Annotated[str, Field(min_length=1, max_length=256)]
Count = Annotated[int, Field(ge=1, le=1000)]


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class TextPart(_Request):
    """A part of a message; other kinds than text are refused."""

    type: Literal["text"]
    text: str


class ChatMessage(_Request):
    """What was said, and by whom."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | Many[TextPart]
    name: str | None = None  # says nothing to these models

    @property
    def text(self) -> str:
        """All of it."""
        return self.content if isinstance(self.content, str) else "\n".join(part.text for part in self.content)


class StreamOptions(_Request):
    """How to stream."""

    include_usage: bool = False
    include_obfuscation: bool | None = None  # there is none to include


class MemoryOptions(_Request):
    """trimem's own: which memories are read, and how."""

    k: Count | None = None
    where: dict[str, Any] | None = None
    read: Literal["dense", "mixed"] | None = None


class ChatRequest(_Request):
    """A request for a chat completion."""

    model: str
    messages: Many[ChatMessage] = Field(min_length=1)
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    stop: Stop | Annotated[list[Stop], Field(max_length=4)] | None = None
    seed: int | None = Field(None, ge=-(2**63), lt=2**63)
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    memory: MemoryOptions = MemoryOptions()

    # One value each, the one that asks for nothing
    n: Literal[1] | None = None
    logprobs: Literal[False] | None = None
    frequency_penalty: Annotated[float, Field(ge=0, le=0)] | None = None
    presence_penalty: Annotated[float, Field(ge=0, le=0)] | None = None
    logit_bias: Annotated[dict[str, float], Field(max_length=0)] | None = None
    tools: Annotated[list[Any], Field(max_length=0)] | None = None
    tool_choice: Literal["none", "auto"] | None = None
    response_format: dict[Literal["type"], Literal["text"]] | None = None
    modalities: list[Literal["text"]] | None = None

    # About the request, not about the answer
    user: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    metadata: dict[str, str] | None = None
    service_tier: str | None = None
    store: Literal[False] | None = None
    parallel_tool_calls: bool | None = None


class RememberRequest(_Request):
    """Texts to remember."""

    texts: str | Many[str]
    metadata: dict[str, Any] | Many[dict[str, Any]] | None = None
    ids: str | Many[str] | None = None


class SearchRequest(_Request):
    """What to look for."""

    query: str
    k: Count = 4
    where: dict[str, Any] | None = None


class ForgetRequest(_Request):
    """What to forget: ids, what has this metadata, or all."""

    ids: str | Many[str] | None = None
    where: dict[str, Any] | None = None
    all: bool = False
