"""Other people's frameworks and middleware, as they come, served by both executors."""

from collections.abc import Iterator
from wsgiref.validate import validator

import pytest

import bide.integrations.bottle
import bide.integrations.cherrypy
import bide.integrations.pyramid
from tests.each_executor import executor, serve
from tests.frameworks.sites import SITES, Site

__all__ = ["executor", "integrated", "serve", "site"]


@pytest.fixture
def integrated() -> Iterator[None]:
    """Install each framework's integration for the time of the test."""
    uninstall = [
        bide.integrations.bottle.install(),
        bide.integrations.cherrypy.install(),
        bide.integrations.pyramid.install(),
    ]
    if "webpy" in SITES:
        from bide.integrations import webpy

        uninstall.append(webpy.install())
    yield
    for each in uninstall:
        each()


@pytest.fixture(params=SITES)
def site(request: pytest.FixtureRequest, integrated: None) -> Site:
    """Return the site that each framework builds, with the standard library's checker around it."""
    site = Site(request.param)
    site.application = validator(SITES[request.param](site))
    return site
