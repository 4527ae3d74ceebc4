"""The command ``trimem serve``."""

from __future__ import annotations

import copy
import gc
import ipaddress
from pathlib import Path
from typing import Annotated

import typer

from trimem.console import BankOption, EncoderOption, ModelOption, as_bytes, err, errors_said, quiet
from trimem.errors import InvalidInputError, MissingDependencyError


@errors_said
def serve(
    bank: BankOption,
    model: ModelOption = None,
    encoder: EncoderOption = None,
    namespace: Annotated[
        str | None,
        typer.Option("--namespace", help="Whose memory, as a/b, where there are no keys.", envvar="TRIMEM_NAMESPACE"),
    ] = None,
    keys: Annotated[
        Path | None, typer.Option("--keys", help='JSON from key to namespace, {"sk-...": "acme/hr"}.')
    ] = None,
    host: Annotated[str, typer.Option("--host", help="Where to listen.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", help="0 takes a free one.", envvar="TRIMEM_PORT")] = 8000,
    k: Annotated[int, typer.Option("--k", "-k", help="References a question reads.")] = 5,
    read: Annotated[str, typer.Option("--read", help="dense or mixed, as of ask.")] = "dense",
    max_new_tokens: Annotated[int, typer.Option("--max-new-tokens", help="Longest answer, unless asked.")] = 256,
    waiting: Annotated[int, typer.Option("--waiting", help="Requests that may wait for the model.")] = 32,
    max_mb: Annotated[float, typer.Option("--max-mb", help="The largest request, in megabytes.")] = 1,
    name: Annotated[str | None, typer.Option("--name", help="What clients call the model.")] = None,
) -> None:
    """Serve a bank to OpenAI clients: chat completions, and memories remembered, searched and forgotten.

    Without --keys it listens to this machine alone, and everybody on it sees --namespace.
    """
    if keys is None and not is_loopback(host):
        raise InvalidInputError(
            f"others can reach {host}, so every client needs a key: give --keys FILE with JSON such as "
            '{"sk-...": "acme/hr"}, or listen on 127.0.0.1'
        )
    if (keys is None) == (namespace is None):
        raise InvalidInputError("give --keys FILE, or --namespace for everybody on this machine, and not both")
    try:
        import uvicorn
        from uvicorn.config import LOGGING_CONFIG

        from trimem.server.app import ServerConfig, create_app
        from trimem.server.keys import Keys
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] not in ("fastapi", "starlette", "uvicorn"):
            raise
        raise MissingDependencyError('the server is not installed: pip install "trimem[serve]"') from error
    from trimem.explicit.bank import ExplicitBank

    quiet()
    config = ServerConfig(k, read, max_new_tokens, waiting, as_bytes(max_mb), name)
    opened_by = None if keys is None else Keys.read(keys)
    with ExplicitBank.open(bank, model=model, encoder=encoder) as opened:
        path = None if namespace is None else namespace.split("/")
        app = create_app(opened, keys=opened_by, namespace=path, config=config)
        err.print("every request is logged with its method, path, status and time; nothing of what is said")
        logging = copy.deepcopy(LOGGING_CONFIG)
        logging["loggers"]["trimem.server"] = {"handlers": ["default"], "level": "INFO", "propagate": False}
        gc.collect()
        gc.freeze()  # what is loaded stays: to look through all of it again would stop every answer for a while
        uvicorn.run(app, host=host, port=port, access_log=False, log_config=logging, timeout_graceful_shutdown=5)


def is_loopback(host: str) -> bool:
    """Tell whether only this machine can reach a host."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
