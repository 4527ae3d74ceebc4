"""Answers spoken off the event loop, for as long as somebody listens."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine
from threading import Event
from typing import Any, TypeVar

from fastapi import Request

from trimem.errors import RequestError
from trimem.explicit.reading import AnswerStream
from trimem.server.line import Line
from trimem.types import Answer

T = TypeVar("T")


class HungUpError(RequestError):
    """Whoever asked does not listen any more."""


async def speak(line: Line, ask: Callable[[], AnswerStream]) -> AsyncGenerator[str | Answer, None]:
    """Yield the pieces of an answer, and the answer last. To close this, or cancel who waits for it, ends the answer.

    Args:
        line: Where to wait for the model.
        ask: Searches, and begins to speak.

    Raises:
        ServerBusyError: Too many wait for the model already.
    """
    loop = asyncio.get_running_loop()
    said: asyncio.Queue[str | asyncio.Task[Answer | None]] = asyncio.Queue()
    hung_up = Event()
    begun: list[AnswerStream] = []

    def work() -> Answer | None:
        if hung_up.is_set():
            return None
        stream = ask()
        begun.append(stream)
        if hung_up.is_set():  # this order and the one below leave no gap between them
            return None
        for piece in stream:
            loop.call_soon_threadsafe(said.put_nowait, piece)
        return stream.answer

    task = loop.create_task(line.run(work))
    task.add_done_callback(said.put_nowait)
    try:
        while isinstance(piece := await said.get(), str):
            yield piece
        answer = piece.result()
        assert answer is not None  # nobody hung up
        yield answer
    finally:
        hung_up.set()
        task.cancel()
        for stream in begun:
            loop.run_in_executor(None, stream.close)  # which waits for the token it is at


async def unless_hung_up(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Return what ``work`` does, and cancel it when the client hangs up.

    Args:
        request: Whose body has been read.
        work: What the client waits for.

    Raises:
        HungUpError: The client has gone.
    """
    task, gone = asyncio.ensure_future(work), asyncio.ensure_future(_hung_up(request))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise HungUpError("the client hung up")
        return task.result()
    finally:
        gone.cancel()
        task.cancel()


async def _hung_up(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
