"""Log lines: where they go, and that no client can break them."""

import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bide import Settings
from bide.errors import SettingError
from bide.lines import flush
from bide.logs import access, access_line, configure, escaped

LOG = logging.getLogger("bide")


@pytest.fixture(autouse=True)
def loggers() -> Iterator[None]:
    """Leave logging as it was."""
    kept: list[tuple[logging.Logger, dict[str, Any]]] = []
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
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} WARNING but this\n", err)


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
    assert re.fullmatch(r"a line \[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}\]\n", out)
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


def test_an_access_line_has_who_what_and_how() -> None:
    """Client, request, status, bytes and seconds."""
    line = access_line("192.0.2.1", "GET", "/a?b", "1.1", "200", 1234, 0.0567)
    assert line == '192.0.2.1 "GET /a?b HTTP/1.1" 200 1234 0.057s'


def test_an_access_line_has_dashes_for_what_there_is_not() -> None:
    """A Unix socket has no address; a client that left got no status."""
    assert access_line("", "GET", "/", "1.0", "-", 0, 1) == '- "GET / HTTP/1.0" - 0 1.000s'


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
    assert access_line("c", "GET", text, "1.1", "200", 0, 0).startswith(f'c "GET {safe} HTTP')


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
