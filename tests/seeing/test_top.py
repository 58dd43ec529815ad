"""What ``bide top`` draws, and what its keys do: no terminal, no server."""

import io
from dataclasses import replace
from typing import Any

from rich.console import Console

from bide.seeing.top_keys import KEYS, View, pressed, read_keys
from bide.seeing.top_picture import Picture, picture
from bide.seeing.top_rows import age, size
from tests.failures import Failures, same
from tests.seeing.viewed import (
    STARTED,
    instance,
    parked_and_blocked,
    request,
    snapshot,
    thread,
)

VIEW = View(now=STARTED + 3700)


def drawn(found: dict[str, Any], view: View = VIEW, width: int = 80, height: int = 24) -> list[str]:
    """Return the lines of a picture, without what fills them up."""
    return [each.plain.rstrip() for each in picture(found, view, width, height).lines]


def ids(lines: list[str]) -> list[str]:
    """Return the ids in the table of requests."""
    start = next(at for at, line in enumerate(lines) if "STATE" in line and "CLIENT" in line)
    return [line.split()[0] for line in lines[start + 1 :] if line[:1].isdigit()]


def test_a_picture_tells_who_blocks_how_long_and_what_that_delays() -> None:
    """On 80 columns and 24 lines; what does not fit is counted."""
    lines = drawn(parked_and_blocked())
    same(lines[0], "bide shop · up 1h01m · pid 4000 · http://127.0.0.1:8000 · version 0.1.0")
    same(lines[1], "4 running (4 blocked) · 1,000 waiting · 0 queued · 4 of 5 threads busy")
    same(lines[4], "thread-1 blocked  12.3s     250 GET /block?seconds=600")
    request = "0-1000 16m40s waiting coroutine sl… thread-1 GET /wait?seconds=… 127.0.0.1     0"
    same(lines[9], request)
    same(lines[22], "… 991 more")
    assert lines[23].startswith("q quit  ? keys")


def test_the_second_line_tells_what_is_not_as_usual() -> None:
    """First that the server stops; last what is always there."""
    counts = {"client_requests_refused": 2, "stopping": True}
    found = instance(
        snapshot([], [thread("thread-1")], **counts), restarts={"memory": 2, "died": 1}
    )
    said = "stopping · 0 running · 0 waiting · 0 queued · 0 of 1 threads busy · 0 connections"
    said += " · 2 refused · 3 restarts · loop late 1.2 ms · memory 83M"
    same(drawn(found, VIEW, 200)[1], said)


def test_a_picture_fits_any_terminal() -> None:
    """From one cell on, in each of its states; a wide character has two cells."""
    wide = instance(
        snapshot(
            [request(number, target="/日本語" * 40, client="2001:db8::" + "f" * 29, worker=1)
             for number in range(50)],
            [thread("the event loop"), *(thread(f"thread-{each}") for each in range(30))],
            worker=1,
        ),
        mute=[2, *range(4, 30)],
        restarts={"memory": 3},
    )  # fmt: skip
    views = {
        "plain": VIEW,
        "paused": replace(VIEW, paused=True),
        "typing": replace(VIEW, typing=True, text="日" * 50),
        "helping": replace(VIEW, helping=True),
        "in trouble": replace(VIEW, trouble="the server has ended " * 5),
        "at the end": replace(VIEW, offset=10**9),
    }
    with Failures() as failures:
        for name, view in views.items():
            for found in (wide, parked_and_blocked(), instance(), {}):
                for width in (1, 2, 7, 39, 80, 81, 200):
                    for height in (1, 2, 3, 9, 24, 60):
                        with failures.of(f"{name}, {width}x{height}"):
                            lines = picture(found, view, width, height).lines
                            same(len(lines), height)
                            assert max(each.cell_len for each in lines) <= width


def test_a_picture_makes_text_of_what_it_shows_alone() -> None:
    """Of ten thousand requests those that fit: the others are only counted."""
    found = parked_and_blocked(10_000)
    lines = drawn(found)
    same(len(ids(lines)), 13)
    same(lines[22], "… 9,991 more")
    same(len(drawn(found, VIEW, 0, 0)), 2 + 6 + 1 + 10_004)


def test_narrow_terminals_lose_columns_before_paths() -> None:
    """Those of the least use first."""
    found = instance(snapshot([request(1)], []))
    with Failures() as failures:
        for width, headings in {
            80: ["ID", "AGE▼", "STATE", "WAITS", "FOR", "THREAD", "REQUEST", "CLIENT", "BYTES"],
            70: ["AGE▼", "STATE", "WAITS", "FOR", "THREAD", "REQUEST", "CLIENT", "BYTES"],
            55: ["AGE▼", "STATE", "WAITS", "FOR", "THREAD", "REQUEST"],
            36: ["AGE▼", "STATE", "REQUEST"],
        }.items():
            with failures.of(width):
                same(drawn(found, VIEW, width)[2].split(), headings)


