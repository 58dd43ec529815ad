"""TLS for tests: certificates, made once for a run, and a client whose every step is the test's.

The standard library's client socket cannot end its own side and read on. This one can: it is an
``SSLObject`` between two buffers, above a plain socket.
"""

import contextlib
import functools
import io
import os
import select
import socket
import ssl
import tempfile
from pathlib import Path
from typing import Any

import trustme
from cryptography.hazmat.primitives import serialization

from bide.transports.contexts import OPTIONS
from bide.transports.openssl import forget

RECORD = 16 * 1024
WANTED = "TEST_OVER_TLS"
"""The variable that makes a run of the tests one over TLS, where they have Bide's own server."""
NAMES = ("localhost", "127.0.0.1", "::1", "bide.example")


class Certificates:
    """Files of certificates that one authority has signed, below a directory.

    Attributes:
        authority: the file of the authority's certificate.
        server: the file of the server's certificate, with its key.
        settings: what a server needs to serve with it.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._authority = trustme.CA()
        self.authority = str(directory / "authority.pem")
        self._authority.cert_pem.write_to_path(self.authority)
        self.server = self.issue("server", *NAMES)
        self.settings: dict[str, Any] = {"certificate": self.server}

    def issue(self, file: str, *names: str, common_name: str | None = None, **more: Any) -> str:
        """Make a certificate for some names; return its file, which has its key, too.

        Beside it are ``NAME.crt`` and ``NAME.key``.
        """
        made = self._authority.issue_cert(*names, common_name=common_name, **more)
        path = self.directory / f"{file}.pem"
        made.private_key_and_cert_chain_pem.write_to_path(str(path))
        path.with_suffix(".crt").write_bytes(
            b"".join(each.bytes() for each in made.cert_chain_pems)
        )
        made.private_key_pem.write_to_path(str(path.with_suffix(".key")))
        return str(path)

    def encrypt(self, file: str, password: bytes) -> str:
        """Encrypt the key of a certificate; return the file of it."""
        path = Path(file).with_suffix(".key")
        key = serialization.load_pem_private_key(path.read_bytes(), None)
        locked = path.with_suffix(".locked")
        locked.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.BestAvailableEncryption(password),
            )
        )
        return str(locked)

    def context(self, certificate: str = "") -> ssl.SSLContext:
        """Return a client's context, which trusts the authority, with a certificate of its own."""
        context = ssl.create_default_context(cafile=self.authority)
        # A connection that is cut is to look so. Some Pythons set this by themselves.
        context.options &= ~getattr(ssl, "OP_IGNORE_UNEXPECTED_EOF", 0)
        if certificate:
            context.load_cert_chain(certificate)
        return context


@functools.cache
def certificates() -> Certificates:
    """Return those of this run, in a directory that is left with the process."""
    directory = tempfile.TemporaryDirectory(prefix="bide-tls-")
    made = Certificates(Path(directory.name))
    made._directory = directory  # type: ignore[attr-defined]  # removed with it
    return made


