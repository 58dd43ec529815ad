"""What a viewer of ``bide top`` looks at, and the keys that change it. No terminal is here."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final


@dataclass(frozen=True, slots=True)
class View:
    """What the viewer looks at, and how.

    Attributes:
        sort: the heading of the column that the requests are sorted by.
        backwards: whether the usual order of that column is turned round.
        text: what a request must have in it to be shown; empty for all.
        typing: whether keys go to ``text``.
        paused: whether the picture stays as it is.
        helping: whether the keys are explained in place of the requests.
        over: whether the viewer wants to leave.
        offset: how many requests are above the first that is shown.
        now: when the instance came, in Unix seconds.
        trouble: why nothing new comes, in a line; empty while it does.
    """

    sort: str = "AGE"
    backwards: bool = False
    text: str = ""
    typing: bool = False
    paused: bool = False
    helping: bool = False
    over: bool = False
    offset: int = 0
    now: float = 0.0
    trouble: str = ""


@dataclass(frozen=True, slots=True)
class Key:
    """A key.

    Attributes:
        names: of the keys that do it, the first of them is shown.
        label: a word for the last line; empty if it has no room there.
        does: what it does, for the help.
        act: called with the view and the number of requests that a page has; returns the new view.
    """

    names: tuple[str, ...]
    label: str
    does: str
    act: Callable[[View, int], View]


def _sort(heading: str) -> Callable[[View, int], View]:
    def act(view: View, _: int) -> View:
        backwards = view.sort == heading and not view.backwards
        return replace(view, sort=heading, backwards=backwards, offset=0)

    return act


def _scroll(pages: float, rows: int) -> Callable[[View, int], View]:
    def act(view: View, page: int) -> View:
        return replace(view, offset=max(0, view.offset + int(pages * page) + rows))

    return act


END: Final = 10**9
"""An offset beyond all requests; the picture says what it has come to."""

KEYS: Final = (
    Key(("q",), "quit", "leave", lambda view, _: replace(view, over=True)),
    Key(
        ("?", "h"),
        "keys",
        "show this list, or the requests again",
        lambda view, _: replace(view, helping=not view.helping),
    ),
    Key(
        ("p", " "),
        "pause",
        "stop the picture, or let it go on",
        lambda view, _: replace(view, paused=not view.paused),
    ),
    Key(
        ("/",),
        "filter",
        "type a text: only requests that have it in them are shown",
        lambda view, _: replace(view, typing=True, helping=False),
    ),
    Key(
        ("escape",),
        "",
        "show all requests again",
        lambda view, _: replace(view, text="", helping=False, offset=0),
    ),
    Key(("a",), "age", "sort by age; once more: the other way round", _sort("AGE")),
    Key(("s",), "state", "sort by state, blocked ones first", _sort("STATE")),
    Key(("b",), "bytes", "sort by the bytes that were sent", _sort("BYTES")),
    Key(("w",), "waits for", "sort by what they wait for", _sort("WAITS FOR")),
    Key(("t",), "thread", "sort by thread", _sort("THREAD")),
    Key(("u",), "request", "sort by method and path", _sort("REQUEST")),
    Key(("c",), "client", "sort by client", _sort("CLIENT")),
    Key(("i",), "", "sort by id, which is what `bide stacks ID` takes", _sort("ID")),
    Key(("down", "j"), "", "go down a request", _scroll(0, 1)),
    Key(("up", "k"), "", "go up a request", _scroll(0, -1)),
    Key(("page down",), "", "go down a page", _scroll(1, 0)),
    Key(("page up",), "", "go up a page", _scroll(-1, 0)),
    Key(("home", "g"), "", "go to the first", lambda view, _: replace(view, offset=0)),
    Key(("end", "G"), "", "go to the last", lambda view, _: replace(view, offset=END)),
)

_ACTS: Final = {name: key.act for key in KEYS for name in key.names}


def pressed(view: View, name: str, page: int) -> View:
    """Return the view after a key.

    Args:
        view: the view before it.
        name: the key's name, as :func:`read_keys` returns it.
        page: how many requests a page has.
    """
    if view.typing:
        return _typed(view, name)
    act = _ACTS.get(name)
    return view if act is None else act(view, page)


def _typed(view: View, name: str) -> View:
    if name == "enter":
        return replace(view, typing=False)
    if name == "escape":
        return replace(view, typing=False, text="", offset=0)
    if name == "backspace":
        return replace(view, text=view.text[:-1], offset=0)
    if name == "ctrl-u":
        return replace(view, text="", offset=0)
    if len(name) == 1:
        return replace(view, text=view.text + name, offset=0)
    return view


# What a terminal sends ----------------------------------------------------------------------------

_NAMES: Final = {
    b"\x1b[A": "up",
    b"\x1bOA": "up",
    b"\x1b[B": "down",
    b"\x1bOB": "down",
    b"\x1b[5~": "page up",
    b"\x1b[6~": "page down",
    b"\x1b[H": "home",
    b"\x1bOH": "home",
    b"\x1b[1~": "home",
    b"\x1b[F": "end",
    b"\x1bOF": "end",
    b"\x1b[4~": "end",
    b"\r": "enter",
    b"\n": "enter",
    b"\x7f": "backspace",
    b"\x08": "backspace",
    b"\x15": "ctrl-u",
}
_SEQUENCE: Final = re.compile(rb"\x1b(?:\[[0-?]*[ -/]*[@-~]|O[@-~])")
_PART: Final = re.compile(rb"\x1b(?:\[[0-?]*[ -/]*|O)?\Z")
_LONGEST: Final = 32
"""Bytes of a sequence at most; what is longer is taken as keys."""


def read_keys(data: bytes, *, final: bool) -> tuple[list[str], bytes]:
    """Return the names of the keys in what a terminal has sent, and the rest.

    A printable character is its own name. Sequences without a name are left out.

    Args:
        data: the bytes.
        final: whether nothing follows at once: an Escape at the end is the key, then. Otherwise it
            is the rest, to be put before what comes next, as a part of a character is.
    """
    keys = []
    while data:
        sequence = _SEQUENCE.match(data)
        if sequence:
            keys.append(_NAMES.get(sequence[0], ""))
            data = data[sequence.end() :]
        elif data[:1] == b"\x1b":
            if not final and _PART.match(data) and len(data) < _LONGEST:
                break
            keys.append("escape")
            data = data[1:]
        elif data[:1] < b"\x20" or data[:1] == b"\x7f":
            keys.append(_NAMES.get(data[:1], ""))
            data = data[1:]
        else:
            length = 1 + (data[0] >= 0xC2) + (data[0] >= 0xE0) + (data[0] >= 0xF0)
            if not final and len(data) < length:
                break
            character = data[:length].decode("utf-8", "replace")[:1]
            keys.append(character if character.isprintable() and character != "\ufffd" else "")
            data = data[length:] if character != "\ufffd" else data[1:]
    return [each for each in keys if each], data
