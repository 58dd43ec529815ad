"""The tables of samples are read exactly, and what is written wrongly is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.failures import Failures, same
from tests.samples import tables
from tests.samples.tables import Expected, Sample, unescape

GOOD = r"""
[accept.get]
note = "As plain as can be"
bytes = '''
GET /a?b HTTP/1.1\r\n
Host: \(3 * a)\r\n
\r\n
'''
[[accept.get.requests]]
line = 'GET /a?b HTTP/1.1'
headers = ['Host: aaa']
"""


def load(folder: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> tuple[Sample, ...]:
    """Load a table."""
    (folder / "table.toml").write_text(text)
    monkeypatch.setattr(tables, "TABLES", folder)
    return tables.samples.__wrapped__()


def test_bytes_are_what_is_written() -> None:
    """Line ends are layout, all else is a byte or an escape."""
    with Failures() as failures:
        for text, data in [
            ("", b""),
            ("GET /\\r\\n\nHost: a\\r\\n\n", b"GET /\r\nHost: a\r\n"),
            (" folded\\t\n", b" folded\t"),
            ("\\x00\\x7f\\xff\\x20\n", b"\x00\x7f\xff "),
            ("\\\\r\\\\x00", b"\\r\\x00"),
            ("a\\(3 * b)c", b"abbbc"),
            ("\\(2 * X: y\\r\\n)", b"X: y\r\nX: y\r\n"),
            ("\\(2 * \\x28)0", b"((0"),
            ("\\(2 *  )0", b"  0"),
            ("(2 * a)", b"(2 * a)"),
            ("'\"#", b"'\"#"),
        ]:
            with failures.of(repr(text)):
                same(unescape(text), data)


def test_what_might_be_read_in_two_ways_is_refused() -> None:
    """An escape that is none, what an editor may change, a letter with several encodings."""
    with Failures() as failures:
        for text in [
            "\\",
            "\\q",
            "\\0",
            "\\x0",
            "\\xFF",
            "\\(a)",
            "\\(3 * )",
            "\\(3 * (a))",
            "\\(3 * \\(2 * a))",
            "a \nb",
            "a ",
            "\t",
            "\r\n",
            "\x7f",
            "é",
        ]:
            with failures.of(repr(text)), pytest.raises(ValueError, match=r"escape|\\x20"):
                unescape(text)


def test_a_sample_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is usual need not be stated."""
    (sample,) = load(tmp_path, GOOD, monkeypatch)
    host = ((b"Host", b"aaa"),)
    request = Expected("GET", b"/a?b", b"/a", b"b", "1.1", host, b"", True)
    assert str(sample) == "accept.get"
    assert sample.data == b"GET /a?b HTTP/1.1\r\nHost: aaa\r\n\r\n"
    assert sample.requests == (request,)


def test_a_table_that_is_wrong_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a sample would be left out, or would expect too little."""
    refused = "[reject.bad]\nnote = ''\nbytes = 'a'\n"
    with Failures() as failures:
        for wrong in [
            GOOD.replace("note =", "notes ="),
            GOOD.replace("headers =", "header ="),
            GOOD.replace("Host: aaa", "Host:aaa"),
            GOOD.replace("[accept.get]", "[accepted.get]"),
            GOOD.partition("[[")[0],
            refused,
            f"{refused}status = 400\nwhere = 'tail'\n",
            f"{refused}status = 400\nrequests = []\n",
            f"{refused}status = 400\nanswer = 'x'\n",
        ]:
            with failures.of(wrong), pytest.raises((KeyError, ValueError)):
                load(tmp_path, wrong, monkeypatch)
    (tmp_path / "again.toml").write_text(GOOD)
    with pytest.raises(ValueError, match=r"there are two accept\.get"):
        load(tmp_path, GOOD, monkeypatch)
