"""The contract in child processes: which of its tests can be run there.

Most tests share objects with their applications: a list that these fill, a gate that the test
opens. An application in another process has copies of them. The tests here share nothing, and look
at the responses and the log's lines alone. ``test_in_processes`` asks for the rest in its own way.
"""

IN_PROCESSES = {
    "test_errors": {"test_an_error_handler_in_middleware_answers"},
    "test_every_kind_of_promise": {"test_what_is_no_promise_is_refused"},
    "test_file_wrapper": {
        "test_a_file_after_write_is_sent_behind_it",
        "test_a_part_of_a_file_is_sent_with_the_length_given",
        "test_an_empty_file_and_one_under_proc_are_sent",
        "test_blocks_of_the_wrapper_are_of_the_size_asked_for",
        "test_whatever_has_read_is_sent_as_iterating_it_would",
    },
    "test_input": {
        "test_a_malformed_chunk_after_the_head_cuts_the_response",
        "test_a_request_without_a_body_has_an_empty_input",
        "test_reads_are_exact",
        "test_the_errors_of_the_body_are_the_request_s_own",
    },
    "test_paths": {"test_a_path_is_decoded_once_and_the_raw_one_kept"},
    "test_pep3333": {
        "test_a_connection_header_is_dropped_and_logged_once",
        "test_a_decorated_application_is_served",
        "test_a_length_that_was_given_is_kept",
        "test_a_refused_head_can_be_caught_and_replaced",
        "test_a_response_that_was_never_started_is_an_error",
        "test_a_subclass_of_bytes_is_bytes",
        "test_an_unread_body_does_not_end_the_connection",
        "test_empty_blocks_may_come_before_start_response",
        "test_exc_info_may_be_caught_and_the_response_go_on",
        "test_exc_info_without_a_head_before_starts_the_response",
        "test_head_of_a_list_has_the_length_that_get_would_have",
        "test_one_block_in_a_list_has_its_length",
        "test_responses_without_a_body_have_none",
        "test_several_blocks_are_chunked_each_as_it_is",
        "test_several_blocks_go_to_an_old_client_as_they_are",
        "test_the_head_is_sent_as_the_application_gave_it",
        "test_the_status_and_the_departure_can_be_asked_for",
        "test_the_validator_finds_nothing",
        "test_write_alone_makes_a_body",
        "test_write_takes_nothing_but_bytes",
        "test_wsgi_errors_is_a_text_stream",
    },
    "test_push": {
        "test_exc_info_replaces_the_head_of_a_push",
        "test_finish_in_the_call_ends_the_response",
        "test_none_without_finish_is_an_error",
    },
}
"""By module, the tests."""
