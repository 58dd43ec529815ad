"""How an application is called."""

import sys
from collections.abc import Callable
from typing import Any

from bide.wsgi.site import without_slot


class Counting:
    """An application with a state, as an object of a framework."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        """Count the call."""
        self.calls += 1
        return [environ, start_response, sys._getframe(1).f_code.co_name]


def test_an_object_is_called_with_all_and_by_what_its_class_has_now() -> None:
    """Monitoring replaces ``__call__`` of a framework's class, perhaps when the server runs."""
    counting = Counting()
    call = without_slot(counting)
    environ, start_response = {"a": "b"}, print
    assert call(environ, start_response)[:2] == [environ, start_response]
    before = Counting.__call__
    try:
        Counting.__call__ = lambda self, *_: f"replaced, after {self.calls}"  # type: ignore[method-assign]
        assert call(environ, start_response) == "replaced, after 1"
    finally:
        Counting.__call__ = before  # type: ignore[method-assign]


def test_what_is_called_by_no_python_method_is_taken_as_it_is() -> None:
    """Functions, methods, classes, and what is written in C."""

    class Application:
        def __init__(self, environ: Any, start_response: Any) -> None: ...

        def method(self, environ: Any, start_response: Any) -> Any: ...

    application = Application(None, None)
    applications: list[Any] = [lambda *_: [], Application, application.method, print]
    for each in applications:
        assert without_slot(each) == each
