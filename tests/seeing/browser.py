"""Headless Chromium, driven over its own protocol: a page is opened, asked and looked at."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any, Final

from websockets.sync.client import connect

from tests.served import DEADLINE

PROGRAM: Final = shutil.which("chromium") or shutil.which("google-chrome")
"""Where it is; None: it is not installed."""
SECONDS: Final = 3 * DEADLINE
"""Within which it starts, and answers: on a busy machine it takes its time."""
_OPTIONS: Final = (
    "--headless",
    "--no-sandbox",  # tests may run as root
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--remote-debugging-port=0",
)


class Browser:
    """A browser with one page.

    Args:
        options: more of its command line.

    Attributes:
        said: what the page's console said, and its uncaught errors.
        requested: the URLs that were asked for.
    """

    def __init__(self, *options: str) -> None:
        assert PROGRAM is not None
        self._directory = tempfile.mkdtemp(prefix="bide-chromium-")
        self._process = subprocess.Popen(
            [PROGRAM, *_OPTIONS, *options, f"--user-data-dir={self._directory}", "about:blank"],
            env={**os.environ, "HOME": self._directory},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self.said: list[str] = []
        self.requested: list[str] = []
        self._number = 0
        port, path = self._port()
        self._opened = contextlib.ExitStack()
        self._socket = self._opened.enter_context(
            connect(f"ws://127.0.0.1:{port}{path}", max_size=None, proxy=None, ping_interval=None)
        )
        target = self._call("Target.createTarget", "", url="about:blank")["targetId"]
        attached = self._call("Target.attachToTarget", "", targetId=target, flatten=True)
        self._session: str = attached["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    def _port(self) -> tuple[str, str]:
        file = Path(self._directory, "DevToolsActivePort")
        deadline = time.monotonic() + SECONDS
        while not (file.exists() and len(lines := file.read_text().splitlines()) == 2):
            assert self._process.poll() is None, "Chromium has ended"
            assert time.monotonic() < deadline, "Chromium does not start"
            time.sleep(0.02)
        return lines[0], lines[1]

    def call(self, method: str, **arguments: Any) -> dict[str, Any]:
        """Call a method of the page's; return its result."""
        return self._call(method, self._session, **arguments)

    def _call(self, method: str, session: str, **arguments: Any) -> dict[str, Any]:
        self._number += 1
        message = {"id": self._number, "method": method, "params": arguments}
        self._socket.send(json.dumps({**message, "sessionId": session} if session else message))
        while True:
            answer = json.loads(self._socket.recv(SECONDS))
            self._note(answer)
            if answer.get("id") == self._number:
                assert "error" not in answer, answer["error"]
                result: dict[str, Any] = answer["result"]
                return result

    def _note(self, event: dict[str, Any]) -> None:
        method, told = event.get("method"), event.get("params", {})
        if method == "Network.requestWillBeSent":
            self.requested.append(told["request"]["url"])
        elif method == "Runtime.exceptionThrown":
            self.said.append(json.dumps(told["exceptionDetails"]))
        elif method == "Runtime.consoleAPICalled":
            self.said.append(json.dumps(told["args"]))
        elif method == "Log.entryAdded":
            self.said.append(told["entry"]["text"])

    def open(self, url: str) -> None:
        """Go to a page."""
        self.call("Page.navigate", url=url)

    def run(self, expression: str) -> Any:
        """Return what a JavaScript expression is."""
        answer = self.call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def until(self, expression: str) -> Any:
        """Return what an expression is once it is true."""
        deadline = time.monotonic() + SECONDS
        while not (value := self.run(expression)):
            text = self.run("document.body && document.body.innerText")
            assert time.monotonic() < deadline, f"{expression} never was: {text} {self.said[:3]}"
            time.sleep(0.05)
        return value

    def look(self, width: int, height: int, scheme: str = "light") -> None:
        """Have a window of some size, and a colour scheme."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 500,
        )
        self.call(
            "Emulation.setEmulatedMedia",
            features=[{"name": "prefers-color-scheme", "value": scheme}],
        )

    def picture(self, path: Path, whole: bool = False) -> None:
        """Write a picture of the page; of the window, or of the whole of it."""
        answer = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(answer["data"]))

    def press(self, key: str, code: int) -> None:
        """Press a key."""
        for kind in ("keyDown", "keyUp"):
            self.call(
                "Input.dispatchKeyEvent",
                type=kind,
                key=key,
                code=key,
                windowsVirtualKeyCode=code,
                text="\r" if key == "Enter" and kind == "keyDown" else "",
            )

    def close(self) -> None:
        """End it."""
        self._opened.close()
        self._process.kill()
        self._process.wait()
        shutil.rmtree(self._directory, ignore_errors=True)
