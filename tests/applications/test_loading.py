"""From ``module:name`` to an application, or one line that says why not."""

import calendar
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import flask
import pytest

from bide.applications.loading import ApplicationFailed, load
from bide.errors import LoadError

Write = Callable[[str, str], None]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """Return what writes modules into the current directory, which is one of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [each for each in sys.path if each != str(tmp_path)])
    before = set(sys.modules)

    def write(name: str, text: str) -> None:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text), encoding="utf-8")

    yield write
    for name in set(sys.modules) - before:
        if getattr(sys.modules[name], "__file__", None) is None or str(tmp_path) in str(
            sys.modules[name].__file__
        ):
            del sys.modules[name]


APPLICATION = """
def {name}(environ, start_response):
    start_response("200 OK", [])
    return [b"{name}"]
"""


def refused(spec: str) -> str:
    """Return the line that says why something cannot be loaded."""
    with pytest.raises(LoadError) as caught:
        load(spec)
    text = str(caught.value)
    assert "\n" not in text
    return text


# Found -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["app", "application"])
def test_without_a_name_app_or_application_is_taken(write: Write, name: str) -> None:
    """From the current directory, which is importable."""
    write("site_one.py", APPLICATION.format(name=name))
    assert load("site_one").__name__ == name


def test_app_goes_before_application(write: Write) -> None:
    """Where there are both."""
    write("both.py", APPLICATION.format(name="application") + APPLICATION.format(name="app"))
    assert load("both").__name__ == "app"


def test_a_name_is_taken_as_given(write: Write) -> None:
    """Also one in a package, and one behind dots."""
    write("shop/__init__.py", "")
    write("shop/web.py", "class Site:" + textwrap.indent(APPLICATION.format(name="run"), "    "))
    write("shop/main.py", "from shop.web import Site\nsite = Site()\nsite.run = Site.run\n")
    assert load("shop.web:Site.run").__name__ == "run"
    assert load("shop.main:site.run").__name__ == "run"


@pytest.mark.parametrize(
    ("call", "result"),
    [
        ("make()", "((), {})"),
        ("make('test', 2)", "(('test', 2), {})"),
        ("make(debug=True, hosts=['a', 'b'])", "((), {'debug': True, 'hosts': ['a', 'b']})"),
        ("factories.make(None)", "((None,), {})"),
    ],
)
def test_a_factory_is_called_with_literal_arguments(write: Write, call: str, result: str) -> None:
    """Its result is the application."""
    write(
        "making.py",
        """
        def make(*args, **kwargs):
            def app(environ, start_response):
                return [repr((args, kwargs)).encode()]
            return app

        class factories:
            make = staticmethod(make)
        """,
    )
    assert load(f"making:{call}")(None, None) == [result.encode()]


def test_a_module_is_imported_once(write: Write) -> None:
    """As Python does."""
    write("once.py", APPLICATION.format(name="app"))
    assert load("once:app") is load("once:app")


# Not found -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "guess"),
    [
        ("", "myapp:app"),
        (":app", "myapp:app"),
        ("module:", "module:app"),
        ("path/to/site.py", "path.to.site:app"),
        ("./site.py", "site:app"),
        ("site.py:create_app()", "site:create_app()"),
        ("path/to/site:app", "path.to.site:app"),
        ("../path/site.py", "site:app --app-dir ../path"),
        ("/srv/shop/site.py", "site:app --app-dir /srv/shop"),
        ("my-site.py", "myapp:app"),
    ],
)
def test_what_names_nothing_is_told_how_to(spec: str, guess: str) -> None:
    """With a better guess where there is one."""
    assert refused(spec) == (
        f"{spec!r} does not name an application: write MODULE:NAME, for example {guess}"
    )


def test_a_missing_module_is_named_with_those_that_there_are(write: Write) -> None:
    """The nearest first; packages too."""
    write("website.py", "")
    write("shop/__init__.py", "")
    text = refused("webiste:app")
    assert text.startswith("there is no module 'webiste' in ")
    assert text.endswith("; there is website")
    assert "shop" in refused("xyzzy:app")


def test_a_missing_module_of_a_package_names_the_part_that_is_missing(write: Write) -> None:
    """``shop`` is there, ``shop.web`` is not."""
    write("shop/__init__.py", "")
    assert "there is no module 'shop.web'" in refused("shop.web:app")
    assert "there is no module 'nothing'" in refused("nothing.web:app")


def test_a_module_that_is_not_the_users_says_which_file_was_found(
    write: Write, tmp_path: Path
) -> None:
    """The user's own is not taken when Python has imported the other one before."""
    file = f"{calendar.__file__} of the standard library"
    for spec in ("calendar:app", "calendar"):
        assert refused(spec).endswith(f"; found was {file}")
    assert refused("calendar.web:app").startswith(
        f"there is no module 'calendar.web' in the package 'calendar'; found was {file}"
    )
    assert refused("sys:app").endswith("; found was built into Python")
    assert refused("flask:site").endswith(f"; found was {flask.__file__}")
    write("folder/inside.py", "")
    assert refused("folder:site") == "the module 'folder' has no 'site'"
    write("calendar.py", APPLICATION.format(name="app"))
    own = tmp_path / "calendar.py"
    assert refused("calendar:app").endswith(f"; found was {file}, not {own}: rename that")


