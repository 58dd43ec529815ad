"""For development: the server in a child process, which is replaced when its source changes.

The parent keeps the listening sockets, so that who asks meanwhile waits and is not refused. It
never imports the application. A child that cannot start says why itself, and the next change starts
another.

The child answers SIGTERM alone, which the parent sends: Control-C reaches both.
"""

from __future__ import annotations

import contextlib
import fnmatch
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, Final

from bide.environment import with_address
from bide.errors import StartError
from bide.process.signals import answered
from bide.settings import Settings
from bide.transports.acceptor import Acceptor
from bide.transports.addresses import parse_address
from bide.transports.handed_over import HandedOver, for_child

log = logging.getLogger("bide")

PATTERNS: Final = (*("*.py", "*.html", "*.jinja", "*.jinja2", "*.j2", "*.mako", "*.toml", ".env"),)
"""Names of files whose change restarts the server."""
LEFT_OUT: Final = ("venv", "env", "site-packages", "build", "dist")
"""Directories that are not watched, beside those that watchfiles leaves out."""
POLL: Final = 100
"""Milliseconds after which it is looked whether the child has ended."""
PATIENCE: Final = 2.0
"""Seconds that the requests in progress have when the server is replaced, and to end after that."""

Look = Iterable[tuple[Any, str]]
"""Changes: of each its kind and the file."""


def replace_on_change(settings: Settings, handed_over: HandedOver, include: Iterable[str]) -> int:
    """Serve in a child, and replace that whenever a file changes, until a signal comes.

    Args:
        settings: where to listen. The child reads its own, from the same command line.
        handed_over: sockets that listen already.
        include: more names to watch for, as ``*.css``, and more directories to watch.

    Returns:
        The exit code.

    Raises:
        StartError: the files cannot be watched, or the addresses not listened on.
    """
    place = Path(settings.app_dir or Path.cwd())
    directories = [place, *(Path(each) for each in include if Path(each).is_dir())]
    patterns = [*PATTERNS, *(each for each in include if not Path(each).is_dir())]
    settings = with_address(settings, handed_over.enough, os.environ)
    acceptor = Acceptor(lambda *_: None, 1)
    acceptor.open(
        [parse_address(each) for each in settings.bind],
        settings.backlog,
        int(settings.socket_mode, 8),
        handed_over,
    )
    try:
        child = Child(for_child(acceptor.listeners), [each.fileno() for each in acceptor.listeners])
        looks = _looks(directories, patterns, child.asked)
        log.info("watching %s: a change restarts the server", ", ".join(map(str, directories)))
        with child.signals():
            return replace(child, looks)
    finally:
        acceptor.close()


def _looks(directories: list[Path], patterns: list[str], asked: threading.Event) -> Iterator[Look]:
    """Return looks at what has changed, each after a moment; until it is asked to stop."""
    try:
        import watchfiles
    except ImportError as error:
        raise StartError(
            f"--reload needs watchfiles, which cannot be imported ({error}): "
            "pip install 'bide[reload]'"
        ) from error

    left_out = watchfiles.DefaultFilter(
        ignore_dirs=[*watchfiles.DefaultFilter.ignore_dirs, *LEFT_OUT]
    )

    def counts(change: watchfiles.Change, path: str) -> bool:
        name = os.path.basename(path)
        return any(fnmatch.fnmatch(name, each) for each in patterns) and left_out(change, path)

    return watchfiles.watch(
        *directories,
        watch_filter=counts,
        stop_event=asked,
        rust_timeout=POLL,
        yield_on_timeout=True,
        ignore_permission_denied=True,
    )


class Child:
    """The process that serves, one after the other; main thread only.

    Args:
        variables: what its environment has beside this process's.
        descriptors: what it has of this process's, under the same numbers.
        command: the command line; this process's own, if empty.

    Attributes:
        asked: set when a signal has asked to stop.
    """

    def __init__(
        self,
        variables: dict[str, str],
        descriptors: Iterable[int],
        command: Iterable[str] = (),
    ) -> None:
        self._command = [*command] or [sys.executable, *sys.orig_argv[1:]]
        self._environment = os.environ | variables
        self._descriptors = tuple(descriptors)
        self._process: subprocess.Popen[bytes] | None = None
        self.asked = threading.Event()

    @contextmanager
    def signals(self) -> Iterator[None]:
        """In this ``with`` block, SIGINT, SIGTERM and SIGHUP ask to stop, and tell the child.

        SIGHUP does not where it is ignored, as under nohup.
        """
        before = {
            number: signal.signal(number, self._stop)
            for number in answered((signal.SIGINT, signal.SIGTERM, signal.SIGHUP))
        }
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _stop(self, _: int, __: FrameType | None) -> None:
        self.asked.set()
        self._tell()

    def _tell(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)

    def start(self) -> None:
        """Start one."""
        self._process = subprocess.Popen(
            self._command, env=self._environment, pass_fds=self._descriptors
        )
        if self.asked.is_set():  # before there was one to be told
            self._tell()

    def replace(self) -> None:
        """End the one that serves: its requests have a moment. Then start another."""
        process = self._process
        if process is not None:
            for end in (self._tell, self._tell, process.kill):
                end()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(PATIENCE)
                    break
            process.wait()
        self.start()

    def ended(self) -> int | None:
        """Return the exit code of one that has ended by itself, once; else None."""
        if self._process is None or (code := self._process.poll()) is None:
            return None
        self._process = None
        return _exit_code(code)

    def wait(self) -> int:
        """Return the exit code of the one that was asked to stop; 0 if there is none."""
        return 0 if self._process is None else _exit_code(self._process.wait())


def _exit_code(code: int) -> int:
    return code if code >= 0 else 128 - code


def replace(child: Child, looks: Iterable[Look]) -> int:
    """Start a child, and another at each look that shows changes; return the exit code.

    A child that has failed is waited for a change with; one that has ended without a failure was
    meant to.
    """
    begun = False
    for changes in looks:
        if child.asked.is_set():
            break
        if not begun:
            child.start()  # behind the first look: no change from now on is missed
            begun = True
        elif changes:
            log.info("restarting the server: %s", _named(changes))
            child.replace()
        code = child.ended()
        if code == 0:
            return 0
        if code is not None:
            log.warning("the server has ended with code %d: a change restarts it", code)
    return child.wait()


def _named(changes: Look) -> str:
    names = sorted(os.path.relpath(path) for _, path in changes)
    return f"{names[0]} has changed" if len(names) == 1 else f"{names[0]} and others have changed"
