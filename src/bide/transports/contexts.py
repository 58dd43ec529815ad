"""The TLS contexts of a server: made of the settings, and made anew when their files change.

Sessions are resumed by tickets, whose keys are a context's. So that they are resumed in whatever
process a client comes to, contexts are made before the processes are forked.
"""

from __future__ import annotations

import logging
import os
import ssl
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

from bide.errors import SettingError
from bide.protocols.http2.served import load, serves
from bide.settings import Settings
from bide.transports.certificates import Pair, chain_of
from bide.waiting.locks import holds_lock

log = logging.getLogger("bide")

PROTOCOLS: Final = ("h2", "http/1.1")
"""What is offered by ALPN, the first one where it is served. A client that knows none of them gets
HTTP/1.1 all the same."""
CIPHERS: Final = "@SECLEVEL=2:ECDHE+AESGCM:ECDHE+CHACHA20"
"""Of TLS 1.2: those of OpenSSL that keep no key and authenticate as they encrypt. Python's default
has the older CBC ones, too, which scanners name. Those of TLS 1.3 are all such."""
OPTIONS: Final = (
    ssl.OP_NO_RENEGOTIATION
    | ssl.OP_NO_COMPRESSION
    | getattr(ssl, "OP_IGNORE_UNEXPECTED_EOF", 0)  # OpenSSL 1.1.1 has no name for it
)
"""The last: a client's bare end is an end. Else OpenSSL breaks the connection by an alert, and who
has half-closed gets no answer. Debian's Python sets it by itself, as released Python does not."""
_VERSIONS: Final = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}

Stamp = tuple[tuple[str, int, int, int], ...]  # of each file: path, inode, size, time of change


class Contexts:
    """A server's certificates, and the context that new connections take.

    Making it raises SettingError if a file cannot be used. Connections keep the context that they
    began with.

    Args:
        settings: name the files.

    Attributes:
        current: for new connections.
        pairs: the certificates in use, the one for unknown names first.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = threading.Lock()  # of who makes new ones
        self._tried = self._stamp()  # what the files were when they were read last
        self._seen = self._tried  # and at the last look
        self.pairs, self.current = _make(settings)

    @staticmethod
    def of(settings: Settings) -> Contexts | None:
        """Return those that the settings ask for; None without a certificate."""
        return Contexts(settings) if settings.certificate else None

    def describe(self) -> list[str]:
        """Return what each certificate is, for people: its names, and its last day."""
        return [each.describe() for each in self.pairs]

    def warn(self) -> None:
        """Log what will not work, though it can be loaded."""
        now = datetime.now(UTC)
        for each in self.pairs:
            if each.expired(now):
                log.warning(
                    "the certificate %s has expired on %s: clients will refuse it",
                    each.certificate,
                    f"{each.ends:%Y-%m-%d}",
                )

    def renew(self) -> bool:
        """Read the files again, for new connections; return whether all went well.

        If a file cannot be used, the log says why, and what is in use stays. It reads files, and
        may be called from any thread.
        """
        with self._lock:
            error = self._renew()
        return self._tell(error)

    def look(self) -> bool:
        """Renew if the files have changed; return whether they were read again.

        They are read once two looks have found them the same: who writes them writes one after
        another. It looks at files, and may be called from any thread.
        """
        with self._lock:
            seen, self._seen = self._seen, self._stamp()
            if self._seen == self._tried or self._seen != seen:
                return False
            error = self._renew()
        self._tell(error)
        return True

    def _renew(self) -> SettingError | None:
        self._tried = self._seen = self._stamp()
        try:
            self.pairs, self.current = _make(self._settings)
        except SettingError as error:
            return error
        return None

    def _tell(self, error: SettingError | None) -> bool:
        """Log what has come of it, without the lock: handlers are the application's."""
        if error is not None:
            log.error("the certificates are not renewed, those in use stay: %s", error)
            return False
        log.info("the certificates were renewed: %s", "; ".join(self.describe()))
        self.warn()
        return True

    def _stamp(self) -> Stamp:
        settings = self._settings
        paths = (*settings.certificate, *settings.key, settings.client_ca)
        return tuple(_stamped(each) for each in paths if each)


def _stamped(path: str) -> tuple[str, int, int, int]:
    try:
        status = os.stat(path)
    except OSError:  # it is being replaced, or is gone
        return (path, 0, 0, 0)
    return (path, status.st_ino, status.st_size, status.st_mtime_ns)


def _make(settings: Settings) -> tuple[tuple[Pair, ...], ssl.SSLContext]:
    keys = settings.key or ("",) * len(settings.certificate)
    pairs = tuple(
        Pair(certificate, key, settings.key_password_file)
        for certificate, key in zip(settings.certificate, keys, strict=True)
    )
    contexts = [_context(each, settings) for each in pairs]
    first = contexts[0]
    if len(contexts) > 1:
        named: dict[str, ssl.SSLContext] = {}
        for pair, context in zip(pairs, contexts, strict=True):
            for name in pair.names:
                named.setdefault(name, context)
        first.sni_callback = _chooser(named)
    else:
        first.sni_callback = _chooser({})
    return pairs, first


def _context(pair: Pair, settings: Settings) -> ssl.SSLContext:
    """Make a context for one certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = _VERSIONS[settings.tls_minimum]
    context.options |= OPTIONS
    context.set_ciphers(CIPHERS)
    http2 = serves(settings)
    context.set_alpn_protocols(PROTOCOLS if http2 else PROTOCOLS[1:])
    if http2:
        load()
    pair.load(context)
    if settings.client_ca:
        # A name's context cannot ask for more than the first one: it is for all names alike.
        chain_of(settings.client_ca, "the certificates of --client-ca")
        try:
            context.load_verify_locations(settings.client_ca)
        except (ssl.SSLError, OSError) as error:
            raise SettingError(
                f"the certificates of --client-ca {settings.client_ca} cannot be used: {error}"
            ) from error
        required = settings.client_certificate == "required"
        context.verify_mode = ssl.CERT_REQUIRED if required else ssl.CERT_OPTIONAL
    return context


def _chooser(named: dict[str, ssl.SSLContext]) -> Callable[..., None]:
    """Return what OpenSSL asks for the context of a name; an unknown one keeps the first."""

    def choose(tls: Any, name: str | None, _: ssl.SSLContext) -> None:
        if name is None:
            return
        name = name.lower()
        tls.asked = name
        found = named.get(name) or named.get(f"*.{name.partition('.')[2]}")
        if found is not None:
            tls.context = found

    return choose


holds_lock(Contexts.renew, Contexts.look)
