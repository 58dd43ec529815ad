"""Declaring what is safe for an application, reading it through its stack, and the choice."""

import dataclasses
import functools
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from flask import Flask
from werkzeug.middleware.proxy_fix import ProxyFix

from bide import capable
from bide.capabilities import Capability, decide, declaration, name_of, parts

Body = Iterable[bytes]


def plain(environ: Any, start_response: Any) -> Body:
    """A WSGI application that declares nothing."""
    return [b""]


def declared(*capabilities: Capability) -> Callable[[Any, Any], Body]:
    """Make an application that declares something."""

    @capable(*capabilities)
    def application(environ: Any, start_response: Any) -> Body:
        return [b""]

    return application


class Middleware:
    """Wraps an application, as most do, and declares nothing."""

    def __init__(self, app: Any) -> None:
        self.app = app

    def __call__(self, environ: Any, start_response: Any) -> Any:
        """Pass on."""
        return self.app(environ, start_response)


def safe_for(application: Any) -> set[str]:
    """Read what something has declared to be safe."""
    read = declaration(application)
    assert read is not None
    return set(read)


# Declaring -----------------------------------------------------------------------------------


def test_capable_declares_and_gives_the_application_back() -> None:
    """A decorator that changes nothing else."""

    def application(environ: Any, start_response: Any) -> Body:
        return [b""]

    assert capable("async", "threads")(application) is application
    assert safe_for(application) == {"async", "threads"}


def test_capable_declares_classes_and_instances() -> None:
    """An instance has what its class declares, and its own goes before that."""

    @capable("async")
    class Application:
        """A WSGI application."""

        def __call__(self, environ: Any, start_response: Any) -> Body:
            return [b""]

    assert safe_for(Application) == {"async"}
    assert safe_for(Application()) == {"async"}
    one = capable("processes")(Application())
    assert safe_for(one) == {"processes"}
    assert safe_for(Application()) == {"async"}


def test_capable_declares_a_flask_application() -> None:
    """An instance like others."""
    app = capable("async")(Flask("app"))
    assert safe_for(app) == {"async"}


def test_capable_takes_at_least_one_capability() -> None:
    """Nothing borne is nothing to run."""
    with pytest.raises(ValueError, match="takes one or more of async, processes, threads"):
        capable()


def test_capable_refuses_what_it_does_not_know() -> None:
    """A misspelled capability must not be taken for none."""
    misspelled: Any = "asynch"
    with pytest.raises(ValueError, match="'asynch'"):
        capable("threads", misspelled)


class Slotted:
    """Has no attributes but its own."""

    __slots__ = ()

    def __call__(self, environ: Any, start_response: Any) -> Body:
        """Answer."""
        return [b""]


@dataclasses.dataclass(frozen=True)
class Frozen:
    """Cannot be changed."""

    def __call__(self, environ: Any, start_response: Any) -> Body:
        """Answer."""
        return [b""]


@pytest.mark.parametrize(
    "application",
    [print, dict, Middleware(plain).__call__, Slotted(), Frozen()],
    ids=["builtin", "type", "method", "slots", "frozen"],
)
def test_capable_says_what_to_do_where_no_attribute_can_be_set(application: Any) -> None:
    """TypeError, naming the object."""
    with pytest.raises(TypeError, match="wrap it in a function of your own and declare that"):
        capable("async")(application)


# Reading -------------------------------------------------------------------------------------


def test_a_method_bears_what_its_object_declares() -> None:
    """``ProxyFix(app.wsgi_app)``: what was declared is ``app``."""
    app = capable("async", "threads")(Flask("app"))
    assert safe_for(app.wsgi_app) == {"async", "threads"}
    assert declaration(Flask("other").wsgi_app) is None


def test_a_method_with_a_declaration_of_its_own_has_that() -> None:
    """It is the more particular one."""

    @capable("async")
    class Application:
        """Has two entries."""

        @capable("processes")
        def one(self, environ: Any, start_response: Any) -> Body:
            return [b""]

        def other(self, environ: Any, start_response: Any) -> Body:
            return [b""]

    assert safe_for(Application().one) == {"processes"}
    assert safe_for(Application().other) == {"async"}


