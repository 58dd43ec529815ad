"""The tests that ``docs/testing.md`` and the tutorial show are run, as those of a suite."""

import re
from pathlib import Path

import pytest

from tests.docs.snippets import Written, modules_of, prose_of, write

PAGE = "docs/testing.md"
MODULES = {module.name: module for module in modules_of(PAGE)}

SETTINGS = """
SECRET_KEY = "a test's"
ROOT_URLCONF = "project.urls"
WSGI_APPLICATION = None
INSTALLED_APPS = [
    "django.contrib.contenttypes", "django.contrib.auth", "django.contrib.staticfiles", "project",
]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}
STATIC_URL = "/static/"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
"""
URLS = """
from django.contrib.auth.models import User
from django.http import HttpResponse
from django.urls import path

urlpatterns = [path("users", lambda request: HttpResponse(str(User.objects.count())))]
"""


def run(pytester: pytest.Pytester, modules: list[Written], *options: str) -> None:
    """Run them in a process of their own; all of their tests must pass, without a warning."""
    for module in modules:
        write(module, pytester.path)
    number = sum(len(re.findall(r"^ *def test_", module.text, re.MULTILINE)) for module in modules)
    assert number
    result = pytester.runpytest_subprocess("-W", "error", "-p", "no:cacheprovider", *options)
    result.assert_outcomes(passed=number)


def test_the_suite_of_the_page_passes(pytester: pytest.Pytester) -> None:
    """All that the page shows but for Django, in one directory, with pytest-flask."""
    modules = [module for name, module in MODULES.items() if name != "test_project"]
    assert len(modules) > 3
    run(pytester, modules, "-p", "no:django")


def test_the_test_of_the_tutorial_passes(pytester: pytest.Pytester) -> None:
    """Beside the module that it tests."""
    modules = [each for each in modules_of("docs/tutorial.md") if "streaming" in each.name]
    assert [each.name for each in modules] == ["streaming", "test_streaming"]
    run(pytester, modules, "-p", "no:django", "-p", "no:flask")


def test_the_tests_of_a_django_project_pass(pytester: pytest.Pytester) -> None:
    """With pytest-django, in a project that has what they ask for."""
    project = pytester.mkpydir("project")
    (project / "settings.py").write_text(SETTINGS)
    (project / "urls.py").write_text(URLS)
    (project / "static").mkdir()
    (project / "static" / "style.css").write_text("a {}")
    pytester.makeini("[pytest]\nDJANGO_SETTINGS_MODULE = project.settings\npythonpath = .\n")
    run(pytester, [MODULES["test_project"]], "-p", "no:flask", "-p", "bide.pytest_plugin")


def test_what_the_page_names_is_there() -> None:
    """The names of fixtures, of settings of the plugin, and of attributes."""
    source = Path(__file__).parent.parent.parent / "src" / "bide"
    text = "\n".join(
        path.read_text(encoding="utf-8")
        for path in [source / "pytest_plugin.py", *(source / "testing").glob("*.py")]
    )
    names = set(re.findall(r"`(\w+(?:_\w+)+)(?:\(\))?`", prose_of(PAGE)))
    assert len(names) > 4
    assert not {name for name in names if name not in text} - {"url_for"}
