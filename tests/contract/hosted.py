"""The contract under other people's servers: which hosts, which modules, and what cannot be there.

A host here runs in the test's own process. To add one: a subclass of :class:`Hosted`, a line in
``HOSTS``, and its expected failures in ``CANNOT``.
"""

import contextlib
import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any

import bide
from bide.exchange.call import Call
from bide.hosts.wsgi_calls import Blocking
from bide.waiting.waiter import background_loop
from tests.served import Application, Client, Environ, Served, until

log = logging.getLogger("bide")


class Hosted(Served):
    """An application under a host; for a test it is as a server of Bide's.

    A subclass sets ``address`` and ``loop`` before it calls this ``__init__``.
    """

    def __init__(self) -> None:
        self._clients: list[Client] = []
        self._ident = self.call(threading.get_ident)

    @property
    def thread(self) -> int:
        """The identity of the thread on which awaitables run."""
        return self._ident

    def begin_stop(self) -> None:
        """Raise: a test cannot see the stop of a host."""
        raise NotImplementedError("the host stops in its own way")

    def stop(self) -> None:
        """Close the clients, and end what they have left behind."""
        for client in self._clients:
            client.close()
        with contextlib.suppress(AssertionError):
            until(lambda: not self.conversations(), seconds=PATIENCE)
        for conversation in self.conversations():
            conversation.cancel(bide.ServerStopping("the test is over"), firm=True)
        with contextlib.suppress(AssertionError):  # what is expected to fail may leave some
            self.until_idle()
        self.release()

    def conversations(self) -> list[Call]:
        """Return those in progress."""
        raise NotImplementedError

    def release(self) -> None:
        """Called when the host is not used any more."""


class Answering:
    """Middleware around what a host is given: logs what it raises, and answers 500 where it can.

    As every host does, but in Bide's own words, which the tests look for. What is not an
    ``Exception`` becomes one: it would end some hosts' threads, or the host.
    """

    def __init__(self, application: Application, name: str) -> None:
        self._application = application
        self._name = name

    def __call__(self, environ: Environ, start_response: Any) -> Any:
        """Call the application; give its iterable."""
        target = environ.get("REQUEST_URI", environ["PATH_INFO"])
        request = f"{environ['REQUEST_METHOD']} {target} of {self._name}"
        try:
            return _Iterable(self._application(environ, start_response), request)
        except BaseException as error:
            _log(error, request)
        body = b"Internal Server Error\n"
        start_response("500 Internal Server Error", [("Content-Length", str(len(body)))])
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]


class _Iterable:
    def __init__(self, iterable: Any, request: str) -> None:
        self._iterator = iter(iterable)
        self._request = request
        self.close = getattr(iterable, "close", lambda: None)

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        try:
            block: bytes = next(self._iterator)
            return block
        except StopIteration:
            raise
        except BaseException as error:
            _log(error, self._request)
        raise RuntimeError("the application has failed")


def _log(error: BaseException, request: str) -> None:
    if not isinstance(error, bide.Cancelled):
        log.error("the application failed: %s", request, exc_info=error)


class _Cheroot:
    """A running cheroot, whose application changes from test to test."""

    def __init__(self) -> None:
        from cheroot.wsgi import Server

        self.application: Application | None = None
        self._server = Server(("127.0.0.1", 0), self._call, numthreads=48, request_queue_size=256)
        vars(self._server)["error_log"] = lambda *args, **options: None  # see Answering
        # Its own threads are daemons where the one is that starts them.
        threading.Thread(target=self._run, name="cheroot", daemon=True).start()
        until(lambda: self._server.ready, "cheroot did not start")
        self.address = f"127.0.0.1:{self._server.bind_addr[1]}"

    def _run(self) -> None:
        self._server.prepare()
        self._server.serve()

    def _call(self, environ: Environ, start_response: Any) -> Any:
        assert self.application is not None
        return self.application(environ, start_response)


