"""The site has all pages and all public names, and its links lead where the repository's do.

`make docs` builds it, and refuses what leads nowhere. These tests do not need what builds it.
"""

import builtins
import importlib.util
import inspect
import re
from collections.abc import Iterator
from types import ModuleType

import pytest

import bide
import bide.testing
from tests.docs.snippets import PAGES, ROOT, text_of
from tests.failures import Failures, same


@pytest.fixture(scope="module")
def links() -> ModuleType:
    """Return the module that turns the repository's links into the site's."""
    spec = importlib.util.spec_from_file_location("links", ROOT / "docs" / "site" / "links.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_public_name_is_on_the_page_of_public_names() -> None:
    """Once each, and no other; the site puts the docstrings there."""
    public = [f"bide.{each}" for each in bide.__all__]
    public += [f"bide.testing.{each}" for each in bide.testing.__all__]
    same(
        sorted(re.findall(r"^::: (\S+)$", text_of("docs/reference.md"), re.MULTILINE)),
        sorted(public),
    )


def test_every_public_name_has_a_docstring() -> None:
    """The page would have a heading and nothing under it."""
    with Failures() as failures:
        for module in (bide, bide.testing):
            for name in module.__all__:
                with failures.of(f"{module.__name__}.{name}"):
                    assert name == "__version__" or getattr(module, name).__doc__


def docstrings_of(name: str, kind: object) -> Iterator[tuple[str, str]]:
    """Return the docstrings that ``help`` prints for a public name, each with whose it is."""
    yield name, inspect.getdoc(kind) or ""
    if isinstance(kind, type):
        for member, value in vars(kind).items():
            if not member.startswith("_"):
                yield f"{name}.{member}", inspect.getdoc(value) or ""


def errors_named(docstring: str) -> set[str]:
    """Return the names of the errors that a docstring lists below ``Raises:``."""
    listed = docstring.partition("\nRaises:\n")[2].partition("\n\n")[0]
    names = re.findall(r"^    ([A-Z]\w+(?:, [A-Z]\w+)*):", listed, re.MULTILINE)
    return {each for line in names for each in line.split(", ")}


def test_an_error_that_a_docstring_names_can_be_imported() -> None:
    """From where the docstring's reader looks: `bide`, `bide.testing`, or Python's own."""
    known = {*bide.__all__, *bide.testing.__all__, *vars(builtins)}
    named = set()
    with Failures() as failures:
        for module in (bide, bide.testing):
            for name in module.__all__:
                for place, docstring in docstrings_of(name, getattr(module, name)):
                    named |= errors_named(docstring)
                    with failures.of(f"{module.__name__}.{place}"):
                        assert errors_named(docstring) <= known
    assert {"LoadError", "SettingError", "BindError", "ThreadEnded", "Overdue"} <= named


def test_every_page_has_its_place_in_the_navigation() -> None:
    """The decisions come by themselves; examples are reached from their page."""
    navigation = text_of("docs/site/mkdocs.yml").partition("\nnav:\n")[2]
    named = re.findall(r": (\S+\.md)$", navigation, re.MULTILINE)
    same([each for each in named if named.count(each) > 1], [])
    pages = {page.removeprefix("docs/") for page in PAGES} | {"settings.md"}
    missing = {page for page in pages if not page.startswith("decisions/")} - set(named)
    same(missing, set())


@pytest.mark.parametrize(
    ("page", "link", "on_the_site"),
    [
        ("docs/tls.md", "guide.md#waiting", "guide.md#waiting"),
        ("docs/tls.md", "#behind-a-proxy", "#behind-a-proxy"),
        ("docs/tls.md", "https://peps.python.org/", "https://peps.python.org/"),
        ("docs/tls.md", "../README.md", "README.md"),
        ("docs/tls.md", "../CHANGELOG.md#unreleased", "CHANGELOG.md#unreleased"),
        ("docs/tls.md", "../examples", "examples/README.md"),
        ("docs/tls.md", "decisions/", "decisions/index.md"),
        ("docs/tls.md", "../LICENSE", "LICENSE.md"),
        ("docs/tls.md", "../src/bide/cli.py#L10", "src/bide/cli.py.md#L10"),
        ("docs/tls.md", "../src/bide/cli.py#L10-L20", "src/bide/cli.py.md#L10"),
        ("docs/decisions/0001-dependencies.md", "../guide.md", "../guide.md"),
        ("docs/decisions/0001-dependencies.md", "../../Makefile#L3", "../Makefile.md#L3"),
        ("README.md", "docs/guide.md#push", "guide.md#push"),
        ("README.md", "docs/images/demo.png", "images/demo.png"),
        ("README.md", "docs/make_settings.py", "make_settings.py.md"),
        ("examples/README.md", "../docs/guide.md", "../guide.md"),
    ],
)
def test_a_link_leads_to_the_same_file_on_the_site(
    links: ModuleType, page: str, link: str, on_the_site: str
) -> None:
    """All files outside docs/ have a page there."""
    text = f"See [this]({link}), and ![that]({link}).\n\n```python\na[0](../x)\n```\n"
    assert links.for_the_site(page, text) == text.replace(link, on_the_site)


def test_a_link_to_no_file_is_refused(links: ModuleType) -> None:
    """With the page's name; as is one that leaves the repository."""
    for target in ("no-such.md", "../../elsewhere.md"):
        with pytest.raises(links.NoSuchFileError, match=f"docs/tls.md links to {target}"):
            links.for_the_site("docs/tls.md", f"[this]({target})")


def test_what_pages_lead_to_is_found_in_any_number_of_steps(links: ModuleType) -> None:
    """The README names the examples' page, which names an example's."""
    found = links.reached_from(["README.md"])
    assert {"docs/guide.md", "examples/README.md", "examples/llm_chat/README.md"} <= set(found)
    assert len(found) == len(set(found))


def test_a_fence_keeps_its_language_alone(links: ModuleType) -> None:
    """Behind it may stand a word for the tests."""
    text = "```text top\na  b\n```\n\n```\nplain\n```\n"
    assert links.for_the_site("README.md", text) == text.replace("text top", "text")


def test_a_file_is_shown_with_an_anchor_for_each_line(links: ModuleType) -> None:
    """The repository's view has the same ones."""
    page = links.shown("a/b.py", 'if a < "b":\n\n    c()\n')
    assert page.startswith("# `a/b.py`\n")
    assert re.findall(r'<span id="(L\d)">(.*)</span>', page) == [
        ("L1", "if a &lt; &quot;b&quot;:"),
        ("L2", " "),
        ("L3", "    c()"),
    ]


def test_the_decisions_are_listed_by_their_headings(links: ModuleType) -> None:
    """All of them, in order."""
    page = links.listing("docs/decisions")
    assert page.startswith("# Decisions\n\n- [1. ")
    files = sorted(path.name for path in (ROOT / "docs" / "decisions").glob("*.md"))
    assert re.findall(r"^- \[\d+\. .+\]\((\S+)\)$", page, re.MULTILINE) == files


def test_a_list_has_an_empty_line_before_it() -> None:
    """Else the site takes it for a part of the paragraph, where the repository's view does not."""
    item = re.compile(r" *(?:[-*+]|\d+\.) ")
    with Failures() as failures:
        for page in [*PAGES, "CHANGELOG.md", "SECURITY.md"]:
            text = re.sub(r"^ *```.*\n(?:.*\n)*? *```$", "", text_of(page), flags=re.MULTILINE)
            for block in re.split(r"\n\s*\n", text):
                first, *others = block.strip("\n").splitlines() or [""]
                if not item.match(first) and not first.startswith("#"):
                    for line in others:
                        with failures.of(f"{page}: {line}"):
                            assert not item.match(line)
