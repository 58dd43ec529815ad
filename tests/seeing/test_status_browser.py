"""The status page in a browser: headless Chromium."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.conftest import Serve
from tests.failures import Failures
from tests.seeing.browser import PROGRAM, Browser
from tests.seeing.instances import instance, request, snapshot, thread
from tests.seeing.test_status_application import TOKEN, Page
from tests.served import Log

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="Chromium is not installed")

EVIL = "<img src=x onerror=alert(1)><script>alert(2)</script>"
LIVE = "document.getElementById('connection')?.textContent === 'Live'"


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """Return a browser for all tests of this module: it takes a second to start."""
    browser = Browser()
    yield browser
    browser.close()


@pytest.fixture
def browser(chromium: Browser) -> Iterator[Browser]:
    """Return a browser that has said nothing yet; at the end it has nothing to complain about."""
    chromium.said.clear()
    chromium.requested.clear()
    chromium.look(1200, 900)
    yield chromium
    chromium.open("about:blank")
    assert not chromium.said


@pytest.fixture
def page(serve: Serve) -> Iterator[Page]:
    """Return a page of a busy server."""
    made = Page(serve)
    made.told.now = busy()
    yield made
    made.close()


def busy(**given: Any) -> dict[str, Any]:
    """Return a server in which much happens."""
    requests = [request(each, waits_for="coroutine fetch") for each in range(30)]
    requests.append(
        request(90, state="running", method="POST", target=f"/{'long-' * 40}", thread="thread-2")
    )
    return instance(
        snapshot(
            1,
            requests=requests,
            threads=[
                thread("the event loop"),
                thread("thread-1", waiting=30),
                thread("thread-2", state="blocked", request="1-90", waiting=3, **{"for": 12.3}),
            ],
            counts={"threads": 2, "threads_busy": 1, "connections": 40, "websockets": 7},
            counters={"bide_rejected_total": {"queue full": 17}},
            limits=[{"name": "payments", "most": 5, "taken": 5, "waiting": 12, "refused": 3}],
        ),
        **given,
    )


def test_it_shows_what_happens_in_each_colour_scheme_and_at_each_width(
    page: Page, browser: Browser
) -> None:
    """Nothing is cut off to the right, and nothing is asked of anybody else."""
    browser.open(page.served.url)
    browser.until(f"{LIVE} && past.length > 2")
    with Failures() as failures:
        for width in (1200, 1121, 1000, 768, 375, 320):
            for scheme in ("light", "dark"):
                with failures.of(f"{width} {scheme}"):
                    browser.look(width, 900, scheme)
                    browser.until(f"innerWidth === {width}")
                    assert browser.run("document.documentElement.scrollWidth") <= width
                    text = browser.run("document.body.innerText")
                    for each in (
                        "thread-2 has been blocked for 12 s by POST /long-",
                        "it delays 3 waiting requests",
                        "12 of 31 requests in progress",
                        "queue full",
                        "payments",
                        "coroutine fetch",
                    ):
                        assert each in text
                    dark = browser.run("getComputedStyle(document.body).backgroundColor")
                    assert dark == ("rgb(23, 22, 19)" if scheme == "dark" else "rgb(245, 244, 241)")
    assert set(browser.requested) == {f"{page.served.url}/", f"{page.served.url}/events"}


def test_what_comes_from_outside_is_text_only(page: Page, browser: Browser) -> None:
    """Markup in a path, a name, or whatever else, makes no element."""
    page.told.now = json.loads(
        json.dumps(busy(name=EVIL, addresses=[EVIL], restarts={EVIL: 1}))
        .replace("coroutine fetch", EVIL)
        .replace("/orders", EVIL)
        .replace("queue full", EVIL)
        .replace("payments", EVIL)
        .replace("192.0.2.7", EVIL)
        .replace("thread-2", EVIL)
    )
    browser.open(page.served.url)
    browser.until(LIVE)
    assert browser.run("document.body.innerText.split('<img src=x').length") > 30
    assert browser.run("document.images.length") == 0
    assert browser.run("document.scripts.length") == 1
    assert browser.run("document.getElementById('name').textContent") == EVIL


def test_a_keyboard_and_a_screen_reader_are_enough(page: Page, browser: Browser) -> None:
    """What can be pressed is reached and seen; tables have names; little is told aloud."""
    browser.open(page.served.url)
    browser.until(LIVE)
    browser.press("Tab", 9)
    assert browser.run("document.activeElement.id") == "pause"
    assert browser.run("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    browser.press("Enter", 13)
    browser.until("document.getElementById('connection')?.textContent === 'Paused'")
    seen = browser.run("past.length")
    page.told.now = instance(snapshot(1))
    browser.until(f"past.length > {seen} + 2")  # the plot goes on
    assert "thread-2 has been blocked" in browser.run("document.body.innerText")
    browser.press("Enter", 13)
    browser.until("document.body.innerText.includes('Nothing blocks.')")
    tables = "[...document.querySelectorAll('table')]"
    assert browser.run(f"{tables}.every(each => each.caption && each.ariaLabelledByElements[0])")
    heads = "[...document.querySelectorAll('thead th')]"
    assert browser.run(f"{heads}.every(each => each.scope === 'col')")
    assert browser.run("document.querySelectorAll('h1').length") == 1
    assert browser.run("document.querySelectorAll('[role=status], [aria-live]').length") == 2
    nodes = browser.call("Accessibility.getFullAXTree")["nodes"]
    roles = [each["role"]["value"] for each in nodes if not each["ignored"]]
    browser.look(375, 900)  # where rows do not look like rows
    nodes = browser.call("Accessibility.getFullAXTree")["nodes"]
    narrow = [each["role"]["value"] for each in nodes if not each["ignored"]]
    for role in ("table", "row", "rowheader", "main", "banner", "image"):
        assert role in roles, role
        assert narrow.count(role) == roles.count(role), role


def test_a_lost_connection_is_told_and_made_again(serve: Serve, browser: Browser, log: Log) -> None:
    """At the same address, by a page that is left open."""
    first = Page(serve, graceful_timeout=0.0)
    browser.open(first.served.url)
    browser.until(LIVE)
    address = first.served.address
    first.close()
    first.served.stop()
    log.take("not ended in time")  # the stream
    browser.until("document.getElementById('connection')?.className === 'lost'")
    assert browser.run("document.getElementById('main').className") == "stale"
    browser.said.clear()  # the browser tells that it could not connect
    second = Page(serve, bind=address)
    second.told.now = busy(name="another")
    browser.until(f"{LIVE} && document.title === 'another: Bide'")
    assert browser.run("past.some(each => !each.states)")  # the plot has a gap
    browser.said.clear()
    browser.open("about:blank")
    second.close()


def test_a_silent_server_is_told(serve: Serve, browser: Browser) -> None:
    """While the page itself is there."""
    page = Page(serve, patience=0.05)
    browser.open(page.served.url)
    browser.until(LIVE)
    page.told.answers.clear()
    browser.until("document.body.innerText.includes('The server has not answered for')")
    page.told.answers.set()
    browser.until(LIVE)
    page.close()


def test_a_token_does_not_stay_in_the_address(serve: Serve, browser: Browser) -> None:
    """It is asked for, and then the browser has a cookie that no script and no other site has."""
    page = Page(serve, TOKEN)
    browser.open(page.served.url)
    browser.until("!!document.querySelector('input[name=token]')")
    browser.run(f"document.querySelector('input').value = {TOKEN!r}")
    browser.run("document.querySelector('button').click()")
    browser.until(f"location.pathname === '/' && document.title !== '' && {LIVE}")
    assert browser.run("location.search") == ""
    assert browser.run("document.cookie") == ""
    browser.said.clear()  # of the first answer, which was 401
    page.close()
