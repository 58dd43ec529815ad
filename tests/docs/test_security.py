"""The page about security is made from the samples and the advisories, and the policy is there."""

from __future__ import annotations

import ast
import importlib.util
import json
import re
from types import ModuleType

import pytest

from tests.docs.snippets import ROOT, text_of
from tests.samples.tables import samples


@pytest.fixture(scope="module")
def make_security() -> ModuleType:
    """Return the script that makes the page."""
    path = ROOT / "docs" / "make_security.py"
    spec = importlib.util.spec_from_file_location("make_security", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_about_security_is_up_to_date(make_security: ModuleType) -> None:
    """docs/security.md is made: run docs/make_security.py."""
    assert text_of("docs/security.md") == make_security.page()


def test_the_page_has_every_attack_and_every_advisory(make_security: ModuleType) -> None:
    """One row each, with as many cells as its table has columns."""
    page = text_of("docs/security.md")
    rows = re.findall(r"^\| .* \|$", page, re.MULTILINE)
    for attack in {sample.attack for sample in samples() if sample.attack}:
        assert len([row for row in rows if row.startswith(f"| {attack} | `")]) == 1, attack
    published = json.loads((ROOT / "tests" / "advisories" / "published.json").read_text())
    for each in published:
        assert len([row for row in rows if row.startswith(f"| {each['id']} | ")]) == 1, each
    for table in re.findall(r"(?:^\|.*\|\n)+", page, re.MULTILINE):
        columns = {len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}
        assert len(columns) == 1, table


def test_each_behaviour_has_the_test_that_it_names(make_security: ModuleType) -> None:
    """A function of that name, in that file."""
    for _, _, path, name in make_security.OTHERS:
        tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
        functions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
        assert name in functions, f"{path}::{name}"


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"GET /", "GET /"),
        (b"\r\n\x00\xff\\'\"", "\\r\\n\\x00\\xff\\\\'\""),
        (b"a" * 100, "a…"),
        (b"1\r\na\r\n" * 100, "1\\r\\na\\r\\n…"),
        (bytes(range(0x21, 0x5B)) * 3, "…"),
    ],
)
def test_bytes_are_shown_so_that_they_can_be_read(
    make_security: ModuleType, data: bytes, text: str
) -> None:
    """In one line of ASCII, and shortened."""
    shown = make_security.readable(data)
    assert text in shown
    assert re.fullmatch(r"[\x20-\x7e…]+", shown)
    assert len(shown) <= make_security.SHOWN + 1


def test_the_policy_says_how_to_report_and_what_counts() -> None:
    """And its links lead somewhere."""
    policy = text_of("SECURITY.md")
    for heading in ("## Reporting a vulnerability", "## Supported versions", "## What counts"):
        assert heading in policy
    for target in re.findall(r"\]\(([^)]+)\)", policy):
        assert (ROOT / target).exists(), target
    assert "SECURITY.md" in text_of("README.md")
    assert "docs/security.md" in text_of("README.md")
