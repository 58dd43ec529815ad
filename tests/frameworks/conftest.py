"""Other people's frameworks and middleware, as they come, served by both executors."""

import importlib.util
from typing import Any
from wsgiref.validate import validator

import bottle
import pyramid.threadlocal
import pytest

from tests.conftest import Serve
from tests.docs.snippets import modules_of
from tests.frameworks.sites import SITES, Site
from tests.serving import Application, Served


@pytest.fixture(params=["threads", "loop"])
def executor(request: pytest.FixtureRequest) -> str:
    """Name the executor."""
    name: str = request.param
    return name


@pytest.fixture
def serve(serve: Serve, executor: str) -> Serve:
    """Start servers with the test's executor."""

    def start(application: Application, **settings: Any) -> Served:
        return serve(application, **{"executor": executor, **settings})

    return start


@pytest.fixture
def as_they_come(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have Bottle and Pyramid keep what they keep for each thread, whatever was done to them."""
    monkeypatch.setattr(bottle.LocalRequest, "environ", bottle._local_property())
    for name in ("_status_line", "_status_code", "_cookies", "_headers", "body"):
        monkeypatch.setattr(bottle.LocalResponse, name, bottle._local_property())
    path = pyramid.threadlocal.__file__
    spec = importlib.util.spec_from_file_location("as_it_comes", path)
    assert spec is not None
    assert spec.loader is not None
    fresh = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(fresh)
    for name in ("push", "set", "pop", "get", "clear"):
        method = getattr(fresh.ThreadLocalManager, name)
        monkeypatch.setattr(pyramid.threadlocal.ThreadLocalManager, name, method)


@pytest.fixture
def in_context(as_they_come: None) -> None:
    """Have them keep it in the context, by what ``docs/frameworks.md`` says."""
    for module in modules_of("docs/frameworks.md"):
        if module.name in ("notes", "pages"):
            exec(module.text, {})


@pytest.fixture(params=SITES)
def site(request: pytest.FixtureRequest, in_context: None) -> Site:
    """Give the site that each framework builds, with the standard library's checker around it."""
    site = Site(request.param)
    site.application = validator(SITES[request.param](site))
    return site
