"""The TLS of one server: its certificates, its handshakes, and when the files are looked at."""

from __future__ import annotations

import logging
import ssl
from concurrent.futures import Future
from typing import Any, Final

from bide.transports.contexts import Contexts
from bide.transports.handshakes import Handshakes
from bide.waiting.api import in_thread

log = logging.getLogger("bide")

EVERY: Final = 5.0
"""Seconds between two looks at the files. New ones are read at the second look that finds them."""


class Securing:
    """What a server needs for TLS; on the loop, but for :meth:`renew`.

    Args:
        contexts: the certificates; None: the server speaks in clear.

    Attributes:
        contexts: as given.
        scheme: of URLs: "https", or "http".
    """

    def __init__(self, contexts: Contexts | None) -> None:
        self.contexts = contexts
        self.scheme = "http" if contexts is None else "https"
        self._handshakes: Handshakes | None = None
        self._left = EVERY
        self._look: Future[Any] | None = None

    def start(self) -> Handshakes | None:
        """Start the thread of the handshakes; return what makes them, None in clear."""
        if self.contexts is not None:
            log.info("TLS by %s: %s", ssl.OPENSSL_VERSION, "; ".join(self.contexts.describe()))
            self.contexts.warn()
            self._handshakes = Handshakes(self.contexts)
            self._handshakes.start()
        return self._handshakes

    def close(self) -> None:
        """End the thread."""
        if self._handshakes is not None:
            self._handshakes.close()
            self._handshakes = None

    def renew(self) -> bool:
        """Read the files again, as :meth:`Contexts.renew`; from any thread."""
        return self.contexts is None or self.contexts.renew()

    def mind_time(self, elapsed: float) -> None:
        """Look at the files from time to time, on another thread: a disk may be slow."""
        self._left -= elapsed
        if self.contexts is None or self._left > 0:
            return
        if self._look is None or self._look.done():
            self._left = EVERY
            try:
                self._look = in_thread(self.contexts.look)
            except RuntimeError:  # the system has no thread left: the next time
                return
