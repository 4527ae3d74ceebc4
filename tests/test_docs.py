"""The site builds, every link in it leads somewhere, and what is said in two languages is the same."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LINK = re.compile(r"\]\(([^)#\s]*)(?:#[^)\s]*)?\)")
CODE = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)
NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
TEST = re.compile(r"`([\w/]+\.py)`")


def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    """Dead links and anchors, pages outside the navigation and unknown names in the reference fail it."""
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    reference = (tmp_path / "site" / "reference" / "index.html").read_text()
    assert not re.search(r":(class|func|meth|mod):", reference)


@pytest.mark.parametrize("page", sorted(ROOT.glob("*.md")), ids=lambda page: page.name)
def test_links_of_pages_outside_the_site_lead_somewhere(page: Path) -> None:
    for target in LINK.findall(CODE.sub("", page.read_text())):
        if target and "://" not in target:
            assert (ROOT / target).exists(), target


def test_the_tests_that_hold_the_guarantees_are_there() -> None:
    files = {file.relative_to(ROOT).as_posix() for file in (ROOT / "tests").rglob("*.py")}
    named = set(TEST.findall((ROOT / "docs" / "guarantees.md").read_text()))
    assert len(named) > 20
    assert {name for name in named if not any(f"/{file}".endswith(f"/{name}") for file in files)} == set()


def test_the_chinese_readme_says_what_the_english_one_says() -> None:
    english, chinese = ((ROOT / name).read_text() for name in ("README.md", "README.zh.md"))
    assert CODE.findall(chinese) == CODE.findall(english)
    told = [CODE.sub("", text) for text in (english, chinese)]
    for what in (
        re.compile(r"^(#+) ", re.MULTILINE),  # headings by level, in order
        re.compile(r"^(\|)", re.MULTILINE),  # rows of tables
    ):
        assert what.findall(told[0]) == what.findall(told[1])
    for what in (NUMBER, LINK, re.compile(r"`[^`\n]+`"), re.compile(r"\*\*")):
        here, there = (sorted(set(what.findall(text)) - {"README.md", "README.zh.md"}) for text in told)
        assert here == there
    assert sorted(NUMBER.findall(told[0])) == sorted(NUMBER.findall(told[1]))