class TLSSocket:
    """A client's socket, as far as :class:`tests.served.Client` uses one.

    Args:
        sock: connected; its time-out counts here, too.
        context: a client's.
        name: the server's name.
        session: one to be resumed.
        shake: whether to make the handshake at once.
    """

    def __init__(
        self,
        sock: socket.socket,
        context: ssl.SSLContext,
        name: str = "localhost",
        session: ssl.SSLSession | None = None,
        shake: bool = True,
    ) -> None:
        self.plain = sock
        if sock.family != socket.AF_UNIX:  # else a record may wait for the server's delayed ACK
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._unsent = b""  # encrypted, and not taken by the socket
        self._held = b""  # received, and not asked for
        self._resetting = False
        self._coming, self._going = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(
            self._coming, self._going, server_hostname=name, session=session
        )
        if shake:
            self.shake()

    @staticmethod
    def hello(context: ssl.SSLContext) -> bytes:
        """Return what a client begins with."""
        going = ssl.MemoryBIO()
        tls = context.wrap_bio(ssl.MemoryBIO(), going, server_hostname="localhost")
        with contextlib.suppress(ssl.SSLWantReadError):
            tls.do_handshake()
        return going.read()

    def greet(self) -> None:
        """Send what a client begins with, and nothing more."""
        with contextlib.suppress(ssl.SSLWantReadError):
            self.tls.do_handshake()
        self.flush()

    def shake(self) -> None:
        """Make the handshake; raises SSLError when it fails."""
        self._until_done(self.tls.do_handshake)

    def _until_done(self, step: Any) -> Any:
        while True:
            try:
                return step()
            except ssl.SSLWantReadError:
                self.flush()
                if not self._fill():
                    return self._until_end(step)
            finally:
                self.flush()

    def _until_end(self, step: Any) -> Any:
        self._coming.write_eof()
        return step()

    def flush(self) -> None:
        """Send what is encrypted, as much as a socket takes that does not block."""
        self._unsent += self._going.read()
        while self._unsent:
            try:
                sent = self.plain.send(self._unsent)
            except BlockingIOError:
                return
            self._unsent = self._unsent[sent:]

    def _fill(self) -> bool:
        data = self.plain.recv(RECORD)
        self._coming.write(data)
        return bool(data)

    def sendall(self, data: bytes) -> None:
        """Encrypt and send all of it."""
        for at in range(0, len(data), RECORD):
            self.tls.write(data[at : at + RECORD])
            self.flush()

    def send(self, data: bytes) -> int:
        """Encrypt and send all of it; raises BlockingIOError while other bytes are not sent."""
        self.flush()
        if self._unsent:
            raise BlockingIOError
        self.sendall(data)
        return len(data)

    def recv(self, size: int, flags: int = 0) -> Any:
        """Receive up to ``size`` bytes; none at the ``close_notify``.

        Raises ConnectionResetError where the connection ends without one: it was cut.
        """
        assert not flags
        if self._held:
            data, self._held = self._held[:size], self._held[size:]
            return data
        try:
            data = self._until_done(lambda: self.tls.read(size))
        except ssl.SSLZeroReturnError:
            return b""
        except ssl.SSLEOFError as error:
            raise ConnectionResetError(
                "the connection was cut: there was no close_notify"
            ) from error
        return data

    def is_silent(self) -> bool:
        """Whether nothing has come for the program; a ticket, for one, is for OpenSSL."""
        while not self._held:
            try:
                self._held = self.tls.read(RECORD)
                return False  # or it is the end
            except ssl.SSLWantReadError:
                poll = select.poll()
                poll.register(self.plain, select.POLLIN)
                if not poll.poll(0):
                    return True
                if not self._fill():
                    return False
            except ssl.SSLZeroReturnError:
                return False
        return False

    def notify(self) -> None:
        """Send the ``close_notify``, and nothing of the socket's own."""
        with contextlib.suppress(ssl.SSLError):  # the server's has not come
            self.tls.unwrap()
            forget()  # an alert of the server's may have come in the place of its end
        self.flush()

    def alert(self) -> None:
        """Send a fatal alert, as a client does that reads something other than TLS."""
        self._coming.write(b"\x17\x03\x03\x00\x20" + bytes(32))
        with contextlib.suppress(ssl.SSLError):
            self.tls.read(1)
        self.flush()

    def shutdown(self, how: int) -> None:
        """End the sending by a ``close_notify``, and as the socket does."""
        self.notify()
        self.plain.shutdown(how)

    def setsockopt(self, level: int, option: int, value: Any) -> None:
        """Set an option of the socket."""
        self._resetting = self._resetting or option == socket.SO_LINGER
        self.plain.setsockopt(level, option, value)

    def close(self) -> None:
        """Close, as a program does that has ended, or by a reset, if that was set."""
        if self.plain.fileno() != -1 and not self._resetting:
            with contextlib.suppress(OSError):
                self.is_silent()  # what is left unread would make a reset of the end
                self.notify()
        self.plain.close()

    def makefile(self, mode: str) -> io.BufferedReader:
        """Return a reader, which does not own the socket."""
        assert mode == "rb"
        return io.BufferedReader(SocketReader(self))

    def __getattr__(self, name: str) -> Any:
        """Take all else, as ``settimeout`` and ``fileno``, from the socket."""
        return getattr(self.plain, name)


class Ends:
    """Both ends of one connection, in memory; their handshake is made.

    Attributes:
        server, client: the ends.
        up, down: what is on its way to the server, and to the client.
    """

    def __init__(self) -> None:
        made = certificates()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.options |= OPTIONS
        context.load_cert_chain(made.server)
        self.up, self.down = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.server = context.wrap_bio(self.up, self.down, server_side=True)
        self.client = made.context().wrap_bio(self.down, self.up, server_hostname="localhost")
        for each in (self.client, self.server) * 2:
            with contextlib.suppress(ssl.SSLWantReadError):
                each.do_handshake()


def leave_an_error() -> None:
    """Leave an error in OpenSSL's queue of this thread, as a library does that uses it itself."""
    with contextlib.suppress(ValueError):
        ssl._ASN1Object("no object")


class SocketReader(io.RawIOBase):
    """Reads from what has a socket's ``recv``, which it does not own."""

    def __init__(self, sock: Any) -> None:
        self._sock = sock

    def readable(self) -> bool:
        """Return true."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read what has come; return how much."""
        data = self._sock.recv(len(buffer))
        buffer[: len(data)] = data
        return len(data)


def wanted() -> bool:
    """Whether a test's server is to speak TLS."""
    return os.environ.get(WANTED) == "1"
