"""The settings by which people and programs look at a server from outside.

They are declared as those of :mod:`bide.settings`, which inherit them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from bide.bounds import Bounds
from bide.declarations import located
from bide.declarations import setting as _setting
from bide.errors import SettingError

OFF: Final = "off"
"""The value of ``control`` for no control socket."""
SHORTEST: Final = 16
"""Characters of a token at least: nobody guesses it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Monitoring(Bounds):
    """Where a server shows what it does, and to whom."""

    control: str = _setting(
        "Monitoring",
        "",
        "The path of the control socket, where bide status and other commands reach the server. "
        "off: no control socket. Without this option: a file with the application's name, "
        "NAME.sock, in the directory bide of the user's runtime directory. For the command line, "
        "and bide.run.",
        metavar="PATH",
    )
    status: str = _setting(
        "Monitoring",
        "",
        "Serve the status page at this address: HOST:PORT, [IPv6]:PORT or unix:PATH, which only "
        "the same user may open. An address that other machines can reach needs a token. A "
        "separate process serves the page. For the command line, and bide.run.",
        metavar="ADDRESS",
    )
    status_token: str = _setting(
        "Monitoring",
        "",
        "The password of the status page, 16 characters at least. Set it in the environment or in "
        "a file, because others can see a command line.",
        metavar="TOKEN",
        secret=True,
    )

    opentelemetry: bool = _setting(
        "Monitoring",
        False,
        "Record the number and the duration of requests with the application's OpenTelemetry. Take "
        "the trace id of each request from its header traceparent, and put it into the environ, "
        "the scope and each record of the log.",
    )

    def check_monitoring(self) -> None:
        """Make paths absolute; raise SettingError where these settings make no sense."""
        if self.control != OFF:
            object.__setattr__(self, "control", located(self.control))
        if self.status.startswith("unix:"):
            path = located(self.status.removeprefix("unix:"))
            object.__setattr__(self, "status", f"unix:{path}")
        token = self.status_token
        if token and not self.status:
            raise SettingError("status_token is set, but status is not: there is no status page")
        if token and not re.fullmatch(rf"[!-~]{{{SHORTEST},500}}", token):
            raise SettingError(
                f"status_token must have {SHORTEST} to 500 characters, letters, digits and signs: "
                "make one with: python3 -c 'import secrets; print(secrets.token_urlsafe())'"
            )
