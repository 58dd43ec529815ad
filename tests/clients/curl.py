"""curl, as a process."""

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from tests.clients.asking import Answer, Ask, BrokenError, lowered
from tests.served import DEADLINE

CURL = shutil.which("curl")


class Curl:
    """curl, a process for each call; the requests of one call share a connection."""

    def __init__(self, address: str) -> None:
        assert CURL is not None
        self._url = f"http://{address}"
        # -q comes first: no file of the user's is read. Silent, but for errors.
        self._program = [CURL, "-q", "-sS", "--fail-early"]

    def ask(self, *asks: Ask) -> list[Answer]:
        """Make requests one after another."""
        with tempfile.TemporaryDirectory() as name:
            arguments = list(self._program)
            pieces: Iterable[bytes] = ()
            places = []
            for number, ask in enumerate(asks):
                place = Path(name) / str(number)
                place.mkdir()
                places.append(place)
                arguments += ["--next"] if number else []
                arguments += self._options(ask, place)
                if ask.pieces is not None:
                    assert len(asks) == 1, "curl has one standard input"
                    pieces = ask.pieces
            self._run(arguments, pieces)
            return [self._answer(place) for place in places]

    def _options(self, ask: Ask, place: Path) -> list[str]:
        options = ["--max-time", str(DEADLINE), "--noproxy", "*"]
        options += ["-D", str(place / "heads"), "-o", str(place / "body")]
        options += ["-0"] if ask.version == "1.0" else []
        options += ["-L"] if ask.follow else []
        options += ["--head"] if ask.method == "HEAD" else []
        for key, value in ask.headers.items():
            options += ["-H", f"{key}: {value}"]
        if ask.pieces is not None:
            options += ["-T", "-"]  # what else reads standard input reads all of it first
        elif ask.body is not None:
            (place / "upload").write_bytes(ask.body)
            options += ["--data-binary", f"@{place / 'upload'}"]
        # Else the method is curl's own choice, which it also changes as a redirect asks.
        if ask.method not in ("GET", "HEAD") and not (ask.method == "POST" and ask.body):
            options += ["-X", ask.method]
        return [*options, self._url + ask.path]

    def _run(self, arguments: list[str], pieces: Iterable[bytes]) -> None:
        with tempfile.TemporaryFile() as errors:
            process = subprocess.Popen(arguments, stdin=subprocess.PIPE, stderr=errors)
            try:
                assert process.stdin is not None
                with contextlib.suppress(BrokenPipeError), process.stdin:
                    for piece in pieces:
                        process.stdin.write(piece)
                        process.stdin.flush()
                code = process.wait(DEADLINE)
            finally:
                process.kill()
                process.wait()
            errors.seek(0)
            if code:
                raise BrokenError(f"curl ended with {code}: {errors.read().decode()}")

    def _answer(self, place: Path) -> Answer:
        heads = (place / "heads").read_bytes().decode("latin-1").split("\r\n\r\n")[:-1]
        statuses = [int(head.split(" ", 2)[1]) for head in heads]
        lines = [line.partition(": ") for line in heads[-1].split("\r\n")[1:]]
        body = (place / "body").read_bytes() if (place / "body").exists() else b""
        return Answer(
            statuses[-1],
            lowered((name, value) for name, _, value in lines),
            body.removeprefix((place / "heads").read_bytes()),  # which it repeats, asked by HEAD
            [status for status in statuses if status < 200],
        )

    @contextlib.contextmanager
    def stream(self, path: str) -> Iterator[Iterator[bytes]]:
        """Return the body of a path piece by piece."""
        arguments = [*self._program, "-N", "--noproxy", "*", "--max-time", str(DEADLINE)]
        process = subprocess.Popen([*arguments, self._url + path], stdout=subprocess.PIPE)
        assert process.stdout is not None
        try:
            yield self._pieces(process)
        finally:
            process.kill()
            process.wait()
            process.stdout.close()

    def _pieces(self, process: subprocess.Popen[bytes]) -> Iterator[bytes]:
        assert process.stdout is not None
        while piece := os.read(process.stdout.fileno(), 65536):
            yield piece
        if code := process.wait(DEADLINE):
            raise BrokenError(f"curl ended with {code}")

    def close(self) -> None:
        """Nothing is open between two calls."""
