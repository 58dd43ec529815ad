"""A page's terminal: its commands are really run, on ports that are free."""

import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from bide.cli import COMMANDS
from bide.seeing.client import ask
from tests.docs.snippets import Snippet
from tests.served import DEADLINE, Client, request, until

ADDRESS_WRITTEN = "127.0.0.1:8000"
ADDRESS = re.compile(r"(127\.0\.0\.1|\[::1\]):\d+")


class Terminal:
    """A page's terminal: runs its commands, one after another, with one server at a time."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._server: subprocess.Popen[str] | None = None
        self._port = ""
        self._runtime = tempfile.mkdtemp(prefix="bide-", dir="/tmp")  # a socket's path is short
        self._clients: list[Client] = []

    def run(self, command: str) -> str:
        """Run a command; return what it prints, as it would be with the default port."""
        words = shlex.split(command, comments=True)
        variables = {}
        while "=" in words[0]:
            name, _, value = words.pop(0).partition("=")
            variables[name] = value
        if words[0] == "curl" and "|" in words:
            return self._piped(command)
        if words[0] == "curl":
            return self._visit(words[1]) if words[-1] == "&" else self._fetch(words[1:])
        assert words[0] == "bide", f"no test knows the command {command!r}"
        if "--explain" in words or words[1] in COMMANDS:
            return self._once(words[1:])
        return self._start(words[1:], variables)

    def _once(self, arguments: list[str]) -> str:
        result = subprocess.run(
            [sys.executable, "-m", "bide", *arguments],
            cwd=self._directory,
            env={**os.environ, "XDG_RUNTIME_DIR": self._runtime},
            capture_output=True,
            text=True,
            timeout=DEADLINE,
            check=False,
        )
        told = bool(result.stderr)
        assert (result.returncode, told and not result.stdout) == (told, told), result.stderr
        if arguments == ["stop"]:
            self._has_stopped()
        # Tasks are counted in a process.
        output = re.sub(r"task Task-\d+", "task Task-5", result.stdout + result.stderr)
        return output.replace(str(self._directory), "/srv/shop")

    def _piped(self, command: str) -> str:
        """Run a pipe that begins with curl, by the shell."""
        if shutil.which("curl") is None:
            pytest.skip("curl is not installed")
        result = subprocess.run(
            command.replace(ADDRESS_WRITTEN, f"127.0.0.1:{self._port}"),
            shell=True,
            capture_output=True,
            text=True,
            timeout=DEADLINE,
            check=True,
        )
        assert not result.stderr
        return result.stdout

    def _visit(self, url: str) -> str:
        """Make a request that waits; return when it does."""
        address = f"127.0.0.1:{self._port}"
        client = Client(address)
        self._clients.append(client)
        client.send(request(url.partition(ADDRESS_WRITTEN)[2]))
        path = f"{self._runtime}/bide/shop.sock"
        until(lambda: ask(path, "status")["workers"][0]["counts"]["waiting"] == 1)
        return ""

    def _start(self, arguments: list[str], variables: dict[str, str]) -> str:
        self.stop()
        # A free port in place of each that is written.
        arguments = [ADDRESS.sub(r"\1:0", each) for each in arguments]
        arguments = [
            each.replace("unix:/tmp", f"unix:{self._directory}").replace("unix:/run", "unix:.")
            for each in arguments
        ]
        variables = {name: ADDRESS.sub(r"\1:0", value) for name, value in variables.items()}
        if "--bind" not in arguments and "BIDE_BIND" not in variables:
            arguments += ["--bind", "127.0.0.1:0"]
        self._server = subprocess.Popen(
            [sys.executable, "-m", "bide", *arguments],
            cwd=self._directory,
            env={"PATH": "", "XDG_RUNTIME_DIR": self._runtime, **variables},
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self._server.stderr is not None
        line = self._server.stderr.readline()
        found = re.search(r"127\.0\.0\.1:(\d+)", line)
        assert found, f"the server did not start: {line}{self._server.stderr.read()}"
        self._port = found[1]
        line = line.replace(str(self._directory), "/tmp")
        line = ADDRESS.sub(r"\1:8000", line)
        return re.sub(r"^\S+ \S+", "2026-11-25 10:00:00.000+01:00", line)

    def _fetch(self, arguments: list[str]) -> str:
        headers = {}
        while "-H" in arguments:
            at = arguments.index("-H")
            name, _, value = arguments[at + 1].partition(": ")
            headers[name] = value
            arguments = arguments[:at] + arguments[at + 2 :]
        (url,) = [each for each in arguments if not each.startswith("-")]
        assert self._server is not None, "no server was started on this page"
        assert "127.0.0.1:8000" in url
        url = url.replace("127.0.0.1:8000", f"127.0.0.1:{self._port}")
        if "--haproxy-protocol" in arguments:
            client = Client(f"127.0.0.1:{self._port}")
            try:
                client.send(b"PROXY TCP4 127.0.0.1 127.0.0.1 50000 8000\r\n" + request())
                return client.response().text
            finally:
                client.close()
        return httpx.get(url, headers=headers, timeout=DEADLINE, trust_env=False).text

    def close(self) -> None:
        """End the server, and all of it."""
        self.stop()
        shutil.rmtree(self._runtime)

    def stop(self) -> None:
        """End the server; it must end well."""
        if self._server is not None:
            self._server.terminate()
            self._has_stopped()

    def _has_stopped(self) -> None:
        while self._clients:
            self._clients.pop().close()
        if self._server is not None:
            _, rest = self._server.communicate(timeout=DEADLINE)
            assert (self._server.returncode, rest.count("ERROR")) == (0, 0), rest
            self._server = None


def exchanges(snippet: Snippet) -> Iterator[tuple[str, str]]:
    """Split a console into commands and what each prints."""
    blocks = re.split(r"^\$ ", snippet.text, flags=re.MULTILINE)
    assert blocks[0] == "", f"{snippet} does not begin with a command"
    for block in blocks[1:]:
        command, _, output = block.partition("\n")
        yield command, output
