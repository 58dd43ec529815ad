r"""The samples of HTTP/1: whole requests as raw bytes, and what is expected of each.

They stand in tables, one TOML file for each subject in ``tests/samples/http1``. A sample is
``[accept.NAME]``, which must be understood, or ``[reject.NAME]``, which must be refused::

    [reject.chunk-size-plus]
    note = "RFC 9112 section 7.1: 1*HEXDIG"          # why, in a few words
    attack = "A chunk's size that is not a number"   # if it is one, or might be
    source = ["RFC 9112 section 7.1"]                # an RFC's section or an advisory
    shown = true                                     # the one that docs/security.md shows
    status = 400                                     # the answer
    good = 0                                         # requests before it that are served
    where = "head"                                   # or "body": what is found wrong
    bytes = '''
    POST / HTTP/1.1\r\n
    Host: example.com\r\n
    Transfer-Encoding: chunked\r\n
    \r\n
    +5\r\nhello\r\n
    '''

A good one has ``requests`` in place of ``status``, ``good`` and ``where``: each has its ``line``
and ``headers``, and what is not ``body = ''`` and ``persistent = true``. ``path`` and ``query`` are
stated if they are not the target's, divided at its first question mark. An attack that is
understood and shown has the ``answer`` in words.

Bytes are written as ASCII with Python's escapes: see :func:`unescape`.
"""

from __future__ import annotations

import functools
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

TABLES: Final = Path(__file__).parent / "http1"

ESCAPE: Final = re.compile(
    r"\\(?:(?P<sign>[\\rnt])"
    r"|x(?P<code>[0-9a-f]{2})"
    r"|\((?P<times>\d+) \* (?P<run>(?:[^\\()]|\\[^(])+)\))"
)
SIGNS: Final = {"\\": b"\\", "r": b"\r", "n": b"\n", "t": b"\t"}
DECLARED: Final = {
    "accept": {"note", "attack", "source", "shown", "answer", "bytes", "requests"},
    "reject": {"note", "attack", "source", "shown", "bytes", "status", "good", "where"},
    "request": {"line", "headers", "body", "path", "query", "persistent"},
}


@dataclass(frozen=True)
class Expected:
    """A request that must be understood."""

    method: str
    target: bytes
    path: bytes
    query: bytes
    version: str
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes
    persistent: bool


@dataclass(frozen=True)
class Sample:
    """Bytes that a client sends, and what is expected.

    Attributes:
        kind: "accept" or "reject".
        name: unique in its kind.
        data: the bytes.
        note: why it is expected.
        attack: what the bytes try, in words; empty if they try nothing.
        source: where it is told of: sections of RFCs, advisories.
        shown: whether docs/security.md shows it.
        answer: what the page says of an attack that is understood.
        requests: what must be understood.
        status: of the refusal; 0 for what is understood.
        good: how many requests before the bad one are served.
        where: "head" or "body", whichever is found to be wrong.
    """

    kind: str
    name: str
    data: bytes
    note: str
    attack: str = ""
    source: tuple[str, ...] = ()
    shown: bool = False
    answer: str = ""
    requests: tuple[Expected, ...] = ()
    status: int = 0
    good: int = 0
    where: str = ""

    def __str__(self) -> str:
        return f"{self.kind}.{self.name}"


def unescape(text: str) -> bytes:
    r"""Read bytes that are written as ASCII.

    The escapes are ``\r``, ``\n``, ``\t``, ``\\``, ``\xff`` (any byte), and ``\(1000 * text)`` for
    a run: the text so many times. Line ends of the text itself are layout, and no bytes.

    Raises:
        ValueError: an unknown escape, a control character, a letter that is not ASCII, or a blank
            at the end of a line, which editors take away: write ``\x20``.
    """
    if not re.fullmatch(r"[\x20-\x7e\n]*", text):
        raise ValueError(f"write all but printable ASCII as escapes: {text!r}")
    if re.search(r" (?:\n|$)", text):
        raise ValueError(f"write a blank at the end of a line as \\x20: {text!r}")
    return _bytes(text.replace("\n", ""))


def _bytes(text: str) -> bytes:
    found = bytearray()
    at = 0
    while at < len(text):
        if text[at] != "\\":
            found.append(ord(text[at]))
            at += 1
            continue
        escape = ESCAPE.match(text, at)
        if escape is None:
            raise ValueError(f"unknown escape: {text[at : at + 8]!r}")
        if escape["sign"]:
            found += SIGNS[escape["sign"]]
        elif escape["code"]:
            found.append(int(escape["code"], 16))
        else:
            found += _bytes(escape["run"]) * int(escape["times"])
        at = escape.end()
    return bytes(found)


@functools.cache
def samples() -> tuple[Sample, ...]:
    """Return all samples, in the order of their kinds and names.

    Raises:
        ValueError: two of one name, an unknown key, or what :func:`unescape` refuses.
    """
    found: dict[tuple[str, str], Sample] = {}
    for path in sorted(TABLES.glob("*.toml")):
        with path.open("rb") as file:
            table = tomllib.load(file)
        for kind, rows in table.items():
            for name, row in rows.items():
                if (kind, name) in found:
                    raise ValueError(f"{path.name}: there are two {kind}.{name}")
                try:
                    found[kind, name] = _sample(kind, name, row)
                except (KeyError, ValueError) as error:
                    error.add_note(f"{path.name}: {kind}.{name}")
                    raise
    return tuple(found[key] for key in sorted(found))


def accepted() -> tuple[Sample, ...]:
    """Return the samples that must be understood."""
    return tuple(sample for sample in samples() if sample.kind == "accept")


def rejected() -> tuple[Sample, ...]:
    """Return the samples that must be refused."""
    return tuple(sample for sample in samples() if sample.kind == "reject")


def _sample(kind: str, name: str, row: dict[str, Any]) -> Sample:
    _known(DECLARED[kind], row)
    known = Sample(
        kind,
        name,
        unescape(row["bytes"]),
        row["note"],
        row.get("attack", ""),
        tuple(row.get("source", ())),
        row.get("shown", False),
        row.get("answer", ""),
        tuple(_request(each) for each in row.get("requests", ())),
        row.get("status", 0),
        row.get("good", 0),
        row.get("where", "head") if kind == "reject" else "",
    )
    if (kind == "accept") != bool(known.requests) or (kind == "reject") != bool(known.status):
        raise ValueError("what is accepted has requests, what is rejected has a status")
    if known.where not in ("", "head", "body"):
        raise ValueError(f"where is head or body, not {known.where}")
    return known


def _request(row: dict[str, Any]) -> Expected:
    _known(DECLARED["request"], row)
    method, target, version = unescape(row["line"]).split(b" ")
    path, _, query = target.partition(b"?")
    headers = []
    for each in row["headers"]:
        name, colon, value = unescape(each).partition(b": ")
        if not colon:
            raise ValueError(f"a header is written as 'Name: value', not {each!r}")
        headers.append((name, value))
    return Expected(
        method.decode("ascii"),
        target,
        unescape(row["path"]) if "path" in row else path,
        unescape(row["query"]) if "query" in row else query,
        version.removeprefix(b"HTTP/").decode("ascii"),
        tuple(headers),
        unescape(row.get("body", "")),
        row.get("persistent", True),
    )


def _known(declared: set[str], row: dict[str, Any]) -> None:
    unknown = set(row) - declared
    if unknown:
        raise ValueError(f"unknown: {', '.join(sorted(unknown))}")
