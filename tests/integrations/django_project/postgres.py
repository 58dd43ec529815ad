"""A PostgreSQL server of the tests' own, from Debian's packages."""

import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from tests.ports import free_port
from tests.served import DEADLINE

MISSING = "PostgreSQL is not installed: apt-get install postgresql"

UNTIL_STDIN_ENDS = '"$@" & read _; kill -INT $!; wait'
"""Runs a command until its starter says so, or is killed; SIGINT has it close its connections."""


def programs() -> Path | None:
    """Find the newest PostgreSQL's programs; Debian keeps them out of PATH."""
    found = sorted(
        Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda each: int(each.parts[4])
    )
    if found:
        return found[-1].parent
    initdb = shutil.which("initdb")
    return None if initdb is None else Path(initdb).parent


class Postgres:
    """A running server, on a free port of the loopback, its data in a temporary directory."""

    def __init__(self, where: Path) -> None:
        # Not pytest's directory, which is for one user only: the server refuses to be run by root.
        self.directory = Path(tempfile.mkdtemp(prefix="bide-postgres-"))
        user = "postgres" if os.getuid() == 0 else None
        if user is not None:
            shutil.chown(self.directory, user)
        data = self.directory / "data"
        subprocess.run(
            [str(where / "initdb"), "-A", "trust", "-U", "bide", "--no-sync", "-D", str(data)],
            check=True,
            user=user,
            cwd="/",
            stdout=subprocess.DEVNULL,
        )
        self.port = free_port()
        log = (self.directory / "log").open("wb")
        server = [str(where / "postgres"), "-D", str(data), "-p", str(self.port)]
        server += ["-h", "127.0.0.1", "-k", str(self.directory), "-c", "fsync=off"]
        self.process = subprocess.Popen(
            ["sh", "-c", UNTIL_STDIN_ENDS, "sh", *server],
            user=user,
            cwd="/",
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
        )
        log.close()
        deadline = time.monotonic() + DEADLINE
        ready = [str(where / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self.port)]
        while subprocess.run(ready, check=False).returncode:
            assert self.process.poll() is None, (self.directory / "log").read_text()
            assert time.monotonic() < deadline, "PostgreSQL did not start"
            time.sleep(0.02)

    def stop(self) -> None:
        """End it, and forget its data."""
        self.process.communicate(timeout=DEADLINE)
        shutil.rmtree(self.directory)
