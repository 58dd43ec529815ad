"""Log lines: where they go, and that no client can break them."""

import logging
import logging.config
import re
import threading
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import pytest

from bide import Settings
from bide.errors import SettingError
from bide.serving import loggers as loggers_module
from bide.serving.formatters import escaped
from bide.serving.lines import LINES, flush
from bide.serving.loggers import access
from bide.serving.logs import configure, say
from tests.failures import Failures
from tests.served import happened, until

LOG = loggers_module.log
STAMP = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}[+-]\d\d:\d\d"


@pytest.fixture(autouse=True)
def loggers() -> Iterator[None]:
    """Leave logging as it was."""
    kept: list[tuple[logging.Logger, dict[str, Any]]] = []
    logger: logging.Logger
    for logger in (LOG, access):
        state: dict[str, Any] = {
            "handlers": logger.handlers,
            "propagate": logger.propagate,
            "level": logger.level,
            "disabled": logger.disabled,
        }
        kept.append((logger, state))
    yield
    for logger, state in kept:
        for handler in logger.handlers:
            if handler not in state["handlers"]:
                handler.close()
        vars(logger).update(state)
        logger.setLevel(state["level"])


def test_the_log_goes_to_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    """With time and level, at the level of the settings."""
    configure(Settings(log_level="warning"))
    LOG.info("not this")
    LOG.warning("but %s", "this")
    flush()
    out, err = capsys.readouterr()
    assert out == ""
    assert re.fullmatch(rf"{STAMP} WARNING but this\n", err)


def test_configuring_twice_writes_each_line_once(capsys: pytest.CaptureFixture[str]) -> None:
    """The second one counts."""
    configure(Settings())
    configure(Settings())
    LOG.info("once")
    flush()
    assert capsys.readouterr().err.count("once") == 1


def test_the_servers_log_is_not_given_to_the_applications_handlers() -> None:
    """Else an application that configures logging would have each line twice."""
    configure(Settings())
    assert not LOG.propagate
    assert not access.propagate


def test_an_application_that_configures_logging_does_not_silence_the_server(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """As Django does, on import: ``dictConfig`` does this to all loggers that it does not name."""
    LOG.disabled = access.disabled = True
    configure(Settings(access_log="-"))
    LOG.error("seen")
    access.info("seen, too")
    flush()
    out, err = capsys.readouterr()
    assert "seen" in err
    assert "seen, too" in out


def test_without_an_access_log_nothing_is_made_of_a_request() -> None:
    """The server asks first, and spares itself the line."""
    configure(Settings())
    assert not access.isEnabledFor(logging.INFO)


def test_the_access_log_may_be_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    """``-``; the log's level does not silence it."""
    configure(Settings(access_log="-", log_level="error"))
    assert access.isEnabledFor(logging.INFO)
    access.info("a line")
    flush()
    out, err = capsys.readouterr()
    assert re.fullmatch(rf"a line \[{STAMP}\]\n", out)
    assert err == ""


def test_the_access_log_may_be_a_file(tmp_path: Path) -> None:
    """Which is added to."""
    path = tmp_path / "access.log"
    path.write_text("before\n")
    configure(Settings(access_log=str(path)))
    access.info("a line")
    flush()
    lines = path.read_text().splitlines()
    assert lines[0] == "before"
    assert lines[1].startswith("a line [")


def test_an_access_log_that_cannot_be_written_is_the_deployers_mistake(tmp_path: Path) -> None:
    """In one line that names it."""
    path = tmp_path / "no" / "such" / "directory.log"
    with pytest.raises(SettingError) as caught:
        configure(Settings(access_log=str(path)))
    assert str(caught.value) == f"cannot write the access log {path}: No such file or directory"


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        ("/plain?a=%20b", "/plain?a=%20b"),
        ('/"', "/\\x22"),
        ("/\\", "/\\x5c"),
        ("/\r\nGET", "/\\x0d\\x0aGET"),
        ("/\x1b[31m", "/\\x1b[31m"),
        ("/\x7f\x80\x9f", "/\\x7f\\x80\\x9f"),
        ("/\0", "/\\x00"),
        ("/\xe9", "/\xe9"),
    ],
)
def test_what_would_break_a_line_or_steer_a_terminal_is_escaped(text: str, safe: str) -> None:
    """And nothing else (CVE-2020-7694)."""
    assert escaped(text) == safe


def test_an_error_s_text_cannot_forge_a_line_or_steer_a_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """An application's error often quotes its client: ``ValueError(environ["PATH_INFO"])``."""
    configure(Settings())
    try:
        raise ValueError("\x1b[2J\x9b\n2026-11-25 10:00:00,000 INFO forged\r\n")
    except ValueError:
        logging.getLogger("bide").exception("the application failed: %s", "GET / of app")
    flush()
    err = capsys.readouterr().err
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", err)
    assert [line for line in err.splitlines() if re.match(r"\d{4}-", line)] == [err.splitlines()[0]]


