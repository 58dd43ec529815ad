"""The fixture ``live_server`` in suites of Flask's and of Django's, with the plugins they have."""

import importlib.metadata
import sys
from pathlib import Path

import pytest

PLUGINS = '\npytest_plugins = ["bide.pytest_plugin"]\n'

FLASK_APP = """
import pytest
from flask import Flask

@pytest.fixture
def app():
    app = Flask("shop")
    app.add_url_rule("/", "index", lambda: "the shop")
    return app
"""

SETTINGS = """
SECRET_KEY = "a test's"
ROOT_URLCONF = "shop.urls"
WSGI_APPLICATION = "shop.wsgi.application"
INSTALLED_APPS = [
    "django.contrib.contenttypes", "django.contrib.auth", "django.contrib.staticfiles", "shop",
]
DATABASES = {"default": {
    "ENGINE": "django.db.backends.sqlite3",
    "NAME": ":memory:",
    "CONN_MAX_AGE": None,
    "TEST": {"NAME": WHERE},
}}
STATIC_URL = "/static/"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
"""
WSGI = """
from django.core.wsgi import get_wsgi_application

django = get_wsgi_application()

def application(environ, start_response):
    def start(status, headers, exc_info=None):
        return start_response(status, [*headers, ("X-Project", "its own")], exc_info)
    return django(environ, start)
"""
URLS = """
import asyncio
import bide
from django.contrib.auth.models import User
from django.db import connections
from django.http import HttpResponse
from django.urls import path

def count(request):
    bide.wait(asyncio.sleep(0))
    return HttpResponse(f"{User.objects.count()} {request.META['SERVER_SOFTWARE']}")

def connection(request):
    return HttpResponse(str(id(connections["default"])))

def add(request):
    User.objects.create(username="from the view")
    return HttpResponse("added")

urlpatterns = [path("count", count), path("add", add), path("connection", connection)]
"""


