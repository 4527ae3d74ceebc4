"""Who is asking, how much they may send, and what is logged of it."""

from __future__ import annotations

import logging
import time

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from trimem.errors import AuthenticationError, RequestError, RequestTooLargeError
from trimem.server.errors import logged, refusal
from trimem.server.keys import Keys
from trimem.types import Namespace

NAMESPACE = "trimem.namespace"
"""Where in the scope of a request stands whose memory it may see."""

_HERE = {"localhost", "127.0.0.1", "[::1]"}
_logger = logging.getLogger(__name__)


class Gate:
    """The one place that says whose memory a request may see. All but ``/healthz`` comes through it.

    What is logged: method, path as it is written in the code, status and time. No body, no query, no header.

    Args:
        app: What lies behind it.
        keys: Which key opens which namespace; None where all who come from this machine see ``namespace``.
        namespace: That one.
        max_body_bytes: The largest body that is read.
    """

    def __init__(self, app: ASGIApp, keys: Keys | None, namespace: Namespace, max_body_bytes: int) -> None:
        self._app = app
        self._keys = keys
        self._namespace = namespace
        self._most = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun, status = time.perf_counter(), 0

        async def sending(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        try:
            headers = Headers(scope=scope)
            if scope["path"] != "/healthz":
                scope[NAMESPACE] = self._admit(headers)
            await self._app(scope, self._limited(headers, receive), sending)
        except Exception as error:  # noqa: BLE001 - whoever asked is told, and the log says where
            logged(_logger, error)
            if status:
                return  # too late to say it: the connection is cut
            told = refusal(error)
            await JSONResponse(told.body, told.status, told.headers)(scope, receive, sending)
        finally:
            path = getattr(scope.get("route"), "path", "-")
            _logger.info("%s %s %d %.0f ms", scope["method"], path, status, 1000 * (time.perf_counter() - begun))

    def _admit(self, headers: Headers) -> Namespace:
        if self._keys is not None:
            return self._keys.namespace(headers.get("authorization"))
        host = headers.get("host", "").rpartition(":")[0] or headers.get("host", "")
        if host not in _HERE:  # a web page whose name was made to mean this machine, say
            raise AuthenticationError(
                f"without keys this server answers to {', '.join(sorted(_HERE))} alone, got another name: use one of "
                "them, or start it with --keys"
            )
        return self._namespace

    def _limited(self, headers: Headers, receive: Receive) -> Receive:
        """Return ``receive``, which refuses a body that is too large before it is all there."""
        length = headers.get("content-length", "0")
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        if (length != "0" or "transfer-encoding" in headers) and kind != "application/json":
            # Browsers send any other kind to this machine for whatever page asks them to, and JSON for none.
            raise RequestError("a body must be JSON and say so, by the header Content-Type: application/json")
        read = 0

        async def receiving() -> Message:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if read > self._most:
                raise HTTPException(413, str(self._too_large()))  # any other error of a body would be a 400
            return message

        if length.isdecimal() and int(length) > self._most:
            raise self._too_large()
        return receiving

    def _too_large(self) -> RequestTooLargeError:
        return RequestTooLargeError(f"the body of a request is at most {self._most:,} bytes: send it in parts")