_idle: list[_Cheroot] = []
"""Servers that no test uses now: one is started in 0.1 s, and a test takes a hundredth of that."""


class _Known(Blocking):
    """``bide.blocking``, and which conversations it has."""

    def __init__(self, application: Application) -> None:
        super().__init__(application)
        self.conversations: set[Call] = set()

    def started(self, call: Call) -> None:
        self.conversations.add(call)
        super().started(call)

    def done(self, call: Call) -> None:
        self.conversations.discard(call)
        super().done(call)


class UnderWSGI(Hosted):
    """``bide.blocking`` under cheroot: HTTP/1.1 with chunks, which sends each block at once."""

    def __init__(self, application: Application, threads: int = 0) -> None:
        self._blocking = _Known(application)  # with more threads than any test asks for
        self._server = _idle.pop() if _idle else _Cheroot()
        self._server.application = Answering(self._blocking, self._blocking.name)
        self.address = self._server.address
        self.loop = background_loop.get()
        super().__init__()

    @property
    def status(self) -> bide.Status:
        """The numbers now."""
        return self._blocking.status()

    def conversations(self) -> list[Call]:
        """Return those in progress."""
        return list(self._blocking.conversations)

    def release(self) -> None:
        """Leave the server to another test, unless requests have been left behind."""
        if not self.conversations():
            _idle.append(self._server)


def _under_twisted(application: Application, **settings: Any) -> Hosted:
    from tests.contract.under_twisted import UnderTwisted

    return UnderTwisted(application, **settings)


def _asgi(executor: str) -> Callable[..., Hosted]:
    def start(application: Application, **settings: Any) -> Hosted:
        from tests.contract.under_asgi import UnderASGI

        return UnderASGI(application, executor, **settings)

    return start


HOSTS: dict[str, Callable[..., Hosted]] = {
    "asgi-threads": _asgi("threads"),
    "asgi-loop": _asgi("loop"),
    "wsgi": UnderWSGI,
    "twisted": _under_twisted,
}

_ONCE = {"asgi-loop": "as with threads, but for the executor, which Bide's own server shows"}

MODULES: dict[str, dict[str, str]] = {
    "test_async_applications": _ONCE,
    "test_clean_ups": {
        "wsgi": "a WSGI server tells nothing of the client while it waits for a block"
    },
    "test_departure": {
        "wsgi": "a WSGI server tells nothing of the client while it waits for a block"
    },
    "test_errors": _ONCE,
    "test_every_kind_of_promise": {
        "asgi-threads": "what a promise is belongs to no host",
        "asgi-loop": "what a promise is belongs to no host",
    },
    "test_input": {"wsgi": "the input is the server's own"},
    "test_iterables_of_both_kinds": _ONCE,
    "test_iterate_using_in_thread": _ONCE,
    "test_paths": {"wsgi": "the environ is the server's own"},
    "test_pep3333": _ONCE,
    "test_push": _ONCE,
    "test_thread_locals": _ONCE,
    "test_waiting_anywhere": _ONCE,
}
"""Those that are run under hosts, but for the ones that are given here, with the reason; the other
modules are about Bide's own server."""

_DEPARTS = "cheroot waits for the next block, and learns only from sending it that nobody is there"
_HEAD = "cheroot closes the connection after a HEAD whose length is not known"

