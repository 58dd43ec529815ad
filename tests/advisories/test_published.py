"""The list of published advisories: each is tested, or cannot concern Bide for a reason."""

from __future__ import annotations

import importlib
import json
import re
from pathlib import Path
from typing import Any

from tests.advisories.test_replays import REPLAYS
from tests.failures import Failures

HERE = Path(__file__).parent
PUBLISHED: list[dict[str, Any]] = json.loads((HERE / "published.json").read_text())
TESTED = [each for each in PUBLISHED if "tests" in each]


def test_each_is_listed_once_with_what_it_is() -> None:
    """As the page about security shows it."""
    names = [each["id"] for each in PUBLISHED]
    assert len(set(names)) == len(names) >= 55
    for each in PUBLISHED:
        assert re.fullmatch(r"CVE-\d{4}-\d{4,}|GHSA(-[0-9a-z]{4}){3}", each["id"])
        assert set(each) - {"id", "of", "attack"} in ({"answer", "tests"}, {"absent"}), each["id"]


def test_its_tests_are_there_and_name_it() -> None:
    """Rows of the replays, or functions whose docstrings or rows do."""
    with Failures() as failures:
        for advisory in TESTED:
            with failures.of(advisory["id"]):
                assert advisory["tests"]
                named = advisory["id"] in REPLAYS
                for each in advisory["tests"]:
                    module, _, function = each.partition("::")
                    place = importlib.import_module(f"tests.advisories.{Path(module).stem}")
                    assert callable(getattr(place, function))
                    named = named or advisory["id"] in (HERE / module).read_text()
                assert named


def test_no_test_is_for_an_advisory_that_is_not_listed() -> None:
    """Whatever name stands in the tests."""
    listed = {each["id"] for each in TESTED}
    for path in HERE.glob("test_*.py"):
        assert set(re.findall(r"CVE-\d{4}-\d{4,}", path.read_text())) <= listed, path