def test_a_picture_names_workers_that_do_not_answer() -> None:
    """And has a line for each other, where there are several."""
    found = instance(
        *(snapshot([request(1, worker)], [thread("thread-1")], worker) for worker in (1, 2)),
        mute=[3],
    )
    lines = drawn(found, VIEW, 90)
    same(lines[2].split()[:3], ["WORKER", "PID", "UP"])
    same(lines[4].split()[:3], ["2", "4002", "1m30s"])
    same(lines[5].split(), ["3", "does", "not", "answer"])
    same(lines[7].split(), ["1", "thread-1", "idle", "0.50s", "0"])
    same(ids(lines), ["1-1", "2-1"])


def test_nothing_that_a_server_says_reaches_a_terminal_raw() -> None:
    """Even one that escapes nothing, that is of another version, or that is none."""
    evil = "\x1b]0;mine\x07\x9b31m\u202e\u200b\r\n\x00"
    everywhere = instance(
        snapshot(
            [dict.fromkeys(request(1), evil)],
            [thread(evil, evil, request=evil)],
        ),
        name=evil,
        version=evil,
        addresses=[evil],
    )
    everywhere["workers"][0]["counts"][evil] = 1
    odd = {
        "nothing": {},
        "other types": dict.fromkeys(instance(), 7),
        "no numbers": instance(
            snapshot(
                [request(1, total=None, sent="9", method=None)], [thread("thread-1", waiting={})]
            )
        ),
        "not finite": instance(
            snapshot([request(1, total=float("nan"), sent=float("inf"))], []), started=float("inf")
        ),
        "huge": instance(snapshot([request(1, total=1e300, sent=10**300)], [])),
        "negative": instance(snapshot([request(1, total=-1.0, sent=-5)], [])),
        "deep": instance(snapshot([], []), workers=[None, [], {"requests": [1], "threads": ["x"]}]),
    }
    with Failures() as failures:
        for name, found in {"escapes": everywhere, **odd}.items():
            for view in (VIEW, replace(VIEW, text=evil), replace(VIEW, text=evil, typing=True)):
                with failures.of(name):
                    lines = picture(found, view, 200, 24).lines
                    assert all(each.plain.isprintable() for each in lines)
    assert "\\x1b]0;mine\\x07\\x9b31m\\u202e\\u200b\\x0d\\x0a\\x00" in "".join(
        drawn(everywhere, VIEW, 900)
    )


def written(found: Picture, **variables: str) -> str:
    """Return what a terminal gets."""
    file = io.StringIO()
    console = Console(
        file=file, force_terminal=True, width=80, _environ={"TERM": "xterm-256color", **variables}
    )
    for line in found.lines:
        console.print(line)
    return file.getvalue()


def test_colours_are_the_terminals_own_and_can_be_turned_off() -> None:
    """So they fit a light background and a dark one. NO_COLOR leaves bold and the like."""
    found = picture(parked_and_blocked(), VIEW, 80, 24)
    coloured, plain = written(found), written(found, NO_COLOR="1")
    assert "\x1b[1;31m" in coloured
    assert not any(f"\x1b[{each}" in coloured for each in ("38", "48", "4", "10"))
    assert "\x1b[1m" in plain
    assert "31m" not in plain


ROWS = instance(
    snapshot(
        [
            request(1, sent=5, client="c", target="/b", waits_for="z", thread="thread-10"),
            request(2, sent=7, client="a", target="/c", waits_for="y", thread="thread-9"),
            request(30, sent=6, client="b", target="/a", waits_for="", state="running"),
        ],
        [],
    )
)


def test_keys_sort_by_each_column_and_back() -> None:
    """Once more turns the order round, and another column has its own again."""
    expected = {
        "a": ["0-30", "0-2", "0-1"],
        "s": ["0-30", "0-2", "0-1"],
        "b": ["0-2", "0-30", "0-1"],
        "w": ["0-30", "0-2", "0-1"],
        "t": ["0-30", "0-2", "0-1"],
        "u": ["0-30", "0-1", "0-2"],
        "c": ["0-2", "0-30", "0-1"],
        "i": ["0-1", "0-2", "0-30"],
    }
    with Failures() as failures:
        for key, order in expected.items():
            with failures.of(key):
                view = pressed(replace(VIEW, sort="CLIENT" if key != "c" else "AGE"), key, 9)
                same(ids(drawn(ROWS, view)), order)
                assert f"{view.sort}▼" in drawn(ROWS, view)[2]
                view = pressed(view, key, 9)
                # Of two that are equal the older is first, either way.
                same(
                    ids(drawn(ROWS, view))[-1 if key == "s" else 0], order[0 if key == "s" else -1]
                )
                assert f"{view.sort}▲" in drawn(ROWS, view)[2]
    same(ids(drawn(ROWS, pressed(replace(VIEW, backwards=True), "b", 9))), expected["b"])


def test_blocked_requests_come_first_by_state() -> None:
    """Their thread says that they block; they themselves are running."""
    found = parked_and_blocked(100, 2)
    same(ids(drawn(found, pressed(VIEW, "s", 9)))[:3], ["0-101", "0-102", "0-100"])


