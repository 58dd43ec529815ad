"""The tree of exceptions is the one that is drawn, and each derives from what its users catch."""

import ast
import asyncio
import re
from pathlib import Path

import pytest

import bide
from bide import errors


def drawn() -> dict[str, str]:
    """Read each exception's parent from the drawing in the module's docstring."""
    parents: dict[str, str] = {}
    above: list[tuple[int, str]] = []
    for line in (errors.__doc__ or "").splitlines():
        match = re.match(r"([ │├└─]*)([A-Z]\w+)\b", line)
        if match is None or not line.startswith("    "):
            continue
        depth = len(match[1])
        while above and above[-1][0] >= depth:
            above.pop()
        if above:
            parents[match[2]] = above[-1][1]
        above.append((depth, match[2]))
    return parents


def test_the_drawing_shows_every_exception_below_its_parent() -> None:
    """A new exception has to be drawn."""
    defined = {
        name: kind.__mro__[1].__name__
        for name, kind in vars(errors).items()
        if isinstance(kind, type) and kind.__module__ == errors.__name__
    }
    assert drawn() == defined


def test_the_module_imports_nothing_of_bide() -> None:
    """So that everything else may import it."""
    tree = ast.parse(Path(errors.__file__).read_text(encoding="utf-8"))
    imported = [node for node in ast.walk(tree) if isinstance(node, (ast.Import, ast.ImportFrom))]
    assert [node.module for node in imported if isinstance(node, ast.ImportFrom)] == ["__future__"]
    assert not any(isinstance(node, ast.Import) for node in imported)


@pytest.mark.parametrize("kind", [errors.ClientDisconnected, errors.ServerStopping])
def test_cancellations_pass_except_exception(kind: type[errors.Cancelled]) -> None:
    """As asyncio's own does, and for the same reason."""
    assert issubclass(kind, errors.Cancelled)
    assert not issubclass(kind, Exception)
    assert not issubclass(asyncio.CancelledError, Exception)


def test_a_remote_error_has_the_status_to_answer_with() -> None:
    """400 where none is given."""
    assert errors.RemoteProtocolError("no").status == 400
    error = errors.RemoteProtocolError("too long", 414)
    assert error.status == 414
    assert str(error) == "too long"


def test_errors_can_be_caught_as_what_they_are_elsewhere() -> None:
    """A wait where none is possible is a RuntimeError; a write that would block is blocking."""
    assert issubclass(errors.WaitError, RuntimeError)
    assert issubclass(errors.WriteWouldBlock, BlockingIOError)


def test_errors_of_the_start_can_be_imported_from_the_package() -> None:
    """The docstrings of ``Server`` and ``wait`` name them, so a program may catch each by name."""
    with pytest.raises(bide.SettingError, match="threads is 0"):
        bide.Settings(threads=0)
    with pytest.raises(bide.LoadError, match="there is no module"):
        bide.Server("no_such_module:app", bind="127.0.0.1:0")
    assert issubclass(bide.BindError, bide.StartError)
    assert issubclass(bide.ThreadEnded, bide.Cancelled)
