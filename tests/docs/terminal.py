"""A page's terminal: its commands are really run, on ports that are free."""

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx

from tests.docs.snippets import Snippet
from tests.served import DEADLINE

ADDRESS = re.compile(r"(127\.0\.0\.1|\[::1\]):\d+")


class Terminal:
    """A page's terminal: runs its commands, one after another, with one server at a time."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._server: subprocess.Popen[str] | None = None
        self._port = ""

    def run(self, command: str) -> str:
        """Run a command; give what it prints, as it would be with the default port."""
        words = shlex.split(command, comments=True)
        variables = {}
        while "=" in words[0]:
            name, _, value = words.pop(0).partition("=")
            variables[name] = value
        if words[0] == "curl":
            return self._fetch(words[1:])
        assert words[0] == "bide", f"no test knows the command {command!r}"
        if "--explain" in words:
            return self._explain(words[1:])
        return self._start(words[1:], variables)

    def _explain(self, arguments: list[str]) -> str:
        result = subprocess.run(
            [sys.executable, "-m", "bide", *arguments],
            cwd=self._directory,
            capture_output=True,
            text=True,
            timeout=DEADLINE,
            check=False,
        )
        assert result.returncode == 0, result.stderr
        return result.stdout

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
            env={"PATH": "", **variables},
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
        return re.sub(r"^\S+ \S+", "2026-11-25 10:00:00,000", line)

    def _fetch(self, arguments: list[str]) -> str:
        (url,) = [each for each in arguments if not each.startswith("-")]
        assert self._server is not None, "no server was started on this page"
        assert "127.0.0.1:8000" in url
        url = url.replace("127.0.0.1:8000", f"127.0.0.1:{self._port}")
        return httpx.get(url, timeout=DEADLINE, trust_env=False).text

    def stop(self) -> None:
        """End the server; it must end well."""
        if self._server is not None:
            self._server.terminate()
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
