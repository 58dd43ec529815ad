"""What a client is asked for and what it gives back, in the same few words for all of them."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Protocol


class BrokenError(Exception):
    """The client told its user that the exchange failed, in whatever way is its own."""


@dataclass
class Ask:
    """A request, as its user would put it to the client.

    Attributes:
        body: sent with its Content-Length.
        pieces: a body that is made while it is sent, in chunks; each piece is asked for in turn.
        follow: whether redirects are followed.
        version: of HTTP.
    """

    path: str = "/"
    method: str = "GET"
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None
    pieces: Iterable[bytes] | None = None
    follow: bool = False
    version: str = "1.1"


@dataclass
class Answer:
    """A response, as the client gave it to its user; header names in lower case.

    Attributes:
        interim: the statuses before it, of clients that tell them.
    """

    status: int
    headers: dict[str, str]
    body: bytes
    interim: list[int] = field(default_factory=list)


class Visitor(Protocol):
    """One client. Everything raises BrokenError where the client says that something failed."""

    def ask(self, *asks: Ask) -> list[Answer]:
        """Make requests one after another, on one connection as far as client and server let."""

    def stream(self, path: str) -> AbstractContextManager[Iterator[bytes]]:
        """Get a path, and give the body piece by piece; leaving the block abandons the rest."""

    def close(self) -> None:
        """End what is open."""


def lowered(headers: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return headers by name."""
    return {name.lower(): value for name, value in headers}
