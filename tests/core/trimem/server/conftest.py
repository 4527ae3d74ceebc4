"""A real server on a free port, and OpenAI's own client."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from threading import Thread
from time import sleep
from typing import Any

import openai
import pytest
import uvicorn
from fastapi import FastAPI

from trimem import ExplicitBank
from trimem.server.app import ServerConfig, create_app
from trimem.server.keys import Keys

ANN, BOB, ACME, HR = (f"sk-{name}-0123456789abcdef" for name in ("ann", "bob", "acme", "hr"))
KEYS = Keys.of({ANN: "ann", BOB: "bob", ACME: "acme", HR: ("acme", "hr")})

Serve = Callable[..., AbstractContextManager[str]]


@contextmanager
def running(app: FastAPI) -> Iterator[str]:
    """Run an application as ``trimem serve`` does, and yield its address."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, access_log=False, log_config=None, timeout_graceful_shutdown=5))
    thread = Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
            sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join()


@pytest.fixture
def serve(bank: ExplicitBank) -> Serve:
    """What serves the bank of the tiny Llama for a ``with`` block, and gives its address."""

    def serving(**config: Any) -> AbstractContextManager[str]:
        return running(create_app(bank, keys=KEYS, config=ServerConfig(**{"name": "tiny", **config})))

    return serving


@pytest.fixture
def address(serve: Serve) -> Iterator[str]:
    with serve() as address:
        yield address


@pytest.fixture
def ann(address: str) -> Iterator[openai.OpenAI]:
    """The client of one tenant."""
    with openai.OpenAI(base_url=f"{address}/v1", api_key=ANN, max_retries=0) as client:
        yield client


@pytest.fixture
def bob(address: str) -> Iterator[openai.OpenAI]:
    """The client of another."""
    with openai.OpenAI(base_url=f"{address}/v1", api_key=BOB, max_retries=0) as client:
        yield client