def test_the_parts_of_a_stack_are_found_outermost_first() -> None:
    """By the names that middleware keeps what it wraps in."""
    inner = declared("async")

    def wrapper(environ: Any, start_response: Any) -> Any:
        return inner(environ, start_response)

    wrapper.application = inner  # type: ignore[attr-defined]
    outer = Middleware(wrapper)
    assert list(parts(outer)) == [outer, wrapper, inner]


def test_a_part_that_cannot_be_called_is_none() -> None:
    """An attribute of that name may be anything."""
    stack = Middleware("a name")
    assert list(parts(stack)) == [stack]
    stack.app = None
    assert list(parts(stack)) == [stack]


def test_an_applications_own_method_is_no_part_of_it() -> None:
    """Flask's ``wsgi_app`` is what its ``__call__`` calls."""
    app = Flask("app")
    assert list(parts(app)) == [app]


def test_a_property_of_that_name_is_not_read() -> None:
    """It may do anything."""

    class Lazy:
        """Has a property that must not be asked."""

        @property
        def app(self) -> Any:
            raise AssertionError

        def __call__(self, environ: Any, start_response: Any) -> Body:
            return [b""]

    lazy = Lazy()
    assert list(parts(lazy)) == [lazy]


def test_the_attributes_of_a_class_are_no_parts_of_it() -> None:
    """Only of its instances."""

    class Application:
        """Has a default."""

        app = staticmethod(plain)

    assert list(parts(Application)) == [Application]


def test_a_stack_that_refers_to_itself_ends() -> None:
    """As a badly made one may."""
    one, other = Middleware(None), Middleware(None)
    one.app, other.app = other, one
    assert list(parts(one)) == [one, other]


# Deciding ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("capabilities", "executor"),
    [
        (("async",), "loop"),
        (("async", "threads", "processes"), "loop"),
        (("threads",), "threads"),
        (("threads", "processes"), "threads"),
        (("processes",), "processes"),
    ],
)
def test_the_best_executor_that_is_borne_is_chosen(
    capabilities: tuple[Capability, ...], executor: str
) -> None:
    """The loop, else threads, else child processes."""
    decision = decide(declared(*capabilities))
    assert decision.executor == executor
    assert f"declares {', '.join(sorted(capabilities))}" in decision.reason


def test_an_undeclared_application_runs_in_threads() -> None:
    """As is safe for any WSGI application (PEP 3333)."""
    decision = decide(plain)
    assert decision.executor == "threads"
    assert decision.reason == (
        f"{__name__}.plain declares nothing, so it is assumed safe for threads and processes"
    )


def test_where_there_are_no_child_processes_one_request_runs_at_a_time() -> None:
    """Under another server, whether it is declared or asked for."""
    for application, override in ((declared("processes"), "auto"), (plain, "processes")):
        assert decide(application, override).executor == "processes"
        decision = decide(application, override, processes=False)
        assert decision.executor == "serial"
        assert "there are no child processes under another server" in decision.reason


def test_a_stack_is_as_able_as_its_weakest_part() -> None:
    """An undeclared wrapper takes async away, and each part is named in the reason."""
    inner = declared("async", "threads")
    decision = decide(Middleware(inner))
    assert decision.executor == "threads"
    assert decision.reason == (
        f"{__name__}.Middleware instance declares nothing, so it is assumed safe for threads and "
        "processes; "
        f"{name_of(inner)} declares async, threads"
    )


def test_a_stack_with_nothing_in_common_runs_one_request_at_a_time() -> None:
    """What declares only async is not safe for threads, an undeclared wrapper not for the loop."""
    decision = decide(Middleware(declared("async")))
    assert decision.executor == "serial"
    assert "nowhere can all of them run" in decision.reason


