"""LlamaIndex's messages in trimem's words."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from llama_index.core.base.llms.types import ChatMessage, MessageRole, TextBlock

from trimem.text.quoting import quoted
from trimem.types import Hit, Turn

SPOKEN = {MessageRole.USER: "user", MessageRole.ASSISTANT: "assistant"}
"""Who says what is remembered; what tools and systems say is not."""


def text_of(message: ChatMessage) -> str:
    """Return what a message says in words."""
    return (message.content or "").strip()


def key_of(message: ChatMessage) -> str:
    """Return the key under which what a message says is remembered: the same words of the same speaker are one text."""
    told = json.dumps([message.role.value, text_of(message)])
    return hashlib.sha256(told.encode(errors="surrogatepass")).hexdigest()[:16]


def remembered(messages: Sequence[ChatMessage], about: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the arguments of ``remember`` for what user and assistant say in messages; None where they say nothing."""
    turns = {
        key_of(message): Turn(SPOKEN[message.role], None, text_of(message))
        for message in messages
        if message.role in SPOKEN and text_of(message)
    }
    if not turns:
        return None
    return {
        "texts": [turn.said for turn in turns.values()],
        "ids": list(turns),
        "metadata": [{**about, **turn.metadata, "message": key} for key, turn in turns.items()],
    }


def asked(messages: Sequence[ChatMessage]) -> str:
    """Return what the user said last."""
    return next((text_of(message) for message in reversed(messages) if message.role == MessageRole.USER), "")


def beyond(messages: Sequence[ChatMessage]) -> dict[str, Any]:
    """Return the filter that leaves out what a model reads in the conversation already."""
    return {"message": {"$nin": [key_of(message) for message in messages]}}


def with_notes(messages: Sequence[ChatMessage], hits: Sequence[Hit]) -> list[ChatMessage]:
    """Return messages with hits quoted before what the user said last, or after all if somebody spoke since."""
    if not hits:
        return list(messages)
    notes = quoted(hits)
    if not messages or messages[-1].role != MessageRole.USER:
        return [*messages, ChatMessage(role=MessageRole.USER, content=notes)]
    last = messages[-1].model_copy(update={"blocks": [TextBlock(text=f"{notes}\n\n"), *messages[-1].blocks]})
    return [*messages[:-1], last]


def as_messages(messages: Sequence[ChatMessage]) -> list[dict[str, Any]]:
    """Return messages as transformers has them; what one side says in a row is one message."""
    told: list[dict[str, Any]] = []
    for message in messages:
        role = "system" if message.role == MessageRole.DEVELOPER else message.role.value
        said = "".join(block.text for block in message.blocks if isinstance(block, TextBlock))
        if told and told[-1]["role"] == role:
            told[-1]["content"] += f"\n\n{said}"
        else:
            told.append({"role": role, "content": said})
    return told
