"""``trimem`` as the tests run it."""

from __future__ import annotations

import json
from typing import Any

from typer.testing import CliRunner, Result

from trimem.cli import app


def trimem(*arguments: str, code: int = 0) -> Result:
    result = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result


def json_of(*arguments: str, code: int = 0) -> Any:
    return json.loads(trimem(*arguments, "--json", code=code).stdout)


def here(bank: str, namespace: str = "acme/hr") -> tuple[str, ...]:
    return ("--bank", bank, "--namespace", namespace)
