"""The demo's page in a browser, headless Chromium, with every thread blocked."""

import contextlib
import functools
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from tests.examples.serving import DEADLINE, Example, Serve, Served
from tests.examples.test_demo_example import mounted
from tests.failures import Failures
from tests.seeing.browser import PROGRAM, Browser

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="Chromium is not installed")

THREADS = 4
LABELS = "[...document.querySelectorAll('.tile h3')]"


@contextlib.contextmanager
def opened(serve: Serve, example: Example, **settings: Any) -> Iterator[tuple[Served, Browser]]:
    """Serve the demo, and open its page; at the end the page has nothing to complain about."""
    site = example("demo.app").site
    with serve(site, mounted=mounted(example), **settings) as served:
        browser = Browser()
        try:
            browser.look(1200, 900)
            browser.open(served.url)
            yield served, browser
            assert not browser.said
        finally:
            browser.close()  # before the server, which the page would miss


def text(name: str) -> str:
    """Return the expression for what an element of the page says."""
    return f"document.getElementById('{name}')?.textContent"


def test_the_page_lives_while_every_thread_is_blocked(
    serve: Serve, example: Example, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Block is pressed four times: all threads are in use, and the live line says so."""
    release = threading.Event()
    sleep = functools.partial(release.wait, DEADLINE)
    monkeypatch.setattr(example("demo.app"), "time", SimpleNamespace(sleep=lambda _: sleep()))
    with (
        opened(serve, example, threads=THREADS, limit_threads=THREADS) as (_, browser),
        contextlib.ExitStack() as stack,
    ):
        stack.callback(release.set)
        # Its own three requests wait, and the threads are free.
        browser.until(f"{text('waiting')} === '3' && {text('threads')} === '0 of 4'")
        for _ in range(THREADS):
            browser.run("document.getElementById('block').click()")
        browser.until(f"{text('threads')} === '4 of 4' && {text('running')} === '4'")
        browser.until(f"{text('quick-note')}?.includes('no answer\\nevent loop: ')")
        assert browser.run(text("state")) == "live"
        assert browser.run("document.getElementById('block').disabled")
        rows = browser.run("document.getElementById('rows').innerText")
        assert rows.count("GET /block") == THREADS
        release.set()
        browser.until(f"{text('threads')} === '0 of 4'")
        browser.until("document.querySelectorAll('#log b').length === 4")
        assert browser.run(text("log")).count("answered after") == THREADS
        assert browser.run("document.querySelectorAll('#log .failed').length") == 0


def test_the_page_fits_each_width_in_each_colour_scheme(serve: Serve, example: Example) -> None:
    """Nothing is cut off to the right, and no label of a tile takes two lines."""
    with opened(serve, example, threads=THREADS) as (_, browser), Failures() as failures:
        browser.until(f"{text('waiting')} === '3'")
        for width in (1200, 768, 640, 375, 320):
            for scheme in ("light", "dark"):
                with failures.of(f"{width} {scheme}"):
                    browser.look(width, 900, scheme)
                    assert browser.run("document.documentElement.scrollWidth") <= width
                    heights = browser.run(f"{LABELS}.map((each) => each.offsetHeight)")
                    assert len(set(heights)) == 1, heights
                    cut = browser.run(
                        f"{LABELS}.filter((each) => each.scrollWidth > each.clientWidth).length"
                    )
                    assert not cut, "a label is cut off"


def test_the_page_speaks_over_its_websocket(serve: Serve, example: Example) -> None:
    """What is sent is heard here, and by a hundred more that hold no thread."""
    with opened(serve, example, threads=1, limit_threads=1) as (served, browser):
        browser.until(f"{text('talk-state')} === '1 WebSocket is open on this page'")
        browser.run("document.getElementById('more-sockets').click()")
        browser.until(f"{text('talk-state')} === '101 WebSockets are open on this page'")
        browser.run("document.getElementById('text').value = 'hello'")
        browser.run("document.querySelector('#say button').click()")
        browser.until(f"{text('said')} === 'hello'")
        browser.until(f"{text('waiting')} === '103'")
        assert served.status is not None
        assert served.status().threads == 1
