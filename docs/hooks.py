"""What mkdocs does not know of our docstrings: Sphinx's roles, which editors follow. They become plain code."""

import re
from typing import Any

_ROLE = re.compile(r":(?:attr|class|data|func|meth|mod):(<code>)~?")


def on_page_content(html: str, **_: Any) -> str:
    """Leave the name of a role out."""
    return _ROLE.sub(r"\1", html)
