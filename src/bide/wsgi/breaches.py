"""The error messages for an application that breaks PEP 3333: what it did, and the remedy.

Only messages are made here; the conversation refuses.
"""

from __future__ import annotations

import logging
from typing import Any, Final

from bide.errors import LocalProtocolError
from bide.exchange.messages import Head, short

log = logging.getLogger("bide")

_BUFFERS: Final = (bytes, bytearray, memoryview)
_noted: Final[set[str]] = set()  # applications whose Connection header was logged; any thread


class BreachError(LocalProtocolError):
    """The application returned no response. Logged without a traceback: that shows Bide's."""


def nothing_returned(name: str) -> BreachError:
    """Make the error for an application that returned None without having taken ``finish``."""
    return BreachError(
        f"{name} returned None: return an iterable of bytes, "
        "or take finish (`write, finish = start_response(...)`)"
    )


def not_started(name: str, result: Any) -> BreachError:
    """Make the error for an application that returned before it called ``start_response``."""
    return BreachError(
        f"{name} returned {short.repr(result)}, and start_response has not been called: "
        "call start_response(status, headers) before the first block, also for HEAD"
    )


def check_iterable(name: str, result: Any) -> None:
    """Raise BreachError for a result whose type says that it is not an iterable of bytes."""
    kind = type(result)
    if issubclass(kind, str):
        remedy = "encode it, and return it in a list: [text.encode()]"
    elif issubclass(kind, _BUFFERS):
        remedy = "return it in a list: [data]"
    elif not (
        hasattr(kind, "__iter__") or hasattr(kind, "__aiter__") or hasattr(kind, "__getitem__")
    ):
        remedy = "return an iterable of bytes"
    else:
        return
    raise BreachError(f"{name} returned {short.repr(result)} ({kind.__name__}): {remedy}")


def wrong_block(name: str, block: Any) -> TypeError:
    """Make the error for a block that is neither bytes nor a promise."""
    return TypeError(
        f"{name} yielded {short.repr(block)} ({type(block).__name__}): "
        "yield bytes, or a promise of them"
    )


def wrong_value(name: str, value: Any) -> TypeError:
    """Make the error for a promise in the iterable whose result is not bytes."""
    return TypeError(
        f"a promise that {name} yielded gave {short.repr(value)} ({type(value).__name__}), "
        "not bytes"
    )


def note_connection(name: str, head: Head) -> None:
    """Log, once for each application, that its ``Connection`` header is not sent."""
    if name not in _noted:
        _noted.add(name)
        log.warning(
            "%s gave the header 'Connection: %s', which is the server's (PEP 3333, Other HTTP "
            "Features): it is dropped%s; this is logged once",
            name,
            head.connection,
            ", and the connection closed" if head.closes else "",
        )