def run(pytester: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    """Run the suite as its own process, with warnings for errors."""
    return pytester.runpytest_subprocess("-W", "error", "-p", "no:cacheprovider", *arguments)


def ask(pytester: pytest.Pytester, plugin: str, conftest: str) -> list[str]:
    """Make the suite load the plugin in one of the two ways; return the options.

    They differ in the order in which plugins come: by option Bide's is the first one, by
    ``conftest.py`` the last.
    """
    pytester.makeconftest(conftest + (PLUGINS if plugin == "conftest" else ""))
    return ["-p", "bide.pytest_plugin"] if plugin == "option" else []


@pytest.fixture
def project(pytester: pytest.Pytester) -> Path:
    """Make a project of Django's, whose database is in memory."""
    directory = pytester.mkpydir("shop")
    in_memory = '"file:memorydb_default?mode=memory&cache=shared"'
    (directory / "settings.py").write_text(SETTINGS.replace("WHERE", in_memory))
    (directory / "wsgi.py").write_text(WSGI)
    (directory / "urls.py").write_text(URLS)
    (directory / "static").mkdir()
    (directory / "static" / "style.css").write_text("a {}")
    pytester.makeini("[pytest]\nDJANGO_SETTINGS_MODULE = shop.settings\npythonpath = .\n")
    return directory


# Any suite --------------------------------------------------------------------------------------


def test_a_suite_has_its_app_served(pytester: pytest.Pytester) -> None:
    """Without any framework: by Bide, each test's server on its own, and none left behind."""
    options = ask(
        pytester,
        "conftest",
        """
import pytest

@pytest.fixture
def app():
    def app(environ, start_response):
        start_response("200 OK", [])
        return [environ["SERVER_SOFTWARE"].encode()]
    return app
""",
    )
    pytester.makepyfile(
        """
import threading
import httpx
import pytest

seen = []

@pytest.mark.parametrize("number", [1, 2])
def test_it(live_server, number):
    assert httpx.get(live_server.url, trust_env=False).text == "bide"
    assert live_server.status().threads_max == 4
    seen.append(live_server)

def test_all_has_ended():
    assert len({id(each) for each in seen}) == 2
    with pytest.raises(httpx.ConnectError):
        httpx.get(seen[0].url, trust_env=False)
    assert [each.name for each in threading.enumerate()] == ["MainThread"]
"""
    )
    run(pytester, "-p", "no:flask", "-p", "no:django", *options).assert_outcomes(passed=3)


def test_a_suite_may_change_settings_and_scope(pytester: pytest.Pytester) -> None:
    """By a fixture, and by its configuration."""
    options = ask(
        pytester,
        "option",
        """
import pytest

@pytest.fixture(scope="session")
def app():
    return lambda environ, start_response: []

@pytest.fixture(scope="session")
def live_server_settings():
    return {"threads": 2}

@pytest.fixture(scope="session")
def base_url(live_server):
    return live_server.url
""",
    )
    pytester.makeini("[pytest]\nbide_live_server_scope = session\n")
    pytester.makepyfile(
        """
seen = set()

def test_one(live_server, base_url):
    assert live_server.status().threads_max == 2
    seen.add(live_server)

def test_other(live_server, base_url):
    seen.add(live_server)
    assert len(seen) == 1
"""
    )
    run(pytester, "-p", "no:flask", "-p", "no:django", *options).assert_outcomes(passed=2)


def test_a_suite_that_has_nothing_to_serve_is_told(pytester: pytest.Pytester) -> None:
    """In one sentence, without the plugin's own lines; a fixture missing elsewhere is its own."""
    options = ask(pytester, "option", "")
    directory = pytester.mkpydir("wanting")
    (directory / "conftest.py").write_text(
        "import pytest\n@pytest.fixture\ndef app(request): request.getfixturevalue('missing')\n"
    )
    (directory / "test_wanting.py").write_text("def test_it(live_server): pass")
    pytester.makepyfile("def test_it(live_server): pass")
    result = run(pytester, "-p", "no:flask", "-p", "no:django", *options)
    result.assert_outcomes(errors=2)
    result.stdout.fnmatch_lines_random(
        [
            "live_server has nothing to serve: define a fixture `app`*",
            "*fixture 'missing' not found*",
        ]
    )


def test_nobody_has_the_plugin_who_has_not_asked_for_it() -> None:
    """Other plugins have a fixture of that name; a mere installation changes nothing."""
    entries = importlib.metadata.entry_points(group="pytest11")
    assert not [each for each in entries if each.value.startswith("bide")]


# Flask ------------------------------------------------------------------------------------------


def test_a_suite_with_pytest_flask_has_bides_server(pytester: pytest.Pytester) -> None:
    """``url_for`` gives its URLs, as pytest-flask's pages say; its other fixtures work on."""
    options = ask(pytester, "option", FLASK_APP)
    pytester.makepyfile(
        """
import httpx
import pytest
from flask import url_for

def test_urls(live_server):
    url = url_for("index", _external=True)
    assert url == live_server.url + "/"
    assert httpx.get(url, trust_env=False).text == "the shop"
    assert type(live_server).__module__ == "bide.testing.live"

@pytest.mark.usefixtures("live_server")
class TestLiveServer:
    def test_it(self):
        assert httpx.get(url_for("index", _external=True), trust_env=False).text == "the shop"

def test_clients_work_on(client, app):
    assert client.get(url_for("index")).status_code == 200
    assert app.config["SERVER_NAME"] is None
"""
    )
    run(pytester, "-p", "no:django", *options).assert_outcomes(passed=3)


# Django -----------------------------------------------------------------------------------------

DJANGO_TESTS = r"""
import httpx
import pytest
from django.contrib.auth.models import User

def get(live_server, path):
    return httpx.get(live_server.url + path, trust_env=False)

def test_both_see_the_same_database(live_server):
    User.objects.create(username="from the test")
    assert get(live_server, "/count").text == "1 bide"
    assert get(live_server, "/add").text == "added"
    assert User.objects.count() == 2
    assert type(live_server).__module__ == "bide.testing.django"

def test_a_client_without_sockets_sees_it_too(transactional_db):
    from bide.testing.django import DjangoClient
    User.objects.create(username="from the test")
    with DjangoClient() as client:
        assert client.get("/count").text == "1 bide"
        assert client.get("/add").text == "added"
        assert client.get("/count").headers["X-Project"] == "its own"
        assert client.get("/count", params={"a": 1}).status_code == 200
        with pytest.raises(TypeError, match=r"^get\(\) got an .*'content'; use data"):
            client.get("/count", content=b"")
    with pytest.raises(TypeError, match=r"^DjangoClient\(\) got an .*'thread'"):
        DjangoClient(thread=2)
    assert User.objects.count() == 2
    client.close()

def test_the_next_test_has_an_empty_one(live_server):
    assert get(live_server, "/count").text == "0 bide"

def test_files_and_the_projects_own_wsgi_application(live_server, settings):
    assert get(live_server, "/static/style.css").text == "a {}"
    assert get(live_server, "/count").headers["X-Project"] == "its own"
    assert "localhost" in settings.ALLOWED_HOSTS
    assert live_server.status().threads_max == 4
"""


def test_a_suite_with_pytest_django_has_bides_server(
    pytester: pytest.Pytester, project: Path
) -> None:
    """With the test's database, in memory, its static files and its settings."""
    options = ask(pytester, "conftest", "")
    shared = """

def test_a_database_in_memory_is_its_connection(live_server):
    from django.db import connections
    assert get(live_server, "/connection").text == str(id(connections["default"]))
"""
    pytester.makepyfile(DJANGO_TESTS + shared)
    run(pytester, "-p", "no:flask", *options).assert_outcomes(passed=5)


def test_a_database_in_a_file_is_let_go_of(pytester: pytest.Pytester, project: Path) -> None:
    """Connections of lanes are closed with their requests, whatever CONN_MAX_AGE says."""
    settings = project / "settings.py"
    settings.write_text(
        SETTINGS.replace("WHERE", repr(str(project / "test.db")))
        + f'MEDIA_URL = "/media/"\nMEDIA_ROOT = {str(project)!r}\n'
    )
    options = ask(pytester, "option", "")
    opened = """

def test_media_files_are_served(live_server):
    assert "ROOT_URLCONF" in get(live_server, "/media/settings.py").text

def test_nothing_is_open():
    import os
    from django.db import connections
    connections.close_all()  # the test's own
    names = [os.readlink(f"/proc/self/fd/{each}") for each in os.listdir("/proc/self/fd")
             if os.path.exists(f"/proc/self/fd/{each}")]
    assert not [name for name in names if name.endswith("test.db")]
"""
    pytester.makepyfile(DJANGO_TESTS + opened)
    run(pytester, "-p", "no:flask", *options).assert_outcomes(passed=6)


def test_djangos_live_test_cases_can_be_served_by_bide(
    pytester: pytest.Pytester, project: Path
) -> None:
    """With Django's own runner, unittest's: a mixin, and all else as its documentation says."""
    pytester.makepyfile(
        **{
            "shop/tests": """
from urllib.request import urlopen
from django.contrib.auth.models import User
from django.contrib.staticfiles.testing import StaticLiveServerTestCase
from django.test import LiveServerTestCase, override_settings
from bide.testing.django import BideLiveServer, ServerThread

def get(url):
    with urlopen(url) as answer:
        return answer.read().decode()

class StaticTests(BideLiveServer, StaticLiveServerTestCase):
    def test_it(self):
        User.objects.create(username="from the test")
        self.assertEqual(get(f"{self.live_server_url}/count"), "1 bide")
        self.assertEqual(get(f"{self.live_server_url}/static/style.css"), "a {}")

class TwoThreads(ServerThread):
    settings = {"threads": 2}

class Tests(BideLiveServer, LiveServerTestCase):
    server_thread_class = TwoThreads

    def test_it(self):
        self.assertEqual(get(f"{self.live_server_url}/count"), "0 bide")
        self.assertEqual(self.server_thread.server.status().threads_max, 2)

class Nowhere(BideLiveServer, LiveServerTestCase):
    host = "203.0.113.1"  # nobody's here

    @classmethod
    def setUpClass(cls):
        try:
            super().setUpClass()
        except Exception as error:
            cls.error = str(error)

    def test_it(self):
        self.assertIn("203.0.113.1", self.error)
""",
            "manage": """
import os, sys
os.environ["DJANGO_SETTINGS_MODULE"] = "shop.settings"
from django.core.management import execute_from_command_line
execute_from_command_line(sys.argv)
""",
        }
    )
    result = pytester.run(sys.executable, "-W", "error", "manage.py", "test", "shop")
    assert result.ret == 0, result.stderr.str()
    result.stderr.fnmatch_lines(["Ran 3 tests*", "OK"])
