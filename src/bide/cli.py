"""The command line: ``bide MODULE:NAME``. A user's mistake is answered with one line and code 2.

Nothing of the server is loaded here before it is started: ``bide --help`` is quick, and on a system
where no server can run it says so.
"""

from __future__ import annotations

import dataclasses
import importlib
import os
import sys
import traceback
from typing import Any, Final

import click

from bide import __version__
from bide.configuration import FILE, PROJECT, Configuration
from bide.environment import CONFIG, FIELDS, flag, variable
from bide.errors import SettingError, StartError, UsageError
from bide.habits import equivalent
from bide.monitoring import OFF
from bide.settings import DEFAULT_ADDRESS
from bide.systems import has_servers, refuse_windows

COMMANDS: Final = {
    "top": "Show a server's workers, threads and requests, live.",
    "status": "Print what a server does, as JSON.",
    "stacks": "Print the stacks of a server's threads and waiting requests.",
    "reload": "Replace a server's workers, one after the other.",
    "stop": "Stop a server.",
    "workers": "Change the number of workers: bide workers +1.",
}
"""What stands in the place of an application; one of that name is written with its colon."""
USAGE_ERROR = 2
START_ERROR = 1
_LISTED = "(bide --help lists the options)"
_TOLD_AT_ONCE: Final = (["--help"], ["-h"], ["--version"])
"""Arguments with which no thread and no process is started."""


def _option(setting: dataclasses.Field[Any]) -> click.Option:
    metadata = setting.metadata
    switch = isinstance(setting.default, bool)
    off = f"/--no-{flag(setting.name)[2:]}" if switch else ""
    short = [f"-{metadata['short']}"] if metadata["short"] else []
    return click.Option(
        [flag(setting.name) + off, *short],
        metavar=metadata["metavar"] or (None if switch else f"[{'|'.join(metadata['choices'])}]"),
        multiple=isinstance(setting.default, tuple),
        is_flag=switch,
        default=None,  # Configuration knows what else may give a value, and reads texts
        help=metadata["help"] + _default(setting.default),
    )


def _default(default: Any) -> str:
    """Return what the help says of a setting's default."""
    if default in ("", ()) or default is False:
        return ""
    if isinstance(default, tuple):
        default = " ".join(default)
    return f"  [default: {default:g}]" if isinstance(default, float) else f"  [default: {default}]"


class _Command(click.Command):
    """A command whose help lists the options under the headings of the settings' groups."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options."""
        groups = {flag(name): each.metadata["group"] for name, each in FIELDS.items()}
        sections: dict[str, list[tuple[str, str]]] = {}
        for each in self.get_params(ctx):
            record = each.get_help_record(ctx)
            if isinstance(each, click.Option) and record is not None:
                sections.setdefault(groups.get(each.opts[0], "Other"), []).append(record)
        for heading, records in sections.items():
            with formatter.section(heading):
                formatter.write_dl(records)
        with formatter.section("Commands for a running server (see bide COMMAND --help)"):
            formatter.write_dl([(f"bide {name}", what) for name, what in COMMANDS.items()])


def _run(
    app: tuple[str, ...],
    config: str | None,
    host: str | None,
    port: int | None,
    check: bool,
    print_settings: bool,
    reload: bool,
    reload_include: tuple[str, ...],
    explain: bool,
    no_control: bool,
    **options: Any,
) -> int:
    if no_control:
        if options["control"] is not None:
            raise click.UsageError("give either --control, or --no-control")
        options["control"] = OFF
    if host is not None or port is not None:
        if options["bind"]:
            raise click.UsageError("give either --bind, or --host and --port")
        from bide.transports.addresses import Address, is_ipv6, parse_address

        if ":" in (host or "") and not is_ipv6(host or ""):
            raise click.UsageError(
                f"--host is {host!r}: write a host alone, and --port for the port"
            )
        usual = parse_address(DEFAULT_ADDRESS)
        options["bind"] = (str(Address(host or usual.host, usual.port if port is None else port)),)
    configuration = Configuration()
    configuration.take_options(options)
    configuration.take_environment(os.environ)
    configuration.take_file(config or os.environ.get(CONFIG, ""))
    if print_settings:
        for line in configuration.lines():
            click.echo(line)
        return 0
    settings = None if check else configuration.settings()
    if settings is not None and not app:
        raise click.UsageError("Missing argument 'APP'.")
    refuse_windows()
    # The server: most of the time that a start takes.
    from bide.starting import StopHeard, start

    watched = reload_include if reload else None
    try:
        if settings is None:
            return _check(configuration, app)
        for line in start(app, settings, explain=explain, watched=watched):
            click.echo(line)
    except SettingError as error:  # found by what uses the setting
        raise configuration.named(error) from error
    except StopHeard as stop:
        _complain(str(stop), 0)
    return 0


