"""What MkDocs calls while it builds the site: for the repository's files, decisions and checks."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

from links import (
    IMAGES,
    ROOT,
    NoSuchFileError,
    for_the_site,
    listing,
    place_of,
    reached_from,
    shown,
)
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page

BESIDE_DOCS = ["README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md"]
"""Pages of the site whether or not one of docs/ links to them."""


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put the decisions, each by its heading, in the place that the navigation has for them."""
    decisions: list[dict[str, str] | str] = ["decisions/index.md"]
    for path in sorted((ROOT / "docs" / "decisions").glob("*.md")):
        heading = path.read_text(encoding="utf-8").partition("\n")[0]
        # The navigation shows text, not Markdown.
        title = heading.removeprefix("# ").replace("`", "")
        decisions.append({title: f"decisions/{path.name}"})
    for section in config.nav or []:
        for pages in section.values():
            for each in pages:
                if isinstance(each, dict) and "Decisions" in each:
                    each["Decisions"] = decisions
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the files of the repository that the pages lead to."""
    pages = [f"docs/{each.src_uri}" for each in files.documentation_pages()]
    try:
        reached = reached_from([*pages, *BESIDE_DOCS])
    except NoSuchFileError as error:
        raise PluginError(str(error)) from None
    for path in reached:
        place, file = place_of(path), ROOT / path
        if place in files.src_uris:
            continue
        made: dict[str, str] = {}
        if file.is_dir():
            made["content"] = listing(path)
        elif path.endswith((".md", *IMAGES)):
            made["abs_src_path"] = str(file)
        else:
            made["content"] = shown(path, file.read_text(encoding="utf-8"))
        # Those that are not in the navigation are reached by links.
        inclusion = InclusionLevel.NOT_IN_NAV
        files.append(File.generated(config, place, inclusion=inclusion, **made))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn the links of a page into the site's."""
    source = page.file.abs_src_path
    if source is None:
        return markdown  # made by on_files; it has no links
    return for_the_site(Path(source).relative_to(ROOT).as_posix(), markdown)


class _Loads(HTMLParser):
    """Finds what a browser loads for a page from another place than the site."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "a":
            return
        for name, value in attrs:
            if name in ("src", "href", "srcset") and re.match(r"(https?:)?//", value or ""):
                self.found.append(f"<{tag} {name}={value}>")


def on_post_build(config: MkDocsConfig) -> None:
    """Refuse a site that needs the network to be read."""
    for path in Path(config.site_dir).rglob("*.html"):
        loads = _Loads()
        loads.feed(path.read_text(encoding="utf-8"))
        if loads.found:
            raise PluginError(f"{path.name} loads from elsewhere: {', '.join(loads.found)}")
