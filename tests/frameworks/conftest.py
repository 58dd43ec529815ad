"""Other people's frameworks and middleware, as they come, served by both executors."""

import importlib.util
from wsgiref.validate import validator

import bottle
import pyramid.threadlocal
import pytest

from tests.docs.snippets import modules_of
from tests.each_executor import executor, serve
from tests.frameworks.sites import SITES, Site

__all__ = ["as_they_come", "executor", "in_context", "serve", "site"]


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
