"""TLS handshakes, made in steps by one thread.

A handshake takes 1 to 2 ms of CPU. On the loop, 120 of them a second delay everybody else by 28 to
34 ms (p99). Here they delay each other, and one that does not go on costs nothing but its socket.
"""

from __future__ import annotations

import contextlib
import logging
import selectors
import socket
import ssl
import threading
from collections import deque
from typing import Final, Protocol

from bide.exchange.peer import Secured
from bide.forks import share, unshare
from bide.transports.contexts import Contexts
from bide.transports.poller import READ

log = logging.getLogger("bide")

NAME: Final = "bide-handshakes"


class Target(Protocol):
    """A connection whose handshake is to be made.

    Attributes:
        descriptor: its socket's.
        failure: to be set when it cannot go on.
    """

    descriptor: int
    failure: str

    def shake(self) -> int:
        """Go on; return READ or WRITE, for which it has to wait then, or 0 when it is over."""

    def let_go(self) -> None:
        """Called when it is over, or was dropped, and nothing here uses the descriptor any more."""


class Handshakes:
    """The connections whose handshakes are being made.

    Args:
        contexts: the certificates; each handshake takes those that are current when it begins.
    """

    def __init__(self, contexts: Contexts) -> None:
        self._contexts = contexts
        self._selector = selectors.DefaultSelector()
        self._woken, self._waker = socket.socketpair()
        self._woken.setblocking(False)
        self._waker.setblocking(False)
        self._selector.register(self._woken, selectors.EVENT_READ, None)
        self._given: deque[tuple[bool, Target]] = deque()  # to be added, or to be dropped
        self._closing = False
        self._targets: set[Target] = set()  # on the thread
        self._thread = threading.Thread(target=self._run, name=NAME, daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()
        share(self, Handshakes.after_fork)

    def add(self, target: Target) -> None:
        """Begin a handshake, which ends with :meth:`Target.let_go`; from any thread."""
        self._give(True, target)

    def drop(self, target: Target) -> None:
        """End a handshake, if it has not ended; from any thread."""
        self._give(False, target)

    def wrap(self, sock: socket.socket) -> ssl.SSLSocket:
        """Begin TLS on a socket, which is the result's from now on."""
        return self._contexts.current.wrap_socket(
            sock, server_side=True, do_handshake_on_connect=False, suppress_ragged_eofs=False
        )

    def close(self) -> None:
        """Drop all, and end the thread."""
        unshare(self)
        self._closing = True
        self._wake()
        self._thread.join()
        self._close()  # not by the thread, which may have ended before it is woken here

    def after_fork(self) -> None:
        """Close the child's descriptors, in a forked child; the parent goes on with its own."""
        self._close()

    def _close(self) -> None:
        self._selector.close()
        self._woken.close()
        self._waker.close()

    def _give(self, added: bool, target: Target) -> None:
        self._given.append((added, target))  # first: the thread reads what wakes it, then looks
        self._wake()

    def _wake(self) -> None:
        # It is full of what wakes it; or all has been dropped, and it is closed.
        with contextlib.suppress(OSError):
            self._waker.send(b"\0")

    # On the thread ------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._closing:
            for key, _ in self._selector.select():
                if key.data is None:
                    self._woken.recv(4096)
                else:
                    self._step(key.data, key.events)
            while self._given:
                added, target = self._given.popleft()
                if added:
                    self._selector.register(target.descriptor, selectors.EVENT_READ, target)
                    self._targets.add(target)
                elif target in self._targets:
                    self._let_go(target)
        for target in [*self._targets, *(each for added, each in self._given if added)]:
            self._let_go(target)

    def _step(self, target: Target, watched: int) -> None:
        try:
            wanted = target.shake()
        except Exception:  # of ours: this one ends, and the others go on
            log.exception("internal error in a TLS handshake: the connection is closed")
            target.failure = "an internal error"
            wanted = 0
        if not wanted:
            self._let_go(target)
            return
        events = selectors.EVENT_READ if wanted == READ else selectors.EVENT_WRITE
        if events != watched:
            self._selector.modify(target.descriptor, events, target)

    def _let_go(self, target: Target) -> None:
        # First, for the descriptor may be closed from now on, and be another connection's.
        with contextlib.suppress(KeyError):
            self._selector.unregister(target.descriptor)
        self._targets.discard(target)
        target.let_go()


def secured_by(tls: ssl.SSLSocket) -> Secured:
    """Return what TLS says of a connection whose handshake is over."""
    cipher, protocol, bits = tls.cipher() or ("", "", 0)
    certificate = tls.getpeercert(binary_form=True) or b""
    verified = getattr(tls, "get_verified_chain", None)  # Python 3.13
    return Secured(
        tls.version() or protocol,
        cipher,
        bits,
        name=getattr(tls, "asked", ""),
        alpn=tls.selected_alpn_protocol() or "",
        resumed=bool(tls.session_reused),
        certificate=certificate,
        described=dict(tls.getpeercert() or {}) if certificate else {},
        chain=tuple(verified()) if certificate and verified is not None else (),
    )


def reason_of(error: Exception) -> str:
    """Return why a handshake has failed, for people."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the client's certificate is refused: {error.verify_message}"
    if isinstance(error, ssl.SSLEOFError):
        return "the client has left in the middle"
    if isinstance(error, ssl.SSLError) and error.reason:
        return error.reason.replace("_", " ").lower()
    return error.strerror or str(error) if isinstance(error, OSError) else str(error)
