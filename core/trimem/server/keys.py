"""Keys and the namespaces they open."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trimem.checks import as_namespace
from trimem.errors import AuthenticationError, InvalidInputError
from trimem.types import Namespace

LEAST_LENGTH = 16
"""Of a key, in characters: shorter ones can be guessed."""


@dataclass(frozen=True, slots=True)
class Keys:
    """Which key opens which namespace; of the keys only digests are kept.

    Attributes:
        namespaces: By SHA-256 of the key.

    Raises:
        InvalidInputError: There is no key, or one is too short or no printable ASCII.
        InvalidNamespaceError: A namespace is malformed.
    """

    namespaces: Mapping[bytes, Namespace] = field(repr=False)

    @classmethod
    def of(cls, namespaces: Mapping[str, str | Sequence[str]]) -> Keys:
        """Return the keys of a mapping from key to namespace.

        Args:
            namespaces: By key; a plain string is a tuple of one.
        """
        if not namespaces:
            raise InvalidInputError('keys are a mapping from key to namespace, such as {"sk-...": "acme/hr"}; got none')
        for i, key in enumerate(namespaces):
            if len(key) < LEAST_LENGTH or not (key.isascii() and key.isprintable()) or " " in key:
                raise InvalidInputError(
                    f"a key is at least {LEAST_LENGTH} printable ASCII characters without spaces, which key {i + 1} of "
                    f"{len(namespaces)} is not; python -c 'import secrets; print(\"sk-\" + secrets.token_urlsafe(32))' "
                    "makes one"
                )
        return cls({_digest(key): as_namespace(namespace) for key, namespace in namespaces.items()})

    @classmethod
    def read(cls, path: Path) -> Keys:
        """Read a JSON file such as ``{"sk-...": "acme/hr"}``.

        Raises:
            InvalidInputError: It cannot be read, is something else, or has a key twice.
        """
        try:
            said = json.loads(path.read_bytes(), object_pairs_hook=_once)
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is no JSON with each key once"
            raise InvalidInputError(f"the file of keys {path} cannot be read: {reason}") from None
        if not isinstance(said, dict) or not all(isinstance(value, str) for value in said.values()):
            raise InvalidInputError(
                f'the file of keys {path} must be a JSON object from key to namespace, such as {{"sk-...": "acme/hr"}}'
            )
        return cls.of({key: value.split("/") for key, value in said.items()})

    def namespace(self, authorization: str | None) -> Namespace:
        """Return what a request may see. Takes the same time whichever key it is, and whether it is one.

        Args:
            authorization: Its header, ``Bearer`` and the key.

        Raises:
            AuthenticationError: It has no valid key.
        """
        scheme, _, key = (authorization or "").partition(" ")
        digest = _digest(key.strip())
        opened = None
        for held, namespace in self.namespaces.items():
            if hmac.compare_digest(held, digest):
                opened = namespace
        if opened is None or scheme.lower() != "bearer":
            raise AuthenticationError(
                "a valid key is required, as the header Authorization: Bearer KEY, which OpenAI's clients send as "
                f"api_key; got {'a key that opens nothing' if authorization else 'none'}"
            )
        return opened


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("latin-1", errors="replace")).digest()


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object, in which no name may come twice: whose key would it be?"""
    if len({name for name, _ in pairs}) < len(pairs):
        raise ValueError("twice")
    return dict(pairs)