def test_a_module_without_a_default_name_lists_what_it_defines(write: Write) -> None:
    """What it imported from elsewhere is not a candidate, nor what it hides."""
    write(
        "other_names.py",
        "from os.path import join\nimport os\n_hidden = len\nNUMBER = 1\n"
        + APPLICATION.format(name="site"),
    )
    assert refused("other_names") == (
        "the module 'other_names' has neither app nor application; it has site"
    )


def test_a_missing_name_lists_what_there_is(write: Write) -> None:
    """In the module, or in the object that was looked in: what may be an application, if any is."""
    write("names.py", "class Sites:\n    main = print\n" + APPLICATION.format(name="app"))
    assert refused("names:ap") == "the module 'names' has no 'ap'; it has app"
    assert "has no 'other'; it has main" in refused("names:Sites.other")
    write("classes.py", "class Site:\n    pass\n\ndef make():\n    pass\n")
    assert refused("classes:site") == "the module 'classes' has no 'site'; it has Site, make"
    assert "has no 'other'" in refused("names:app.other.more")


@pytest.mark.parametrize(
    "expression", ["a + b", "a[0]", "make(open)", "make()()", "1", "a b", "lambda: 0", "make(*[1])"]
)
def test_what_is_neither_a_name_nor_a_call_is_refused(write: Write, expression: str) -> None:
    """No code is run from the command line but a factory's call."""
    write("calls.py", "def make(*_): raise AssertionError\n")
    assert refused(f"calls:{expression}").startswith(
        f"{expression!r} is neither a name nor a call of a factory"
    )


def test_what_cannot_be_called_is_no_factory(write: Write) -> None:
    """Named as it was written."""
    write("number.py", "NUMBER = 1\n")
    assert refused("number:NUMBER()") == "'NUMBER()': NUMBER cannot be called"


def test_a_module_that_is_in_a_directory_of_its_own_is_found_there(write: Write) -> None:
    """As in a project with a ``src/``; that goes before others."""
    write("src/bookshop/__init__.py", "")
    write("src/bookshop/web.py", "")
    write("lib/bookshop/__init__.py", "")
    assert refused("bookshop:app").endswith("; it is in src: give --app-dir src")
    assert refused("bookshop.web:app").endswith("; it is in src: give --app-dir src")
    write("tools/lonely.py", "")
    assert refused("lonely:app").endswith("; it is in tools: give --app-dir tools")


def test_a_package_is_not_found_in_its_own_directory(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is imported from the directory above."""
    write("bookshop/web.py", "")
    monkeypatch.chdir(tmp_path / "bookshop")
    assert refused("bookshop.web:app").endswith(
        "; this directory is bookshop itself: give --app-dir .."
    )


def test_a_dot_in_the_place_of_the_colon_is_found(write: Write) -> None:
    """Where the module has that name."""
    write("dotted.py", APPLICATION.format(name="app"))
    assert refused("dotted.app").endswith("; write dotted:app")
    assert "write" not in refused("dotted.other")


def test_an_application_is_not_called_as_a_factory(write: Write) -> None:
    """Its own arguments are missing then."""
    write("direct.py", APPLICATION.format(name="app"))
    assert refused("direct:app()") == "app is an application, and not a factory: write direct:app"


# The user's own code ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "cause", "line"),
    [
        ("1 / 0", ZeroDivisionError, "cannot import broken: ZeroDivisionError: division by zero"),
        ("raise SystemExit(3)", SystemExit, "cannot import broken: SystemExit: 3"),
        ("import no_such_thing", ModuleNotFoundError, "No module named 'no_such_thing'"),
        ("def f(:", SyntaxError, "cannot import broken: SyntaxError"),
    ],
)
def test_an_error_while_importing_is_the_users(
    write: Write, text: str, cause: type[BaseException], line: str
) -> None:
    """It is kept as the cause, for its frames; also a module that it cannot import."""
    write("broken.py", text)
    with pytest.raises(ApplicationFailed, match=line) as caught:
        load("broken:app")
    assert isinstance(caught.value.__cause__, cause)


def test_a_module_of_the_users_package_that_is_missing_is_the_users_error(write: Write) -> None:
    """The module that was asked for is there."""
    write("shop/__init__.py", "")
    write("shop/web.py", "import shop.nowhere\n")
    with pytest.raises(ApplicationFailed, match=r"No module named 'shop\.nowhere'"):
        load("shop.web:app")


def test_a_relative_import_in_a_script_says_how_to_import_it(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the name of the directory, or without the dots."""
    write("parcel/script.py", "from .colours import red\n")
    write("two words/script.py", "from .colours import red\n")
    write("parcel/deep.py", "from ..colours import red\n")
    failure = "cannot import script: ImportError: attempted relative import with no known parent"
    for place, remedy in {
        "parcel": r"write parcel\.script:NAME --app-dir \.\.",
        "two words": "write the import without its dots",
    }.items():
        monkeypatch.chdir(tmp_path / place)
        with pytest.raises(ApplicationFailed, match=f"^{failure} package: {remedy}$"):
            load("script:app")
        sys.path.remove(str(tmp_path / place))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ApplicationFailed, match="its dots lead out of the package"):
        load("parcel.deep:app")


def test_an_error_in_a_factory_is_the_users(write: Write) -> None:
    """Also a wrong number of arguments."""
    write("factory.py", "def make(name):\n    raise OSError('no database')\n")
    with pytest.raises(ApplicationFailed, match=r"^make\('x'\) failed: OSError: no database$"):
        load("factory:make('x')")
    with pytest.raises(ApplicationFailed, match=r"^make\(\) failed: TypeError: "):
        load("factory:make()")
