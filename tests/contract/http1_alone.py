"""What of the contract's tests is about HTTP/1 itself, and cannot be asked over HTTP/2; and why."""

from fnmatch import fnmatchcase

_VERSION = "HTTP/1.0 has no counterpart"
_CHUNKS = "HTTP/2 has no chunks; tests/protocols/http2 sends bodies that break off"
_JOINED = "small frames that come together count as one; tests/protocols/http2 sends others"
_TURNS = "requests of one connection have no turns: each is begun when it comes"
_LINGERING = "a connection goes on behind a refused body: its stream is reset"
_HALF_CLOSED = "a client that has ended its side sends nothing that a window did not let through"
_FILES = "the kernel sends no file: it is sent in frames"
_WINDOWS = "each client may fill its first windows before it has heard anything"
_PROXIES = "it stands before the first byte of either; tests/serving/test_http2.py sends one"

HTTP1_ALONE: dict[str, str] = {
    # test_clients_limits and test_proxies
    "test_one_connection_too_many_of_a_client_is_reset*": _PROXIES,
    "test_a_proxy_header_*": _PROXIES,
    "test_who_is_not_trusted_sends_no_proxy_header*": _PROXIES,
    "test_headers_count_where_the_named_client_is_a_trusted_proxy_itself*": _PROXIES,
    "test_a_connection_without_its_proxy_header_is_closed_with_a_line*": _PROXIES,
    "test_a_stop_serves_what_has_come_behind_a_proxy_header_and_ends_the_others*": _PROXIES,
    # test_departure
    "test_requests_pipelined_before_a_half_close_are_all_answered*": _TURNS,
    "test_a_half_closed_upload_is_read_to_its_end_if_so_configured*": _HALF_CLOSED,
    "test_a_half_closed_upload_is_answered_if_the_application_runs*": _HALF_CLOSED,
    # test_errors
    "test_a_cut_response_never_looks_complete*-1.0?": _VERSION,
    # test_file_wrapper
    "test_a_file_is_sent_by_the_kernel_with_its_length*": _FILES,
    "test_a_file_is_sent_from_where_it_stands*": _FILES,
    "test_a_file_that_was_moved_through_its_wrapper_is_sent_by_the_kernel*": _FILES,
    "test_a_range_of_flask_s_is_sent_by_the_kernel*": _FILES,
    # test_held_together
    "test_bodies_that_wait_are_bounded_together*": _WINDOWS,
    "test_a_slow_disk_stops_nobody_but_its_own_request*": _FILES,
    # test_input
    "test_a_malformed_chunk_*": _CHUNKS,
    # test_limits
    "test_a_body_of_many_small_chunks_is_refused*": _JOINED,
    "test_a_refused_upload_that_goes_on_slowly_is_read_and_then_its_answer*": _LINGERING,
    "test_a_server_that_stops_lives_and_is_not_ready*": _TURNS,
    # test_pep3333
    "test_several_blocks_go_to_an_old_client_as_they_are*": _VERSION,
    # test_pipeline_bound
    "test_no_more_requests_wait_than_the_limit*": _TURNS,
    "test_a_client_that_leaves_behind_a_full_pipeline_is_answered_first*": _TURNS,
    # test_push
    "test_an_old_client_is_pushed_to_until_the_connection_ends*": _VERSION,
    # test_sizes
    "test_what_frames_a_body_within_a_bound_is_taken_and_more_is_refused*": _CHUNKS,
    # test_stopping
    "test_a_pipelined_request_whose_turn_*": _TURNS,
    "test_a_request_behind_a_response_that_was_slowly_taken_has_the_time_of_all*": _TURNS,
    "test_requests_of_all_applications_are_waited_for*": _TURNS,
}
"""Names of tests, with their parameters, as patterns of file names have them."""
UPGRADED = (
    *("test_lazy_websocket", "test_websocket_conformance", "test_websockets"),
    "test_websockets_over_http2",
)
"""Modules about WebSockets: by ``Upgrade``, which HTTP/2 has not, or with clients of their own."""


def reason(module: str, name: str) -> str | None:
    """Return why a test is not run over HTTP/2; None: it is.

    Args:
        module: its module's own name.
        name: its name, with its parameters.
    """
    if module in UPGRADED:
        return "it is about WebSockets"
    return next((why for each, why in HTTP1_ALONE.items() if fnmatchcase(name, each)), None)
