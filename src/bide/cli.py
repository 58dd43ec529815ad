"""The command line: ``bide MODULE:NAME``. A user's mistake is answered with one line and code 2."""

from __future__ import annotations

import dataclasses
import importlib
import os
import sys
import traceback
from typing import Any

import click

from bide import __version__
from bide.applications.loading import ApplicationFailed, load
from bide.applications.patched import refuse_patched
from bide.errors import StartError
from bide.forks import end_child
from bide.process.leaving import leave
from bide.process.signals import Signals, StopHeard
from bide.process.worker import open_loop, run_on
from bide.serving.logs import configure
from bide.serving.server import Server
from bide.settings import Settings, flag, variable

USAGE_ERROR = 2
START_ERROR = 1


def _options() -> list[click.Option]:
    return [_option(each) for each in dataclasses.fields(Settings)]


def _option(setting: dataclasses.Field[Any]) -> click.Option:
    metadata = setting.metadata
    default: Any = setting.default
    several = isinstance(default, tuple)
    kind: Any = str
    if metadata["choices"]:
        kind = click.Choice(metadata["choices"])
    elif isinstance(default, (int, float)):
        kind = type(default)
    return click.Option(
        [flag(setting.name)],
        type=kind,
        metavar=metadata["metavar"] or None,
        multiple=several,
        default=default,
        help=metadata["help"] + _default(default),
        envvar=variable(setting.name),
    )


def _default(default: Any) -> str:
    """Return what the help says of a setting's default."""
    if default == "":
        return ""
    if isinstance(default, tuple):
        default = " ".join(default)
    return f"  [default: {default:g}]" if isinstance(default, float) else f"  [default: {default}]"


class _Command(click.Command):
    """A command whose help lists the options under the headings of the settings' groups."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options."""
        groups = {flag(each.name): each.metadata["group"] for each in dataclasses.fields(Settings)}
        sections: dict[str, list[tuple[str, str]]] = {}
        for each in self.get_params(ctx):
            record = each.get_help_record(ctx)
            if isinstance(each, click.Option) and record is not None:
                sections.setdefault(groups.get(each.opts[0], "Other"), []).append(record)
        for heading, records in sections.items():
            with formatter.section(heading):
                formatter.write_dl(records)


def _serve(app: str, explain: bool, **options: Any) -> None:
    settings = Settings(**options)
    with Signals() as signals:
        _serve_until(signals, app, explain, settings)


def _loaded(app: str, signals: Signals) -> Any:
    """Import the application. A child that it forks while it is imported ends here."""
    process = os.getpid()
    try:
        with signals.ending(f"{app} was imported"):
            application = load(app)
    except ApplicationFailed as error:
        if os.getpid() != process:
            end_child(error.__cause__)
        raise
    if os.getpid() != process:
        end_child()
    return application


def _serve_until(signals: Signals, app: str, explain: bool, settings: Settings) -> None:
    loop = open_loop(settings)  # first: the application may import Twisted's reactor
    try:
        settle = None if explain else configure(settings)
        application = _loaded(app, signals)
        refuse_patched()
        if settle is not None:
            settle()
    except BaseException:
        loop.close()
        raise
    if explain:
        loop.close()
        decision = Server(application, settings, name=app).dispatcher.decision
        where = {
            "loop": "on the event loop",
            "threads": f"in threads, up to {settings.threads}",
            "serial": "one request at a time, on a thread of its own",
        }[decision.executor]
        click.echo(f"/  {app} runs {where}: {decision.reason}")
        return
    run_on(loop, application, settings, app, signals)


def _version(context: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted:
        click.echo(f"bide {__version__}")
        context.exit()


command = _Command(
    "bide",
    callback=_serve,
    help=(
        "Serve the WSGI application APP, which is MODULE:NAME, for example myapp:app. NAME may "
        "be dotted, or a call of a factory, as in 'myapp:create_app()'; without it, app or "
        "application is taken. The current directory is importable."
    ),
    epilog=(
        f"Each of the settings can be a variable in the environment: {flag('queue_timeout')} is "
        f"{variable('queue_timeout')}."
    ),
    params=[
        click.Argument(["app"], metavar="APP"),
        *_options(),
        click.Option(
            ["--explain"],
            is_flag=True,
            help="Say how the application would be run, and why; then exit.",
        ),
        click.Option(
            ["--version"],
            is_flag=True,
            is_eager=True,
            expose_value=False,
            callback=_version,
            help="Print the version; then exit.",
        ),
    ],
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line. It ends by ``SystemExit`` with an exit code.

    Without ``arguments`` the program's own are taken, and the process ends in bounded time,
    whatever its threads do.
    """
    if arguments is None:
        leave(lambda: main(sys.argv[1:]))
    try:
        code = command.main(arguments, prog_name="bide", standalone_mode=False)
    except click.exceptions.Abort:
        sys.exit(130)
    except click.ClickException as error:
        _complain(f"{error.format_message()} (bide --help lists the options)", USAGE_ERROR)
    except ApplicationFailed as error:
        _show_users_frames(error.__cause__)
        _complain(str(error), START_ERROR)
    except StartError as error:
        _complain(str(error), START_ERROR)
    except StopHeard as stop:
        _complain(str(stop), 0)
    sys.exit(code if isinstance(code, int) else 0)


def _complain(message: str, code: int) -> None:
    line = " ".join(message.split())  # an application's error may have several
    click.echo(f"bide: {line}", err=True)
    sys.exit(code)


def _show_users_frames(error: BaseException | None) -> None:
    """Print a traceback from where the user's own code begins."""
    if error is None:
        return
    frames = traceback.extract_tb(error.__traceback__)
    ours = ("<frozen importlib", os.path.dirname(__file__), os.path.dirname(importlib.__file__))
    users = [frame for frame in frames if not frame.filename.startswith(ours)]
    if users:
        click.echo("".join(traceback.format_list(users)).rstrip(), err=True)
