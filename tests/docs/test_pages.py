"""What the pages say beside their snippets: messages, options, links, the README's beginning."""

import dataclasses
import re

import pytest

import bide
from bide.cli import command
from bide.environment import OTHERS, variable
from bide.seeing.commands import COMMANDS
from tests.docs.snippets import PAGES, ROOT, prose_of, text_of, texts_of_the_source
from tests.failures import Failures, same

# fmt: off
OTHER_PROGRAMS = {
    "--http2-prior-knowledge",
    "--no-binary", "--no-deps", "--access-logfile", "--config", "--daemon", "--forwarded-allow-ips",
    "--keep-alive", "--limit-request-field", "--limit-request-fields", "--max-requests", "--pid",
    "--preload", "--reload", "--timeout", "--worker-class", "--worker-connections", "--workers",
    "--async", "--buffer-size", "--enable-threads", "--gevent", "--greenlet", "--harakiri",
    "--http-socket", "--http-timeout", "--limit-post", "--listen", "--master", "--module",
    "--processes", "--reload-on-rss", "--socket", "--socket-timeout", "--static-map", "--stats",
    "--touch-reload", "--ugreen", "--host", "--limit-concurrency", "--port", "--proxy-headers",
    "--proxy-allow-from", "--root-path",
    "--timeout-graceful-shutdown", "--timeout-keep-alive", "--uds", "--interface",
    "--workers-kill-timeout", "--init", "--umask",
    "--die-on-term", "--chdir", "--check-config", "--print-config", "--pythonpath",
}
# fmt: on
"""Options that are named and are not Bide's: pip's, gunicorn's, uWSGI's, uvicorn's, granian's."""


def messages() -> list[str]:
    """Return the messages that ``docs/errors.md`` explains."""
    found = []
    for row in re.findall(r"^\| (.*) \|$", text_of("docs/errors.md"), re.MULTILINE):
        cells = row.split(" | ")
        cell = cells[1] if cells[0].isdigit() else cells[0]
        found += re.findall(r"`([^`]+)`", cell)
    return found


def test_a_message_that_is_explained_is_in_the_source() -> None:
    """Each of its parts, as it stands there; ``…`` is what differs."""
    source = texts_of_the_source()
    with Failures() as failures:
        for message in messages():
            with failures.of(message):
                parts = [part.strip(" :;,") for part in message.split("…")]
                assert any(len(part) > 5 for part in parts), "too little to look for"
                for part in parts:
                    assert len(part) < 3 or any(part in each for each in source), part


def targets() -> set[str]:
    """Return the Makefile's targets."""
    return set(re.findall(r"^([a-z0-9-]+):", text_of("Makefile"), re.MULTILINE))


def test_what_a_page_names_is_there() -> None:
    """The targets of ``make``, the options of ``bide`` and its variables."""
    commands = (command, *COMMANDS.values())
    options = {option for one in commands for each in one.params for option in each.opts}
    variables = {variable(each.name) for each in dataclasses.fields(bide.Settings)}
    variables |= set(OTHERS)
    with Failures() as failures:
        for page in PAGES:
            text = prose_of(page)
            with failures.of(page):
                assert set(re.findall(r"`make ([\w-]+)", text)) <= targets()
                named = set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]+", text))
                assert named <= options | OTHER_PROGRAMS
                assert set(re.findall(r"BIDE_[A-Z]+(?:_[A-Z]+)*", text)) <= variables


DEVELOPERS = ("CONTRIBUTING.md", "docs/architecture.md", "docs/concurrency.md", "docs/extending.md")


def test_the_pages_for_developers_name_what_is_there() -> None:
    """Files and packages; and each package has its row among the rooms."""
    source = ROOT / "src" / "bide"
    with Failures() as failures:
        for page in DEVELOPERS:
            for path in re.findall(r"`([\w/]+(?:/|\.py))`", text_of(page)):
                with failures.of(f"{page}: {path}"):
                    assert (ROOT / path).exists() or (source / path).exists()
        rooms = re.findall(r"^\| `(\w+)/` \|", text_of("docs/architecture.md"), re.MULTILINE)
        with failures.of("the rooms"):
            same(sorted(rooms), sorted(each.parent.name for each in source.glob("*/__init__.py")))


def test_links_lead_somewhere() -> None:
    """To a file that there is, and to a heading in it."""
    with Failures() as failures:
        for page in [*PAGES, "CHANGELOG.md"]:
            for target in re.findall(r"\]\(([^)]+)\)", prose_of(page)):
                if not target.startswith("https://"):
                    with failures.of(f"{page}: {target}"):
                        follow(page, target)


def follow(page: str, target: str) -> None:
    """Check that a page's link leads somewhere: to a file, a heading in it, or a line."""
    name, _, anchor = target.partition("#")
    path = (ROOT / page).parent / name if name else ROOT / page
    where = path.resolve().relative_to(ROOT).as_posix()
    assert path.exists(), target
    if anchor and not where.endswith(".md"):
        last = re.fullmatch(r"L(?:\d+-L)?(\d+)", anchor)
        assert last, target
        assert int(last[1]) <= len(text_of(where).splitlines()), target
    elif anchor:
        headings = re.findall(r"^#+ (.*)$", prose_of(where), re.MULTILINE)
        slugs = {re.sub(r"[^\w -]", "", each).lower().replace(" ", "-") for each in headings}
        assert anchor in slugs, target


def test_contents_at_the_top_of_a_page_name_all_of_it() -> None:
    """Each heading of the second level, in order."""
    with Failures() as failures:
        for page in PAGES:
            top, *sections = re.split(r"^## ", prose_of(page), flags=re.MULTILINE)
            contents = re.findall(r"^- \[(.*)\]\(#.*\)$", top, re.MULTILINE)
            with failures.of(page):
                headings = [each.partition("\n")[0] for each in sections]
                assert not contents or contents == headings


def test_the_first_screen_of_the_readme_reaches_a_running_server() -> None:
    """A figure, an installation, an application, a command and its answer, and a hundred."""
    shown = text_of("README.md").partition("\n## ")[0]
    assert len(shown.splitlines()) < 60
    for wanted in (
        "`make bench`",
        'pip install "$checkout"',
        "# app.py",
        "$ bide app:app",
        "$ curl http://127.0.0.1:8000/ ",
        "    100 Hello",
    ):
        assert wanted in shown
    assert shown.count("```") == 8, "a block is not complete"


@pytest.mark.parametrize("page", ["README.md", "docs/comparison.md"])
def test_a_figure_that_is_claimed_was_measured(page: str) -> None:
    """It stands in the results of a run: of ``make bench``, or of ``make comparison``."""
    measured = text_of("benchmarks/results/latest.md")
    measured += (
        text_of("docs/comparison.md").partition("<!-- comparison -->")[2].partition("<!--")[0]
    )
    unit = r"(?= (?:µs|ms|s|KB|requests a second|threads)\b)"
    claimed = re.findall(rf"(?<![\w.,])(\d[\d,]*(?:\.\d+)?){unit}", prose_of(page))
    assert claimed
    with Failures() as failures:
        for figure in claimed:
            with failures.of(figure):
                assert re.search(rf"(?<![\d.,]){figure}(?![\d.])", measured)


def test_a_decision_has_its_date() -> None:
    """And its place among the others."""
    with Failures() as failures:
        for page in PAGES:
            if page.startswith("docs/decisions/"):
                number = int(page.removeprefix("docs/decisions/")[:4])
                with failures.of(page):
                    head = rf"# {number}\. .+\n\n2026-\d\d-\d\d, accepted\n"
                    assert re.match(head, text_of(page))