_ASGI: dict[str, tuple[str, ...]] = {
    "uvicorn takes a client that has closed its sending side for one that has left": (
        "test_departure::test_a_half_closed_client_is_still_written_to",
        "test_departure::test_a_half_closed_client_is_answered_after_a_wait_if_so_configured",
        "test_departure::test_requests_pipelined_before_a_half_close_are_all_answered",
        "test_departure::test_requests_pipelined_behind_one_that_was_cancelled_are_not_begun",
        "test_departure::test_a_half_closed_upload_is_read_to_its_end_if_so_configured",
    ),
    "an ASGI server tells nothing of its connections": (
        "test_departure::test_nothing_is_left_of_a_request_that_was_answered",
    ),
    "what is malformed is the server's to notice, and a departure to the application": (
        "test_input::test_a_malformed_chunk_raises_at_the_read_and_answers_400",
        "test_input::test_a_malformed_chunk_after_the_head_cuts_the_response",
    ),
    "ASGI's receive is what sends 100 Continue, and what tells a departure": (
        "test_input::test_100_continue_is_sent_when_the_application_reads",
        "test_input::test_100_continue_is_not_sent_when_the_application_does_not_read",
        "test_input::test_100_continue_is_not_sent_when_the_body_comes_unasked",
        "test_input::test_100_continue_is_not_sent_once_the_response_has_begun",
        "test_input::test_a_body_that_was_not_asked_for_before_a_refusal_cannot_be_read",
    ),
    "uvicorn writes the head in its own way": (
        "test_pep3333::test_the_head_is_sent_as_the_application_gave_it",
        "test_pep3333::test_date_and_server_are_the_application_s_where_it_gives_them",
    ),
    "uvicorn sends chunks to HTTP/1.0, too": (
        "test_pep3333::test_several_blocks_go_to_an_old_client_as_they_are",
    ),
    "the host has its own way to stop": (
        "test_pep3333::test_close_is_called_once_when_the_server_stops",
        "test_push::test_a_push_is_cancelled_when_the_server_stops",
    ),
    "the test names Bide's own executors": (
        "test_pep3333::test_multithread_tells_the_truth[asgi-threads-2-multithread1]",
    ),
    "the client has left before the application gives its next block": (
        "test_pep3333::test_close_is_called_once_when_sending_fails",
    ),
    "it is the loop that sends, and learns of a departure": (
        "test_push::test_a_pusher_that_notices_first_ends_the_request_quietly",
    ),
    "uvicorn reads no further behind a full buffer, and so does not always see the end there": (
        "test_departure::test_a_departure_is_noticed_behind_a_body_that_nobody_reads",
    ),
    "uvicorn has a buffer of its own, and takes more meanwhile": (
        "test_push::test_write_on_the_loop_would_block_when_the_client_is_behind",
    ),
}