def _check(configuration: Configuration, app: tuple[str, ...]) -> int:
    """Print all that is wrong, a line each; return the exit code."""
    from bide.starting import check_application

    settings, wrong = configuration.checked()
    found = [*wrong, *check_application(app, settings)]
    for each in {str(each): each for each in found}.values():  # two may have found the same
        if isinstance(each, StartError):
            _show(configuration.named(each))
        else:
            click.echo(each)
    return int(any(isinstance(each, StartError) for each in found))


def _version(context: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted:
        from bide.native import FORM

        click.echo(f"bide {__version__} ({FORM})")
        context.exit()


command = _Command(
    "bide",
    callback=_run,
    help=(
        "Serve the WSGI or ASGI application APP, which is MODULE:NAME, for example myapp:app. NAME "
        "may be dotted, or a call of a factory, such as 'myapp:create_app()'. Without NAME, app or "
        "application is used. To serve several, give each a path: bide /=shop:app /live=live:app."
    ),
    epilog=(
        f"Each setting can also be a variable in the environment: {flag('queue_timeout')} is "
        f"{variable('queue_timeout')}. Or it can be a line of the file {FILE} in the current "
        f"directory, or of [tool.bide] in {PROJECT}: queue-timeout = 10. The command line "
        "overrides the environment, and the environment overrides the file."
    ),
    params=[
        click.Argument(["app"], metavar="APP...", nargs=-1),
        *map(_option, FIELDS.values()),
        click.Option(["--host"], metavar="HOST", help="The host of --bind HOST:PORT."),
        click.Option(["--port"], metavar="PORT", type=int, help="The port of --bind HOST:PORT."),
        click.Option(
            ["--no-control"],
            is_flag=True,
            help="Use no control socket; the same as --control off.",
        ),
        click.Option(
            ["--config", "-c"],
            metavar="FILE",
            help=f"Read the settings in this file instead of {FILE} or {PROJECT}.",
        ),
        click.Option(
            ["--check"],
            is_flag=True,
            help="Import the application, report all errors, and exit with 0 or 1.",
        ),
        click.Option(
            ["--print-settings"],
            is_flag=True,
            help="Print all settings, each with where it comes from; then exit.",
        ),
        click.Option(
            ["--reload"],
            is_flag=True,
            help="For development: restart the server when Python code or a template in the "
            "current directory changes.",
        ),
        click.Option(
            ["--reload-include"],
            metavar="PATTERN",
            multiple=True,
            help="With --reload: watch files with this name, too, such as '*.css', or a directory. "
            "May be repeated.",
        ),
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
            help="Print the version, and whether it is compiled; then exit.",
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
        arguments = sys.argv[1:]
        if arguments not in _TOLD_AT_ONCE and has_servers():
            from bide.process.leaving import leave

            leave(lambda: main(sys.argv[1:]))
    try:
        code = _run_command(arguments)
    except click.exceptions.Abort:
        sys.exit(130)
    except click.NoSuchOption as error:
        known = {option for each in command.params for option in each.opts}
        said = equivalent(error.option_name, known) or f"{error.format_message()} {_LISTED}"
        _complain(said, USAGE_ERROR)
    except click.ClickException as error:
        _complain(f"{error.format_message()} {_LISTED}", USAGE_ERROR)
    except StartError as error:
        _show(error)
        sys.exit(USAGE_ERROR if isinstance(error, UsageError) else START_ERROR)
    sys.exit(code if isinstance(code, int) else 0)


def _run_command(arguments: list[str]) -> Any:
    if not arguments or arguments[0] not in COMMANDS:
        return command.main(arguments, prog_name="bide", standalone_mode=False)
    refuse_windows()
    # Here, since a server does not need it.
    from bide.seeing import commands

    name, *rest = arguments
    return commands.COMMANDS[name].main(rest, prog_name=f"bide {name}", standalone_mode=False)


def _complain(message: str, code: int) -> None:
    _say(message)
    sys.exit(code)


def _say(message: str) -> None:
    line = " ".join(message.split())  # an application's error may have several
    click.echo(f"bide: {line}", err=True)


def _show(error: StartError) -> None:
    """Print an error: one line, below the frames of the user's own code if that has failed."""
    from bide.applications.loading import ApplicationFailed

    if isinstance(error, ApplicationFailed):
        _show_users_frames(error.__cause__)
    _say(str(error))


def _show_users_frames(error: BaseException | None) -> None:
    """Print a traceback from where the user's own code begins."""
    if error is None:
        return
    frames = traceback.extract_tb(error.__traceback__)
    ours = ("<frozen importlib", os.path.dirname(__file__), os.path.dirname(importlib.__file__))
    users = [frame for frame in frames if not frame.filename.startswith(ours)]
    lines = traceback.format_list(users)
    if isinstance(error, SyntaxError):  # it is in no frame: where it is, and the caret
        lines += traceback.format_exception_only(error)[:-1]
    if lines:
        click.echo("".join(lines).rstrip(), err=True)
