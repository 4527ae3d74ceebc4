"""Values are checked where they enter."""

from __future__ import annotations

from typing import Any

import pytest

from trimem import InvalidInputError, InvalidNamespaceError
from trimem.checks import as_namespace, check_k


def test_namespaces() -> None:
    assert as_namespace("acme") == ("acme",)
    assert as_namespace(["acme", "hr"]) == ("acme", "hr")
    assert as_namespace("Grüße 字") == ("Grüße 字",)


@pytest.mark.parametrize("wrong", ["", (), [], ("a", ""), "a/b", ("a", "b/c"), "a\n", ("a", 3), ("a", None)])
def test_wrong_namespaces_are_refused(wrong: Any) -> None:
    with pytest.raises(InvalidNamespaceError, match="namespace"):
        as_namespace(wrong)


@pytest.mark.parametrize("wrong", [0, -1, 1.5, "3", None, True])
def test_wrong_k_is_refused(wrong: Any) -> None:
    with pytest.raises(InvalidInputError, match="k is the number of hits"):
        check_k(wrong)
