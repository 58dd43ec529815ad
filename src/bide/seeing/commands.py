"""The commands that look at a server, or tell it what to do: ``bide status`` and others.

Each finds the server by its name, or by the path of its control socket. Where there is only one,
it need not be named.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any, Final

import click

from bide.errors import ControlError, UsageError
from bide.seeing.client import NAMED, ask, find
from bide.seeing.top import command as top

SERVER: Final = "[NAME|PATH]"
_ID: Final = re.compile(r"\d+-\d+")
_CHANGE: Final = re.compile(r"[+-]?\d{1,3}")


def _asked(server: str, *words: str) -> dict[str, Any]:
    """Return a server's answer.

    Raises:
        ControlError: it does not answer, or says why it cannot do that.
    """
    answer = ask(find(server), *words)
    if "error" in answer:
        raise ControlError(answer["error"])
    return answer


def _status(server: str) -> None:
    """Print what the server does, as JSON: its workers, their threads, each request."""
    click.echo(json.dumps(_asked(server, "status"), indent=2))


def _stacks(server: str, identity: str = "") -> None:
    """Print the stacks of the server's threads, and of requests that wait.

    With the ID of a request, from bide status: only the stack of that request.
    """
    told = _asked(server, "stacks", *([identity] if identity else []))
    several = len(told["workers"]) > 1
    found = False
    for worker in told["workers"]:
        of = f" of worker {worker['worker']}" if several else ""
        for each in worker["threads"]:
            request = f", in request {each['request']}" if each["request"] else ""
            if each["stack"] or request:
                found |= _show(f"{each['name']}{of}{request}", each["stack"])
        for each in worker["requests"]:
            waits = f" for {each['waits_for']}" if each["waits_for"] else ""
            thread = f", on {each['thread']}" if each["thread"] else ""
            what = f"{each['method']} {each['target']}"
            title = f"request {each['id']} {what}: {each['state']}{waits}{thread}"
            found |= _show(title, each["stack"])
        for each in worker["tasks"]:
            found |= _show(f"task {each['name']}{of}", each["stack"])
    for number in told["mute"]:
        click.echo(f"worker {number} does not answer")
    if identity and not found:
        raise ControlError(f"there is no request {identity} in progress")
    if not found:
        click.echo("no code of the application runs, and no request waits")


def _show(title: str, stack: list[str]) -> bool:
    click.echo(f"{title}:" if stack else f"{title} (no code of the application)")
    for line in stack:
        click.echo(line)
    return True


def _reload(server: str) -> None:
    """Replace the workers, one after the other, as SIGHUP does: with the application's new code."""
    click.echo(_asked(server, "reload")["done"])


def _stop(server: str) -> None:
    """Stop the server, as SIGTERM does: requests in progress are finished."""
    click.echo(_asked(server, "stop")["done"])


def _workers(server: str, change: str) -> None:
    """Change the number of workers: one more (+1), one fewer (-1), or a number."""
    if not _CHANGE.fullmatch(change):
        raise UsageError(f"CHANGE is {change!r}: it must be +1, -1 or a number")
    click.echo(_asked(server, "workers", change)["done"])


def _made(name: str, call: Callable[..., None], what: str = "") -> click.Command:
    needed = bool(what) and not what.startswith("[")
    form = f"{SERVER} {what}".strip()

    @click.pass_context
    def callback(context: click.Context, words: tuple[str, ...]) -> None:
        given = bool(words) and bool(what) and bool(needed or _ID.fullmatch(words[-1]))
        servers = words[:-1] if given else words
        if len(servers) > 1 or (needed and not given):
            raise click.UsageError(f"write: {context.command_path} {form}")
        call(servers[0] if servers else "", *words[len(servers) :])

    return click.Command(
        name,
        callback=callback,
        help=call.__doc__,
        epilog=NAMED,
        params=[click.Argument(["words"], metavar=form, nargs=-1)],
        context_settings={
            "help_option_names": ["-h", "--help"],
            "ignore_unknown_options": needed,  # -1 is none
        },
    )


COMMANDS: Final = {
    each.name: each
    for each in (
        top,
        _made("status", _status),
        _made("stacks", _stacks, "[ID]"),
        _made("reload", _reload),
        _made("stop", _stop),
        _made("workers", _workers, "CHANGE"),
    )
}
"""The commands by name; each is called with the arguments behind its name."""