def test_a_configuration_that_comes_later_does_not_silence_the_server(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """In a view, say, and of a server inside somebody's own program as well."""
    silencing: Any = {"version": 1, "disable_existing_loggers": True}
    root = logging.getLogger()
    handlers = list(root.handlers)
    try:
        logging.config.dictConfig(silencing)
        root.handlers = handlers
        LOG.error("seen by the program's handlers")
        assert caplog.messages == ["seen by the program's handlers"]
        configure(Settings(access_log="-"))
        logging.config.dictConfig(silencing)
        LOG.error("seen")
        access.info("seen, too")
        flush()
        out, err = capsys.readouterr()
        assert "ERROR seen" in err
        assert "seen, too" in out
    finally:
        root.handlers = handlers
        for name in logging.root.manager.loggerDict:
            logging.getLogger(name).disabled = False


class Kept(logging.Handler):
    """Somebody's own handler."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a line."""
        self.lines.append(record.getMessage())


def nothing() -> None:
    """Settle nothing."""


def test_handlers_that_somebody_has_added_stay_and_bides_own_is_not_added(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Whether they were there before, or came with the application."""
    with Failures() as failures:
        for early in (True, False):
            with failures.of(f"early: {early}"):
                theirs, accesses = Kept(), Kept()
                LOG.handlers, access.handlers = [], []
                settle = nothing if early else configure(Settings())
                LOG.addHandler(theirs)
                access.addHandler(accesses)
                LOG.propagate = access.propagate = False
                if early:
                    settle = configure(Settings())
                settle()
                settle()
                LOG.info("a line")
                access.info("a request")
                flush()
                assert theirs.lines == ["a line"]
                assert accesses.lines == ["a request"]
                assert capsys.readouterr() == ("", "")


def test_an_application_that_configures_bide_alone_leaves_the_access_log(tmp_path: Path) -> None:
    """``dictConfig`` resets what is below a logger that it names."""
    with Failures() as failures:
        for path in ("", str(tmp_path / "access.log")):
            with failures.of(path or "no access log"):
                theirs = Kept()
                settle = configure(Settings(access_log=path))
                LOG.handlers = [theirs]
                access.handlers, access.propagate = [], True
                access.setLevel(logging.NOTSET)
                settle()
                access.info("a request")
                flush()
                assert theirs.lines == []
                if path:
                    assert Path(path).read_text().startswith("a request [")


JSON = """{
    "formatters": {"short": {"format": "theirs: %(message)s"}},
    "handlers": {"file": {"class": "logging.FileHandler", "filename": "FILE",
                          "formatter": "short"}},
    "loggers": {"bide": {"handlers": ["file"], "level": "WARNING"},
                "bide.access": {"level": "INFO"}}
}"""
TOML = """
formatters.short.format = "theirs: %(message)s"
handlers.file = { class = "logging.FileHandler", filename = "FILE", formatter = "short" }
loggers.bide = { handlers = ["file"], level = "WARNING" }
loggers."bide.access" = { level = "INFO" }
"""
ROOT = """
handlers.file = { class = "logging.FileHandler", filename = "FILE" }
root.handlers = ["file"]
"""


def test_a_file_configures_logging(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In JSON or TOML; Bide adds nothing to it but the settings' level, where it has none."""
    root = logging.getLogger()
    handlers = list(root.handlers)
    with Failures() as failures:
        for name, text, lines in (
            ("a.json", JSON, ["theirs: a warning", "theirs: a request"]),
            ("a.toml", TOML, ["theirs: a warning", "theirs: a request"]),
            ("root.toml", ROOT, ["a line", "a warning"]),
        ):
            with failures.of(name):
                for logger in (LOG, access):
                    for each in logger.handlers:
                        each.close()
                    logger.handlers, logger.propagate = [], True
                    logger.setLevel(logging.NOTSET)
                where = tmp_path / f"{name}.log"
                (tmp_path / name).write_text(text.replace("FILE", str(where)))
                configure(Settings(log_config=str(tmp_path / name)))()
                LOG.info("a line")
                LOG.warning("a warning")
                access.info("a request")
                flush()
                # Each logger has a thread: only the lines of one keep their order.
                assert sorted(where.read_text().splitlines()) == sorted(lines)
                assert capsys.readouterr() == ("", "")
        for each in (*LOG.handlers, *access.handlers, *root.handlers):
            if each not in handlers:
                each.close()
        root.handlers = handlers


def test_a_wrong_log_configuration_is_the_deployers_mistake(tmp_path: Path) -> None:
    """In one line that names the file and what is wrong with it."""
    with Failures() as failures:
        for name, text, wanted in (
            ("no.json", None, "cannot read the log configuration PATH: No such file or directory"),
            ("a.json", "{", "the log configuration PATH is not JSON: "),
            ("a.toml", "a = \n", "the log configuration PATH is not TOML: "),
            ("b.json", "[]", "the log configuration PATH must be a table, as dictConfig takes it"),
            (
                "c.json",
                '{"handlers": {"x": {"class": "no.Such"}}}',
                "the log configuration PATH: Unable to configure handler 'x' (",
            ),
            ("d.json", '{"version": 7}', "the log configuration PATH: Unsupported version: 7"),
        ):
            with failures.of(name):
                path = tmp_path / name
                if text is not None:
                    path.write_text(text)
                with pytest.raises(SettingError) as caught:
                    configure(Settings(log_config=str(path)))
                message = str(caught.value).replace(str(path), "PATH")
                assert message.startswith(wanted)
                assert "\n" not in message


def test_a_handler_that_hangs_holds_up_nobody_and_what_is_dropped_is_counted() -> None:
    """Somebody's own; it has the lines in their order, with the context of whoever logged."""
    request: ContextVar[str] = ContextVar("request")
    begun, release = threading.Event(), threading.Event()
    lines: list[str] = []

    class Hanging(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            begun.set()
            happened(release)
            lines.append(f"{request.get('none')}: {record.getMessage()}")
            if record.getMessage() == "3":
                raise ValueError("of this line")

    LOG.handlers, LOG.propagate = [Hanging()], False
    configure(Settings())
    request.set("/a")
    LOG.info("first")
    happened(begun)  # else its thread takes more with the first
    for number in range(LINES + 7):
        LOG.info("%d", number)
    say(logging.INFO, "not even this thread")
    release.set()
    until(lambda: lines[-1:] and "dropped" in lines[-1])
    assert lines[:-1] == ["/a: first", *(f"/a: {number}" for number in range(LINES))]
    assert lines[-1].endswith(": lines of the logger bide were dropped, because it is too slow: 8")
