"""``bide top``: what a server does, live, in a terminal.

It asks the server's control socket, and never imports an application. Rich, which it draws with,
is an extra, and loaded here alone.
"""

from __future__ import annotations

import os
import sys
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import click

from bide.errors import ControlError
from bide.seeing.client import NAMED, find, watch

if TYPE_CHECKING:
    from bide.seeing.top_news import News
    from bide.seeing.top_terminal import Terminal

NEEDED: Final = "bide top needs Rich, which is not installed: pip install 'bide[top]'"
GONE: Final = "the server has ended; waiting for it to come back (q: leave)"
SECONDS: Final = 1.0


def _top(server: str, interval: float) -> int:
    try:
        import rich.console  # noqa: F401 - an extra, which only this command needs
    except ImportError:
        raise ControlError(NEEDED) from None
    path = find(server)
    instance = next(watch(path, interval), None)
    if instance is None:
        raise ControlError(f"the server at {path} has ended")
    if "error" in instance:
        raise ControlError(str(instance["error"]))
    dumb = os.environ.get("TERM", "") in ("", "dumb", "unknown")
    if dumb or not (sys.stdin.isatty() and sys.stdout.isatty()):
        return _print(instance)
    return _show(instance, path, interval)


def _print(instance: dict[str, Any]) -> int:
    """Print everything once."""
    from bide.seeing.top_keys import View
    from bide.seeing.top_picture import picture

    lines = picture(instance, View(now=time.time()), 0, 0).lines
    text = "".join(f"{line.plain.rstrip()}\n" for line in lines)
    encoding = sys.stdout.encoding or "utf-8"
    try:
        sys.stdout.write(text.encode(encoding, "replace").decode(encoding))
        sys.stdout.flush()
    except BrokenPipeError:  # as of `bide top | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _show(instance: dict[str, Any], path: str, interval: float) -> int:
    """Draw, until a key or a signal ends it. The terminal is put back whatever happens."""
    from bide.seeing.top_news import News
    from bide.seeing.top_terminal import Terminal

    with Terminal(sys.stdin, sys.stdout) as terminal:
        news = News(lambda: watch(path, interval), terminal.wake)
        news.begin()
        try:
            _follow(terminal, news, instance)
        finally:
            news.end()
    return 0


def _follow(terminal: Terminal, news: News, instance: dict[str, Any]) -> None:
    from bide.seeing.top_keys import View, pressed
    from bide.seeing.top_picture import picture

    view = View(now=time.time())
    while not (view.over or terminal.over):
        width, height = terminal.size()
        drawn = picture(instance, view, width, height)
        view = replace(view, offset=drawn.offset)
        terminal.draw(drawn.lines, width, height)
        for name in terminal.wait():
            view = pressed(view, name, drawn.page)
        if news.failed is not None:
            raise news.failed
        if not view.paused:
            newest = news.take()
            if newest is not None:
                instance, view = newest, replace(view, now=time.time())
        view = replace(view, trouble=GONE if news.gone else "")


command: Final = click.Command(
    "top",
    callback=_top,
    help="Show the workers, threads and requests of a server, live. Press ? for the keys. "
    "Without a terminal, print them once.",
    epilog=NAMED,
    params=[
        click.Argument(["server"], metavar="[NAME|PATH]", default=""),
        click.Option(
            ["--interval"],
            metavar="SECONDS",
            type=click.FloatRange(0.1, 3600),
            default=SECONDS,
            help="Seconds between two updates.  [default: 1]",
        ),
    ],
    context_settings={"help_option_names": ["-h", "--help"]},
)
