"""Where the files of the repository stand on the site, and what links to them become.

Pages link as the repository's view wants it: to files beside them, in docs/ or anywhere else. The
site has all files that are reached in this way. A page of docs/ stands at the top of the site;
any other file keeps its path: a Markdown file as a page, another text as a page that shows it with
its lines numbered. So the pages are read without a network and without the repository.

This module does not import MkDocs, so that its tests run without it.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from html import escape
from pathlib import Path
from urllib.parse import unquote

ROOT = Path(__file__).resolve().parent.parent.parent
FENCE = re.compile(r"^(?P<fence> *(?:```+|~~~+))(?P<words>.*)\n(?P<text>(?:.*\n)*?) *```+$", re.M)
LINK = re.compile(r"(?<=\]\()(?P<target>[^)\s#]*)(?P<anchor>#[^)\s]*)?(?=\))")
IMAGES = (".png", ".svg")
ELSEWHERE = re.compile(r"[a-z][a-z+.-]*:|//")


class NoSuchFileError(Exception):
    """A page links to a file that is not there."""


def place_of(path: str) -> str:
    """Return the place on the site of a file of the repository, as a path from the site's top."""
    if (ROOT / path).is_dir():
        path = f"{path}/index.md"
    elif not path.endswith((".md", *IMAGES)):
        path = f"{path}.md"
    return path.removeprefix("docs/")


def target_of(page: str, target: str) -> str | None:
    """Return the path, from the repository's root, of what a page links to.

    None stands for what is neither a file nor a directory of the repository. A directory with a
    README is its README, as in the repository's view.

    Raises NoSuchFileError if there is no such file.
    """
    if not target or ELSEWHERE.match(target):
        return None
    path = posixpath.normpath(posixpath.join(posixpath.dirname(page), unquote(target)))
    if path.startswith("../") or not (ROOT / path).exists():
        raise NoSuchFileError(f"{page} links to {target}: there is no such file")
    readme = f"{path}/README.md"
    return readme if (ROOT / readme).exists() else path


def targets_of(page: str, text: str) -> Iterator[str]:
    """Find the files of the repository that a page links to, as paths from its root."""
    for link in LINK.finditer(FENCE.sub("", text)):
        path = target_of(page, link["target"])
        if path is not None:
            yield path


def reached_from(pages: list[str]) -> list[str]:
    """Return the pages, and all that they lead to in any number of steps."""
    found = dict.fromkeys(pages)
    left = list(pages)
    while left:
        page = left.pop()
        if page.endswith(".md"):
            for path in targets_of(page, (ROOT / page).read_text(encoding="utf-8")):
                if path not in found:
                    found[path] = None
                    left.append(path)
    return list(found)


def for_the_site(page: str, text: str) -> str:
    """Return a page's Markdown with its links, and the words behind its fences, as the site's."""
    here = posixpath.dirname(place_of(page))

    def link(found: re.Match[str]) -> str:
        path = target_of(page, found["target"])
        anchor = found["anchor"] or ""
        if path is None:
            return found[0]
        if not path.endswith(".md"):
            anchor = re.sub(r"-L\d+$", "", anchor)  # of a range of lines, the first
        return posixpath.relpath(place_of(path), here or ".") + anchor

    def fence(found: re.Match[str]) -> str:
        language = found["words"].split()[:1]
        return found[0].replace(found["words"], "".join(language), 1)

    parts = []
    end = 0
    for block in FENCE.finditer(text):
        parts += [LINK.sub(link, text[end : block.start()]), fence(block)]
        end = block.end()
    return "".join([*parts, LINK.sub(link, text[end:])])


def shown(path: str, text: str) -> str:
    """Return a page that shows a text file, each line with the anchor of the repository's view."""
    lines = "".join(
        f'<span id="L{number}">{escape(line) or " "}</span>\n'
        for number, line in enumerate(text.splitlines(), 1)
    )
    return f'# `{path}`\n\n<div class="repository-file"><pre><code>{lines}</code></pre></div>\n'


def listing(path: str) -> str:
    """Return a page that lists the pages of a directory by their headings."""
    lines = [f"# {Path(path).name.capitalize()}", ""]
    for each in sorted((ROOT / path).glob("*.md")):
        heading = each.read_text(encoding="utf-8").partition("\n")[0].removeprefix("# ")
        # "2." would begin a list of its own, and "1." count anew.
        lines.append(f"- [{heading}]({each.name})")
    return "\n".join([*lines, ""])
