"""What ``bide top`` draws: lines of a terminal, from an instance and what the viewer looks at.

Pure: no terminal, no clock, no socket. Only what fits is made into text, however many requests
there are. Colours are the terminal's own, so they fit a light background and a dark one, and no
colour says what a word does not.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from rich.cells import cell_len
from rich.text import Text

from bide.seeing.top_keys import KEYS, View
from bide.seeing.top_rows import (
    STATES,
    Request,
    Thread,
    Worker,
    addresses,
    age,
    number,
    safe,
    size,
    threads_and_requests,
    workers,
)
from bide.seeing.top_table import Column, more, table

STYLES: Final = {
    "blocked": "bold red",
    "running": "green",
    "queued": "magenta",
    "idle": "dim",
}
"""How a state looks; the others are as the terminal writes."""
_URGENCY: Final = {"blocked": 0, "running": 1}


@dataclass(frozen=True, slots=True)
class Picture:
    """A screen.

    Attributes:
        lines: the lines, none wider than the terminal.
        offset: how many requests are above the first that is shown.
        page: how many requests there is room for.
    """

    lines: list[Text]
    offset: int = 0
    page: int = 1


def picture(instance: dict[str, Any], view: View, width: int, height: int) -> Picture:
    """Return what a terminal shows.

    Args:
        instance: what the server said of itself.
        view: what the viewer looks at.
        width: the terminal's columns.
        height: the terminal's lines. With 0 there is no terminal: all is shown, as wide as it is.
    """
    processes = workers(instance)
    threads, requests = threads_and_requests(instance)
    several = len(processes) > 1
    top = [_title(instance, view, width), _summary(instance, processes, requests, width)]
    last = [] if not height else [_last(view, width)]
    if view.trouble:
        top.append(Text(view.trouble, "bold red"))
    room = max(height - len(top) - len(last), 0) if height else len(requests) + len(threads) + 99
    if view.helping:
        page = [Text(f" {', '.join(k.names):<14}{k.does}") for k in KEYS][:room]
        page += [Text()] * (room - len(page) if height else 0)
        return Picture([_cut(each, width) for each in top + page + last][: height or None])
    middle: list[Text] = []
    if several and room > 8:
        middle += _processes(processes, width, room // 4 if height else room)
    if threads and room > 6:
        middle += _threads(threads, several, width, room // 3 if height else room)
    chosen = requests
    if view.text or view.typing:
        wanted = view.text.lower()
        chosen = [each for each in requests if each.has(wanted)]
        found = f"{len(chosen):,} of {len(requests):,} requests have “{safe(view.text)}” in them"
        middle.append(Text(found, "bold"))
    rows, offset, page_size = _requests(chosen, view, width, room - len(middle))
    lines = top + middle + rows
    if height:
        lines += [Text()] * (height - len(lines) - len(last))
        lines = [*lines[: max(height - len(last), 0)], *last][:height]
    return Picture([_cut(each, width) for each in lines], offset, page_size)


# The lines around the tables ----------------------------------------------------------------------


def _joined(parts: Iterable[str], width: int) -> Text:
    """Return as many parts as fit, the first ones."""
    line = ""
    for part in parts:
        longer = f"{line} · {part}" if line else part
        if line and width and cell_len(longer) > width:
            break
        line = longer
    return _cut(Text(line), width)


def _cut(text: Text, width: int) -> Text:
    if width and text.cell_len > width:
        text.truncate(width, overflow="ellipsis")
    return text


def _title(instance: dict[str, Any], view: View, width: int) -> Text:
    started = number(instance.get("started"))
    state = "  PAUSED" if view.paused else ""
    parts = [f"bide {safe(instance.get('name'))}".strip()]
    if started and view.now:
        parts.append(f"up {age(view.now - started)}")
    parts += [*addresses(instance), f"version {safe(instance.get('version'))}"]
    parts.insert(2, f"pid {number(instance.get('pid')):.0f}")
    title = _joined(parts, width - len(state) if width else 0)
    title.stylize("bold")
    return title.append(state, "bold reverse")


def _summary(
    instance: dict[str, Any], processes: list[Worker], requests: list[Request], width: int
) -> Text:
    def total(name: str) -> int:
        return sum(each.counts.get(name, 0) for each in processes)

    blocked = sum(each.state == "blocked" for each in requests)
    running = f"{total('running'):,} running"
    parts = [
        f"{running} ({blocked:,} blocked)" if blocked else running,
        f"{total('waiting'):,} waiting",
        f"{total('queued'):,} queued",
        f"{total('threads_busy'):,} of {total('threads_max'):,} threads busy",
        f"{total('connections'):,} connections",
    ]
    if any(each.counts.get("stopping") for each in processes):
        parts.insert(0, "stopping")
    refused = total("client_connections_refused") + total("client_requests_refused")
    restarts = instance.get("restarts")
    restarted = sum(map(number, restarts.values())) if isinstance(restarts, dict) else 0
    parts += [f"{refused:,} refused"] if refused else []
    parts += [f"{restarted:,.0f} restarts"] if restarted else []
    alone = [each for each in processes if not each.mute]
    if len(processes) == 1 and alone:
        parts += [f"loop late {alone[0].lag * 1000:.1f} ms", f"memory {size(alone[0].rss)}"]
    return _joined(parts, width)


def _last(view: View, width: int) -> Text:
    line = Text()
    if view.typing:
        line.append("filter: ").append(safe(view.text)).append(" ", "reverse")
        return line.append("  Enter: keep it, Esc: show all", "dim")
    for key in KEYS:
        if not key.label:
            continue
        if line.cell_len + len(key.names[0]) + len(key.label) + 3 > width:
            break
        line.append("  " if line else "").append(key.names[0], "bold").append(f" {key.label}")
    return line


# Processes and threads ----------------------------------------------------------------------------

_WORKER: Final[Sequence[Column[Worker]]] = (
    Column("WORKER", lambda it: f"{it.number}", 6, right=True),
    Column("PID", lambda it: f"{it.pid}" if it.pid else "", 7, right=True),
    Column("UP", lambda it: "" if it.mute else age(it.up), 6, right=True, weight=4),
    Column("RUN", lambda it: _count(it, "running"), 5, right=True),
    Column("WAIT", lambda it: _count(it, "waiting"), 6, right=True),
    Column("QUEUE", lambda it: _count(it, "queued"), 5, right=True),
    Column("BUSY", lambda it: _count(it, "threads_busy"), 4, right=True),
    Column("CONNS", lambda it: _count(it, "connections"), 6, right=True, weight=3),
    Column("LATE", lambda it: "" if it.mute else f"{it.lag * 1000:.1f}ms", 7, right=True, weight=2),
    Column("MEM", lambda it: "" if it.mute else size(it.rss), 5, right=True, weight=1),
    Column("", lambda it: "does not answer" if it.mute else "", 15),
)
_THREAD: Final[Sequence[Column[Thread]]] = (
    Column("WORKER", lambda it: f"{it.worker}", 6, right=True, weight=1),
    Column("THREAD", lambda it: it.name, 7),
    Column("STATE", lambda it: it.state, 7),
    Column("FOR", lambda it: age(it.since) if it.since else "", 6, right=True),
    Column("WAITING", lambda it: f"{it.waiting:,}", 7, right=True),
    Column("RUNS", lambda it: it.runs, 8, fill=True),
)


def _count(worker: Worker, name: str) -> str:
    return "" if worker.mute else f"{worker.counts.get(name, 0):,}"


def _processes(found: list[Worker], width: int, room: int) -> list[Text]:
    shown = found[: max(room - 1, 1)]
    if len(shown) < len(found):
        shown = found[: max(room - 2, 1)]
    columns = _WORKER if any(each.mute for each in shown) else _WORKER[:-1]
    lines = table(columns, shown, width, lambda it: "bold red" if it.mute else "")
    return lines + more(len(found) - len(shown), "workers")


def _threads(found: list[Thread], several: bool, width: int, room: int) -> list[Text]:
    columns = _THREAD if several else _THREAD[1:]
    fits = max(room - 1, 1)
    if fits < len(found):
        fits = max(room - 2, 1)
    # Those that need attention have the room; among themselves they keep their order.
    urgent = sorted(
        range(len(found)),
        key=lambda at: (_URGENCY.get(found[at].state, 2), -found[at].waiting, at),
    )
    shown = [found[at] for at in sorted(urgent[:fits])]
    lines = table(columns, shown, width, lambda it: STYLES.get(it.state, ""))
    return lines + more(len(found) - len(shown), "threads")


# Requests -----------------------------------------------------------------------------------------

_RANK: Final = {state: rank for rank, state in enumerate(STATES)}


def _number_last(name: str) -> tuple[str, int, str]:
    """Return what sorts thread-10 behind thread-9."""
    start, _, last = name.rpartition("-")
    return start, len(last), last


_REQUEST: Final[Sequence[Column[Request]]] = (
    Column("ID", lambda it: it.id, 6, weight=1, order=lambda it: _number_last(it.id)),
    Column("AGE", lambda it: age(it.age), 6, right=True, order=lambda it: -it.age),
    Column("STATE", lambda it: it.state, 7, order=lambda it: _RANK.get(it.state, 9)),
    Column("WAITS FOR", lambda it: it.waits_for, 10, share=2, weight=5),
    Column("THREAD", lambda it: it.thread, 6, weight=4, order=lambda it: _number_last(it.thread)),
    Column("REQUEST", lambda it: it.asked, 16, share=3, fill=True),
    Column("CLIENT", lambda it: it.client, 9, share=2, weight=3),
    Column("BYTES", lambda it: size(it.sent), 5, right=True, weight=2, order=lambda it: -it.sent),
)


def _requests(
    found: list[Request], view: View, width: int, room: int
) -> tuple[list[Text], int, int]:
    """Return the lines, the offset that is shown, and how many requests a page has."""
    column = next(each for each in _REQUEST if each.heading == view.sort)
    order = column.order or column.text
    found = sorted(found, key=lambda each: -each.age)
    # The oldest are first among equals, either way.
    found.sort(key=order, reverse=view.backwards)
    page = max(room - 1, 1)
    if len(found) > page:
        page = max(room - 2, 1)
    offset = max(0, min(view.offset, len(found) - page))
    shown = found[offset : offset + page]
    mark = (column.heading, "▲" if view.backwards else "▼")
    lines = table(_REQUEST, shown, width, lambda it: STYLES.get(it.state, ""), mark)
    if not found:
        lines.append(Text("none has it" if view.text else "no requests", "dim"))
    below = len(found) - offset - len(shown)
    if offset:
        lines.append(Text(f"… {offset:,} above, {below:,} more", "dim"))
    else:
        lines += more(below, "")
    return lines, offset, page