CANNOT: dict[str, dict[str, tuple[str, ...]]] = {
    "asgi-threads": _ASGI,
    "asgi-loop": _ASGI,
    "wsgi": {
        _DEPARTS: (
            "test_async_applications::test_a_coroutine_is_cancelled_when_the_client_leaves",
            "test_every_kind_of_promise::test_a_wait_is_cancelled_when_the_client_leaves",
            "test_every_kind_of_promise::"
            "test_a_promise_that_fires_after_the_request_has_ended_is_ignored",
            "test_every_kind_of_promise::"
            "test_a_wait_that_nothing_ends_leaves_nothing_behind_when_it_is_over",
            "test_every_kind_of_promise::"
            "test_departure_is_raised_at_the_line_and_not_as_an_exception",
            "test_iterate_using_in_thread::test_in_thread_holds_no_lane_while_it_blocks",
            "test_iterate_using_in_thread::test_iterate_is_cancelled_when_the_client_leaves",
            "test_iterate_using_in_thread::test_using_is_left_when_the_client_leaves_in_the_block",
            "test_iterate_using_in_thread::"
            "test_using_is_given_up_when_the_client_leaves_while_it_is_entered",
            "test_iterate_using_in_thread::"
            "test_using_leaves_what_was_entered_in_spite_of_being_cancelled",
            "test_pep3333::test_close_is_called_once_when_the_client_leaves",
            "test_push::test_a_request_that_pushes_to_a_stalled_client_ends_with_its_own",
            "test_push::test_after_the_client_left_both_raise",
            "test_thread_locals::test_a_request_that_is_cancelled_cleans_up_with_its_own",
            "test_waiting_anywhere::test_a_wait_in_finally_while_being_cancelled_is_allowed",
            "test_waiting_anywhere::test_waits_in_finally_while_being_cancelled_are_bounded",
            "test_waiting_anywhere::test_a_timeout_of_its_own_ends_a_wait_in_finally_as_a_timeout",
            "test_waiting_anywhere::test_a_departure_is_raised_in_the_greenlet_that_waits",
            "test_waiting_anywhere::"
            "test_a_promise_is_cancelled_when_the_client_had_left_before_the_wait",
            "test_waiting_anywhere::"
            "test_twisted_has_nothing_to_say_about_a_deferred_that_was_cancelled",
        ),
        _HEAD: (
            "test_async_applications::test_an_application_may_be_asynchronous",
            "test_pep3333::test_responses_without_a_body_have_none",
            "test_pep3333::test_a_generator_s_finally_runs_before_the_connection_is_used_again",
            "test_push::test_head_is_answered_by_finish_alone",
        ),
        "cheroot closes the application's iterable before it sends the end": (
            "test_waiting_anywhere::test_close_may_wait",
        ),
        "the host has its own way to stop": (
            "test_pep3333::test_close_is_called_once_when_the_server_stops",
            "test_push::test_a_push_is_cancelled_when_the_server_stops",
        ),
        "the environ and the Server header are the host's own": (
            "test_pep3333::test_the_head_is_sent_as_the_application_gave_it",
            "test_pep3333::test_the_environ_tells_the_request",
            "test_pep3333::test_multithread_tells_the_truth[wsgi-1-multithread0]",
            "test_pep3333::test_multithread_tells_the_truth[wsgi-2-multithread1]",
        ),
        "cheroot keeps the environ, and with it the finish in it": (
            "test_push::test_a_finish_kept_in_the_environ_alone_is_lost",
        ),
        "cheroot takes a body that nobody has read for the next request": (
            "test_pep3333::test_an_unread_body_does_not_end_the_connection",
        ),
        "cheroot reads a body that nobody has read before it closes": (
            "test_errors::test_an_error_while_a_body_is_unread_is_answered",
        ),
        "cheroot just closes, and to HTTP/1.0 that is the end of what has no Content-Length": (
            "test_errors::test_a_cut_response_never_looks_complete[wsgi-None-1.0]",
        ),
        "each block waits for the host, which may send on meanwhile": (
            "test_push::test_write_in_a_request_parks_while_the_client_is_behind",
            "test_push::test_write_on_the_loop_would_block_when_the_client_is_behind",
        ),
    },
    "twisted": {
        "Twisted takes in the whole body before it asks the resource": (
            "test_departure::test_a_departure_is_noticed_behind_a_body_that_nobody_reads",
            "test_departure::test_a_request_may_clean_up_wherever_it_learns_of_the_departure",
            "test_errors::test_an_error_while_a_body_is_unread_is_answered",
            "test_input::test_100_continue_is_not_sent_once_the_response_has_begun",
            "test_input::test_100_continue_is_not_sent_when_the_application_does_not_read",
            "test_input::test_100_continue_is_not_sent_when_the_body_comes_unasked",
            "test_input::test_100_continue_is_sent_when_the_application_reads",
            "test_input::test_a_block_is_given_as_soon_as_it_has_come",
            "test_input::test_a_body_that_breaks_off_raises_at_the_read",
            "test_input::test_a_body_that_was_not_asked_for_before_a_refusal_cannot_be_read",
            "test_input::test_no_order_of_reading_and_writing_hangs_with_100_continue",
            "test_input::test_a_coroutine_reads_the_body_in_a_thread",
            "test_input::test_a_malformed_chunk_after_the_head_cuts_the_response",
            "test_input::test_a_malformed_chunk_raises_at_the_read_and_answers_400",
            "test_input::test_memory_is_bounded_by_a_window",
            "test_input::test_reading_waits_and_holds_no_thread",
            "test_input::test_the_errors_of_the_body_are_the_request_s_own",
            "test_pep3333::test_an_unread_body_does_not_end_the_connection",
        ),
        "to Twisted a half-closed connection is lost": (
            "test_departure::test_a_half_closed_client_is_answered_after_a_wait_if_so_configured",
            "test_departure::test_a_half_closed_client_is_still_written_to",
            "test_departure::test_a_half_closed_upload_is_read_to_its_end_if_so_configured",
            "test_departure::test_requests_pipelined_before_a_half_close_are_all_answered",
        ),
        "the reactor alone sends, a turn later, and takes more meanwhile": (
            "test_push::test_a_pusher_that_notices_first_ends_the_request_quietly",
            "test_push::test_write_on_the_loop_would_block_when_the_client_is_behind",
        ),
        "its client may have all it wants, and be gone, before the block too many": (
            "test_pep3333::test_close_is_called_once_when_sending_fails",
        ),
        "the host has its own way to stop": (
            "test_pep3333::test_close_is_called_once_when_the_server_stops",
            "test_push::test_a_push_is_cancelled_when_the_server_stops",
        ),
        "Twisted writes the names of headers its own way, those of one name together": (
            "test_pep3333::test_the_head_is_sent_as_the_application_gave_it",
        ),
        "the connections are the host's own, and not counted": (
            "test_departure::test_nothing_is_left_of_a_request_that_was_answered",
        ),
        "it has threads, which the test expects of the executor of that name": (
            "test_pep3333::test_multithread_tells_the_truth[twisted-2-multithread1]",
        ),
    },
}
"""What a host cannot do: for each, a reason, and the tests that are expected to fail for it.

A test is named with its module, and in brackets with its parameters where not all of it fails."""