def test_a_declared_wrapper_keeps_what_both_bear() -> None:
    """Both have to be able."""
    both = capable("async", "threads")(Middleware(declared("async", "threads")))
    assert decide(both).executor == "loop"
    weaker = capable("async", "threads")(Middleware(declared("threads")))
    assert decide(weaker).executor == "threads"


def test_functools_wraps_carries_the_declaration() -> None:
    """It copies attributes; and one made above it is made for what is below, too."""

    def wrapped_by_wraps(application: Any) -> Any:
        @functools.wraps(application)
        def wrapper(environ: Any, start_response: Any) -> Any:
            return application(environ, start_response)

        return wrapper

    assert decide(wrapped_by_wraps(declared("async"))).executor == "loop"
    assert decide(wrapped_by_wraps(plain)).executor == "threads"
    assert decide(capable("async")(wrapped_by_wraps(plain))).executor == "loop"


def test_a_closure_that_carries_nothing_is_undeclared() -> None:
    """What it wraps cannot be seen; its own word is missing."""
    inner = declared("async")

    def wrapper(environ: Any, start_response: Any) -> Any:
        return inner(environ, start_response)

    assert decide(wrapper).executor == "threads"


def test_flask_with_undeclared_middleware_inside_runs_in_threads() -> None:
    """``app.wsgi_app = ProxyFix(app.wsgi_app)``, as Flask's documentation has it."""
    app = capable("async", "threads")(Flask("app"))
    assert decide(app).executor == "loop"
    app.wsgi_app = ProxyFix(app.wsgi_app)  # type: ignore[method-assign]
    decision = decide(app)
    assert decision.executor == "threads"
    assert "ProxyFix instance declares nothing" in decision.reason


def test_flask_with_declared_middleware_outside_runs_on_the_loop() -> None:
    """``ProxyFix(app.wsgi_app)``: the method has what the application declares."""
    app = capable("async", "threads")(Flask("app"))
    assert decide(capable("async", "threads")(ProxyFix(app.wsgi_app))).executor == "loop"
    other = Flask("other")
    assert decide(capable("async", "threads")(ProxyFix(other.wsgi_app))).executor == "threads"


async def coroutine(environ: Any, start_response: Any) -> Body:
    """A coroutine function."""
    return [b""]


async def generator(environ: Any, start_response: Any) -> Any:
    """An async generator function."""
    yield b""


class Coroutine:
    """Its instances are called as coroutine functions."""

    async def __call__(self, environ: Any, start_response: Any) -> Body:
        """Answer."""
        return [b""]


@pytest.mark.parametrize(
    "application",
    [coroutine, generator, Coroutine(), Coroutine().__call__, functools.partial(coroutine)],
    ids=["function", "generator", "instance", "method", "partial"],
)
def test_a_coroutine_function_runs_on_the_loop(application: Any) -> None:
    """There is no other place for it."""
    decision = decide(application)
    assert decision.executor == "loop"
    assert decision.reason == "it is a coroutine function, which runs on the event loop"


@pytest.mark.parametrize("override", ["loop", "threads"])
@pytest.mark.parametrize(
    "application", [plain, coroutine, declared("async"), declared("processes")]
)
def test_the_deployers_word_decides_alone(application: Any, override: str) -> None:
    """Whatever the application declares."""
    decision = decide(application, override)
    assert decision.executor == override
    assert decision.reason == f"--executor {override} was given"


def test_auto_is_no_override() -> None:
    """It is the default."""
    assert decide(plain, "auto") == decide(plain)


# Names ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("application", "name"),
    [
        (plain, f"{__name__}.plain"),
        (Middleware, f"{__name__}.Middleware"),
        (Middleware(plain), f"{__name__}.Middleware instance"),
        (Middleware(plain).__call__, f"{__name__}.Middleware.__call__"),
        (functools.partial(plain), "functools.partial instance"),
        (print, "builtins.print"),
    ],
)
def test_an_application_is_named_for_people(application: Any, name: str) -> None:
    """Functions and classes by their own names, others by their class."""
    assert name_of(application) == name
