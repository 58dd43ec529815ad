"""Which interface an application has: what is taken for WSGI, for ASGI, and for neither."""

import functools
import sys
from functools import partial
from typing import Any
from wsgiref.validate import validator

import pytest
from a2wsgi import ASGIMiddleware, WSGIMiddleware
from django.core.handlers.asgi import ASGIHandler
from django.core.handlers.wsgi import WSGIHandler
from fastapi import FastAPI
from flask import Flask
from starlette.applications import Starlette
from werkzeug.middleware.proxy_fix import ProxyFix

from bide.applications.interfaces import check, interface_of
from bide.errors import LoadError
from tests.failures import Failures, same


def wsgi(environ: Any, start_response: Any) -> Any:
    """A WSGI application."""


class Instances:
    """Its instances are WSGI applications, and so is one of its methods."""

    def __call__(self, environ: Any, start_response: Any) -> Any:
        """Answer."""

    def method(self, environ: Any, start_response: Any) -> Any:
        """Answer."""


class PerRequest:
    """A WSGI application that is a class, as in PEP 3333's example."""

    def __init__(self, environ: Any, start_response: Any) -> None:
        pass


async def coroutine(environ: Any, start_response: Any) -> Any:
    """A WSGI application that waits."""


async def asgi(scope: Any, receive: Any, send: Any) -> None:
    """An ASGI application."""


class Asgi:
    """Its instances are ASGI applications, and so is one of its methods."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer."""

    async def method(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer."""


WSGI: list[Any] = [
    wsgi,
    Instances(),
    Instances().method,
    PerRequest,
    coroutine,
    Flask("app"),
    Flask("app").wsgi_app,
    partial(lambda x, environ, start_response: None, 1),
    lambda environ, start_response, more=None: None,
]


def passed_on(application: Any) -> Any:
    """Return a wrapper that passes on what it gets."""

    @functools.wraps(application)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return application(*args, **kwargs)

    return wrapper


ASGI: list[Any] = [
    asgi,
    Asgi(),
    Asgi().method,
    partial(asgi),
    Starlette(),
    FastAPI(),
    lambda scope, receive, send: None,
    lambda scope, receive, send, more=None: None,
]
# Frameworks' own, which are made without their settings: only their signatures are looked at.
WSGI += [ProxyFix(wsgi), WSGIHandler.__new__(WSGIHandler), ASGIMiddleware(asgi)]
ASGI += [WSGIMiddleware(wsgi), ASGIHandler.__new__(ASGIHandler)]


class PassesOn:
    """Middleware that passes on what it gets."""

    def __init__(self, app: Any) -> None:
        self.app = app

    def __call__(self, *args: Any) -> Any:
        """Answer."""
        return self.app(*args)


def test_two_required_arguments_are_wsgi_and_three_are_asgi() -> None:
    """Of functions, objects, methods, classes, frameworks, and through wrappers."""
    with Failures() as failures:
        for interface, applications in (("wsgi", WSGI), ("asgi", ASGI)):
            for each in applications:
                with failures.of(each):
                    same(interface_of(each, "m:a"), interface)
        for wrapper in (passed_on, PassesOn, lambda application: lambda *args: application(*args)):
            for interface, each in (("wsgi", wsgi), ("asgi", Asgi())):
                with failures.of((wrapper, each)):
                    same(interface_of(wrapper(each), "m:a"), interface)
        with failures.of("the standard library's"):
            same(interface_of(validator(wsgi), "m:a"), "wsgi")


def test_what_may_be_either_is_refused_with_how_to_say_it() -> None:
    """And taken when it is said."""

    def unclear(*_: Any) -> None:
        """Pass on what it gets."""

    with pytest.raises(LoadError) as caught:
        interface_of(unclear, "m:a")
    assert str(caught.value) == (
        "m:a could be a WSGI or an ASGI application: write "
        "wsgi:m:a or asgi:m:a, or give --interface"
    )
    assert interface_of(unclear, "m:a", "asgi") == "asgi"
    assert interface_of(unclear, "m:a", "wsgi") == "wsgi"
    check(unclear, "m:a")


NEITHER = "m:a is not a WSGI application: it does not take (environ, start_response); nor an ASGI"


def test_what_is_no_application_is_named() -> None:
    """By what it is, or what it does not take; with what may help."""

    class Two:
        """An application of ASGI 2."""

        def __init__(self, scope: Any) -> None:
            pass

    with Failures() as failures:
        for thing, begins, ends in (
            (5, "m:a is not an application: int is not callable", ""),
            (sys, "m:a is not an application: module is not callable", ""),
            (lambda request: None, NEITHER, "which takes (scope, receive, send)"),
            (lambda a, b, c, d: None, NEITHER, "(scope, receive, send)"),
            (lambda: None, NEITHER, "; if it makes an application, write m:a()"),
            (Two, NEITHER, "asgiref.compatibility.double_to_single_callable"),
        ):
            with failures.of(thing):
                for judge in (interface_of, check):
                    with pytest.raises(LoadError) as caught:
                        judge(thing, "m:a")
                    assert str(caught.value).startswith(begins)
                    assert str(caught.value).endswith(ends)


def test_an_asgi_application_is_refused_where_wsgi_is_served() -> None:
    """Under another server."""
    with pytest.raises(LoadError, match=r"^m:a is an ASGI application, but only WSGI applications"):
        check(asgi, "m:a")


def test_what_has_no_signature_is_taken_for_wsgi() -> None:
    """Written in C: calling it will tell."""
    assert interface_of(type, "m:a") == "wsgi"
    check(type, "m:a")
