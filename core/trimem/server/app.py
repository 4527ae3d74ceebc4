"""A bank behind OpenAI's API."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncGenerator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response, StreamingResponse
from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope, Send

from trimem.checks import as_namespace, check_k
from trimem.errors import InvalidInputError, SlotNotFoundError, TrimemError
from trimem.explicit.bank import ExplicitBank
from trimem.explicit.read_config import as_read_config
from trimem.server.completions import Reply, arguments, source, stops
from trimem.server.errors import Refusal, refusal
from trimem.server.gate import NAMESPACE, Gate
from trimem.server.keys import Keys
from trimem.server.line import Line
from trimem.server.schemas import ChatRequest, ForgetRequest, RememberRequest, SearchRequest
from trimem.server.speaking import HungUpError, speak, unless_hung_up
from trimem.types import Answer, Namespace


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """How a server answers.

    Attributes:
        k: Memories a question reads, unless it says how many.
        read: How they are read, likewise.
        max_new_tokens: Longest answer in tokens, likewise.
        waiting: Requests that may wait for the model.
        max_body_bytes: The largest request.
        name: What clients call the model; None is the last part of its name.

    Raises:
        InvalidInputError: One of them makes no sense.
    """

    k: int = 5
    read: str = "dense"
    max_new_tokens: int = 256
    waiting: int = 32
    max_body_bytes: int = 1 << 20
    name: str | None = None

    def __post_init__(self) -> None:
        check_k(self.k)
        as_read_config(self.read)
        for name in ("max_new_tokens", "waiting", "max_body_bytes"):
            if getattr(self, name) < 1:
                raise InvalidInputError(f"{name} must be at least 1, got {getattr(self, name)}")


def create_app(
    bank: ExplicitBank,
    *,
    keys: Keys | None = None,
    namespace: str | Sequence[str] | None = None,
    config: ServerConfig = ServerConfig(),
) -> FastAPI:
    """Return the application; the bank stays the caller's to close.

    Args:
        bank: The bank; its model is loaded now.
        keys: Which key opens which namespace.
        namespace: What everyone sees who comes from this machine, where there are no keys.
        config: How to answer.

    Raises:
        InvalidInputError: Keys and a namespace are given, or neither.
    """
    if (keys is None) == (namespace is None):
        raise InvalidInputError(
            "give either keys, each of which opens a namespace, or one namespace for everybody here"
        )
    alone = () if namespace is None else as_namespace(namespace)
    lm = bank.compiler.lm
    model: dict[str, Any] = {
        "id": config.name or Path(lm.name).name,
        "object": "model",
        "created": int(time.time()),
        "owned_by": "trimem",
    }
    line = Line(config.waiting)
    app = FastAPI(title="trimem", docs_url=None, redoc_url=None)
    app.add_middleware(Gate, keys=keys, namespace=alone, max_body_bytes=config.max_body_bytes)
    for kind in (TrimemError, RequestValidationError, HTTPException):
        app.add_exception_handler(kind, _refused)

    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [model]}

    @app.get("/v1/models/{name}")
    async def one_model(name: str) -> dict[str, Any]:
        return _served(name, model)

    @app.post("/v1/chat/completions")
    async def chat(body: ChatRequest, request: Request, path: Caller) -> Response:
        _served(body.model, model)
        asked = arguments(body, k=config.k, read=config.read, max_new_tokens=config.max_new_tokens)
        reply = Reply(model["id"], lm.fingerprint, asked["max_new_tokens"], stops(body))
        spoken = speak(line, lambda: bank.ask(**asked, namespace=path, stream=True))
        if not body.stream:
            return JSONResponse(reply.whole(await unless_hung_up(request, _last(spoken))))
        first = await unless_hung_up(request, anext(spoken))  # so that what is wrong has a status of its own
        options = body.stream_options
        return _EventStream(reply.events(spoken, first, with_usage=options is not None and options.include_usage))

    @app.post("/v1/memories")
    async def remember(body: RememberRequest, path: Caller) -> dict[str, Any]:
        given = body.model_dump()
        ids = await line.run(lambda: bank.remember(given.pop("texts"), **given, namespace=path, progress=False))
        return _list([{"id": id_, "object": "memory"} for id_ in ids])

    @app.post("/v1/memories/search")
    async def search(body: SearchRequest, path: Caller) -> dict[str, Any]:
        hits = await bank.arecall(body.query, body.k, namespace=path, where=body.where)
        told = [
            {
                **source(hit),
                "object": "memory",
                "text": hit.text,
                "metadata": dict(hit.metadata),
                "created_at": hit.slot.created_at.isoformat(),
            }
            for hit in hits
        ]
        return _list(told)

    @app.delete("/v1/memories")
    async def forget(body: ForgetRequest, path: Caller) -> dict[str, Any]:
        if body.all == (body.ids is not None or body.where is not None):
            raise InvalidInputError('say what to forget, by "ids" or "where", or say "all": true, but not both')
        return await _forgotten(body, path)

    @app.delete("/v1/memories/{id_}")
    async def forget_one(id_: str, path: Caller) -> dict[str, Any]:
        receipt = await _forgotten(ForgetRequest(ids=id_), path)
        if not receipt["slots"]:
            raise SlotNotFoundError("there is no such memory (any more)")
        return receipt

    async def _forgotten(body: ForgetRequest, path: Namespace) -> dict[str, Any]:
        receipt = await bank.aforget(namespace=path, ids=body.ids, where=body.where)
        told = asdict(receipt)
        del told["namespace"]  # the client knows its key, not what the key opens
        return {**told, "object": "memory.erasure", "deleted": True, "erased_at": receipt.erased_at.isoformat()}

    return app


def _caller(request: Request) -> Namespace:
    path: Namespace = request.scope[NAMESPACE]  # a request that did not come through the gate has none
    return path


Caller = Annotated[Namespace, Depends(_caller)]


class _EventStream(StreamingResponse):
    """Server-sent events; ends the answer when the client hangs up."""

    def __init__(self, events: AsyncGenerator[str, None]) -> None:
        super().__init__(events, headers={"cache-control": "no-cache"}, media_type="text/event-stream")
        self._events = events

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self._events.aclose()


async def _last(spoken: AsyncGenerator[str | Answer, None]) -> Answer:
    async for said in spoken:
        if isinstance(said, Answer):
            return said
    raise AssertionError("the answer comes last")


async def _refused(_: Request, error: Exception) -> Response:
    """Tell a client what is wrong, in OpenAI's format."""
    if isinstance(error, HungUpError):
        return Response(status_code=499)  # nobody hears it; the log has it
    if isinstance(error, RequestValidationError):
        return _told(_first_of(error))
    if isinstance(error, HTTPException):
        kind = {404: "not_found", 413: "request_too_large"}.get(error.status_code)
        return _told(Refusal(error.status_code, "invalid_request_error", kind, str(error.detail)))
    if (told := refusal(error)).status == 500:
        raise error  # the gate logs it
    return _told(told)


def _told(refused: Refusal) -> Response:
    body = json.dumps(refused.body)  # ASCII, since it may quote half a character
    return Response(body, refused.status, refused.headers, media_type="application/json")


def _first_of(error: RequestValidationError) -> Refusal:
    """Return the first thing that is wrong with a body."""
    wrong = error.errors()[0]
    if wrong["type"] == "json_invalid":
        return Refusal(400, "invalid_request_error", "invalid_json", "the body must be JSON, and is not")
    param = ".".join(map(str, wrong["loc"][1:])) or None
    code = "unsupported_parameter" if wrong["type"] == "extra_forbidden" else "invalid_value"
    message = f"{param or 'the body'}: {wrong['msg']}, got {wrong.get('input')!r:.80}"
    return Refusal(400, "invalid_request_error", code, message, param)


def _served(name: str, model: dict[str, Any]) -> dict[str, Any]:
    if name != model["id"]:
        raise SlotNotFoundError(f"the model {name!r} does not exist here: this server speaks as {model['id']!r}")
    return model


def _list(data: list[dict[str, Any]]) -> dict[str, Any]:
    return {"object": "list", "data": data}
