"""trimem's errors in OpenAI's format."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from trimem.errors import (
    AuthenticationError,
    BankBusyError,
    CalibrationNotFoundError,
    ContextLengthError,
    InvalidInputError,
    ModelError,
    RequestError,
    RequestTooLargeError,
    ServerBusyError,
    SlotNotFoundError,
    StoreError,
    TrimemError,
)

# The first class that fits counts. Codes are OpenAI's where it has one.
_KINDS: tuple[tuple[type[TrimemError], int, str, str], ...] = (
    (AuthenticationError, 401, "invalid_request_error", "invalid_api_key"),
    (RequestTooLargeError, 413, "invalid_request_error", "request_too_large"),
    (ServerBusyError, 503, "server_error", "server_busy"),
    (BankBusyError, 503, "server_error", "bank_busy"),
    (RequestError, 400, "invalid_request_error", "unsupported_parameter"),
    (ContextLengthError, 400, "invalid_request_error", "context_length_exceeded"),
    (CalibrationNotFoundError, 400, "invalid_request_error", "invalid_value"),
    (SlotNotFoundError, 404, "invalid_request_error", "not_found"),
    (InvalidInputError, 400, "invalid_request_error", "invalid_value"),
)


@dataclass(frozen=True, slots=True)
class Refusal:
    """What a client is told.

    Attributes:
        status: Of HTTP.
        type: OpenAI's.
        code: OpenAI's, or one of its kind.
        message: What was expected, what came, what to do.
        param: Which part of the request it is about.
    """

    status: int
    type: str
    code: str | None
    message: str
    param: str | None = None

    @property
    def body(self) -> dict[str, Mapping[str, str | None]]:
        """The JSON."""
        return {"error": {"message": self.message, "type": self.type, "param": self.param, "code": self.code}}

    @property
    def headers(self) -> dict[str, str]:
        """What else the reply must say."""
        return {401: {"www-authenticate": "Bearer"}, 503: {"retry-after": "1"}}.get(self.status, {})


def refusal(error: BaseException) -> Refusal:
    """Return what a client is told of an error. What is wrong on the server is not the client's to know."""
    for kind, status, type_, code in _KINDS:
        if isinstance(error, kind):
            return Refusal(status, type_, code, str(error))
    name = type(error).__name__ if isinstance(error, TrimemError) else "internal error"
    return Refusal(500, "server_error", "internal_error", f"the server could not do it ({name}); its log says more")


def logged(logger: logging.Logger, error: BaseException) -> None:
    """Log what is wrong on the server: by whom it was raised and where, without a word of what was said.

    The messages of other libraries may quote what they choked on.
    """
    if refusal(error).status != 500:
        return
    frames = traceback.extract_tb(error.__traceback__)[-8:]
    where = " < ".join(f"{Path(frame.filename).name}:{frame.lineno}" for frame in reversed(frames))
    what = f": {error}" if isinstance(error, ModelError | StoreError) else ""
    logger.error("%s%s at %s", type(error).__name__, what, where)