def test_a_filter_finds_a_text_in_any_column() -> None:
    """Capitals or not. Without it all are there again."""
    texts = {
        "/A": ["0-30"],
        "thread-9": ["0-2"],
        "WAIT": ["0-2", "0-1"],
        "nowhere": [],
        "0-3": ["0-30"],
    }
    with Failures() as failures:
        for text, found in texts.items():
            with failures.of(text):
                view = pressed(VIEW, "/", 9)
                for letter in text:
                    view = pressed(view, letter, 9)
                same((view.sort, view.over), ("AGE", False))
                same(ids(drawn(ROWS, view)), found)
                same(drawn(ROWS, view)[2], f"{len(found)} of 3 requests have “{text}” in them")
                view = pressed(view, "enter", 9)
                same((view.typing, ids(drawn(ROWS, view))), (False, found))
                same(ids(drawn(ROWS, pressed(view, "escape", 9))), ["0-30", "0-2", "0-1"])
    view = replace(VIEW, typing=True, text="ab")
    for key, text in {"backspace": "a", "ctrl-u": "", "up": "ab", "q": "abq"}.items():
        same(pressed(view, key, 9).text, text, key)
    same(pressed(view, "escape", 9), replace(view, typing=False, text=""))


def test_scrolling_ends_at_the_first_and_at_the_last() -> None:
    """The picture says where it has come to."""
    found = parked_and_blocked()
    steps = [
        ("up", 0, "… 991 more"),
        ("down", 1, "… 1 above, 990 more"),
        ("page down", 14, "… 14 above, 977 more"),
        ("G", 991, "… 991 above, 0 more"),
        ("down", 991, "… 991 above, 0 more"),
        ("page up", 978, "… 978 above, 13 more"),
        ("home", 0, "… 991 more"),
    ]
    view = VIEW
    with Failures() as failures:
        for key, offset, line in steps:
            with failures.of(key):
                shown = picture(found, pressed(view, key, 13), 80, 24)
                view = replace(pressed(view, key, 13), offset=shown.offset)
                same((shown.offset, shown.lines[22].plain), (offset, line))


def test_every_key_is_in_the_help() -> None:
    """With what it does; the requests come back with the same key."""
    helping = pressed(VIEW, "?", 9)
    lines = drawn(parked_and_blocked(), helping)
    with Failures() as failures:
        for key in KEYS:
            with failures.of(key.names):
                assert any(key.does in line and key.names[0] in line for line in lines)
    same(pressed(helping, "h", 9), VIEW)
    same(pressed(VIEW, "unknown", 9), VIEW)
    assert pressed(VIEW, " ", 9).paused
    assert pressed(VIEW, "q", 9).over


def test_keys_are_read_however_their_bytes_are_split() -> None:
    """An Escape by itself is a key when nothing follows; unknown sequences are none."""
    typed = "aé日😀/\r\x7f\x15\x1b[A\x1b[6~\x1bOF\x1b[1;5C\x1b[200~x".encode()
    expected = ["a", "é", "日", "😀", "/", "enter", "backspace", "ctrl-u", "up", "page down", "end"]
    expected.append("x")
    with Failures() as failures:
        for at in range(len(typed) + 1):
            with failures.of(at):
                first, rest = read_keys(typed[:at], final=False)
                then, rest = read_keys(rest + typed[at:], final=False)
                same((first + then, rest), (expected, b""))
        for data, keys in {
            b"\x1b": ["escape"],
            b"\x1b[": ["escape", "["],
            b"\x1bq": ["escape", "q"],
            b"\xc3": [],
            b"\xff\xfea": ["a"],
            b"\x00\x01\x07": [],
            b"\x1b[" + b"1" * 40: ["escape", "[", *"1" * 40],
        }.items():
            with failures.of(data):
                same(read_keys(data, final=True), (keys, b""))
    same(read_keys(b"\x1b", final=False), ([], b"\x1b"))


def test_times_and_sizes_are_short() -> None:
    """They fit their columns up to where nobody looks any more."""
    with Failures() as failures:
        for seconds, text in {
            -1: "0.00s", 0.004: "0.00s", 9.99: "9.99s", 9.996: "10.0s", 59.94: "59.9s",
            59.96: "1m00s", 3599.4: "59m59s", 3599.6: "1h00m", 86399: "23h59m", 86400: "1d00h",
            99 * 86400: "99d00h",
        }.items():  # fmt: skip
            with failures.of(seconds):
                same(age(seconds), text)
                assert len(text) <= 6
        for count, text in {
            0: "0", 999: "999", 1000: "1.0k", 9949: "9.9k", 9950: "10k", 999_499: "999k",
            999_500: "1.0M", 83_000_000: "83M", 10**12: "1.0T", 10**16: "10000T",
        }.items():  # fmt: skip
            with failures.of(count):
                same(size(count), text)