PATIENCE = 0.15
"""Seconds that a test waits that is expected to fail."""

NOT_TRIED = (
    # They would take as long again as all the others together.
    "test_every_kind_of_promise::test_a_wait_is_cancelled_when_the_client_leaves",
    "test_every_kind_of_promise::test_a_promise_that_fires_after_the_request_has_ended_is_ignored",
    "test_every_kind_of_promise::"
    "test_a_wait_that_nothing_ends_leaves_nothing_behind_when_it_is_over",
    "test_every_kind_of_promise::test_departure_is_raised_at_the_line_and_not_as_an_exception",
    # Whether they fail depends on how quick the host is, or the test.
    "test_iterate_using_in_thread::test_in_thread_holds_no_lane_while_it_blocks",
    "test_pep3333::test_close_is_called_once_when_sending_fails",
    "test_push::test_write_in_a_request_parks_while_the_client_is_behind",
    "test_push::test_write_on_the_loop_would_block_when_the_client_is_behind",
    "test_departure::test_requests_pipelined_before_a_half_close_are_all_answered",
    "test_departure::test_a_departure_is_noticed_behind_a_body_that_nobody_reads",
    "test_input::test_100_continue_is_sent_when_the_application_reads",
    "test_input::test_100_continue_is_not_sent_when_the_application_does_not_read",
    "test_input::test_100_continue_is_not_sent_when_the_body_comes_unasked",
    "test_input::test_100_continue_is_not_sent_once_the_response_has_begun",
    "test_input::test_a_body_that_was_not_asked_for_before_a_refusal_cannot_be_read",
    "test_input::test_no_order_of_reading_and_writing_hangs_with_100_continue",
)
"""Expected failures that are not run."""


def reason(host: str, module: str, test: str) -> str | None:
    """Return why a test is expected to fail under a host; None where it is not.

    Args:
        host: its name in ``HOSTS``.
        module: the test's module, without its package.
        test: the test's name, with its parameters.
    """
    plain = test.partition("[")[0]
    for why, tests in CANNOT.get(host, {}).items():
        if f"{module}::{plain}" in tests or f"{module}::{test}" in tests:
            return why
    return None
