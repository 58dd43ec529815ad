"""Every setting has a test that its effect can be seen from outside: over a socket, in the log.

A new setting needs a line here. The table is in the order of the alphabet, so that two who add
something seldom meet.
"""

import ast
import re
from pathlib import Path

from bide.environment import FIELDS, flag, variable
from tests.failures import Failures

ROOT = Path(__file__).parent

EFFECTS = {
    "access_format": "serving/test_access_log.py::test_lines_in_json_have_one_schema",
    "access_log": "live/test_command_line.py::test_the_access_log_goes_to_standard_output",
    "app_dir": "test_cli.py::test_the_application_is_imported_from_its_directory",
    "asgi_cancel": "asgi/test_http.py"
    "::test_a_call_is_cancelled_some_time_after_its_client_has_left",
    "backlog": "contract/test_sizes.py::test_so_many_connections_wait_to_be_accepted",
    "bind": "live/test_command_line.py::test_several_addresses_are_listened_on",
    "blocked_loop": "live/test_lanes.py::test_a_blocked_loop_is_named_in_the_log",
    "blocked_thread": "live/test_lanes.py::test_a_blocked_lane_is_named_in_the_log",
    "certificate": "live/test_tls.py::test_openssl_s_client_gets_what_it_asks_for",
    "client_ca": "live/test_tls.py"
    "::test_a_client_s_certificate_is_asked_for_and_told_to_the_application",
    "client_certificate": "live/test_tls.py"
    "::test_a_client_s_certificate_is_asked_for_and_told_to_the_application",
    "client_connections": "contract/test_clients_limits.py"
    "::test_one_connection_too_many_of_a_client_is_reset",
    "client_requests": "contract/test_clients_limits.py"
    "::test_one_request_too_many_of_a_client_is_answered_429",
    "control": "live/test_control.py::test_a_server_answers_at_the_path_that_it_is_told",
    "drain_delay": "live/test_signals.py"
    "::test_a_server_serves_on_for_the_delay_and_a_second_signal_ends_it",
    "executor": "live/test_command_line.py"
    "::test_the_first_line_says_where_it_listens_and_how_it_runs",
    "graceful_timeout": "live/test_signals.py"
    "::test_requests_that_are_not_finished_in_time_are_cancelled",
    "half_close": "contract/test_departure.py"
    "::test_a_half_closed_client_is_answered_after_a_wait_if_so_configured",
    "head_timeout": "live/test_deadlines.py::test_who_takes_too_long_is_ended_alone",
    "health": "contract/test_limits.py::test_the_health_path_is_answered_by_the_server",
    "http2": "serving/test_http2.py::test_it_can_be_switched_off",
    "idle_timeout": "live/test_deadlines.py::test_an_idle_connection_is_closed_in_time",
    "interface": "applications/test_mounts.py::test_what_is_named_is_imported_and_known",
    "key": "live/test_tls.py::test_the_command_line_serves_https_or_says_in_one_line_why_not",
    "key_password_file": "live/test_tls.py"
    "::test_the_command_line_serves_https_or_says_in_one_line_why_not",
    "lifespan": "asgi/test_lifespan.py::test_an_application_that_knows_no_lifespan_is_served",
    "limit_body": "contract/test_limits.py::test_a_body_that_says_it_is_too_long_is_refused_unread",
    "limit_chunks": "contract/test_limits.py::test_a_body_of_many_small_chunks_is_refused",
    "limit_connections": "live/test_overload.py"
    "::test_one_connection_too_many_waits_and_is_served_when_another_ends",
    "limit_discard": "contract/test_sizes.py"
    "::test_a_body_that_was_left_unread_is_taken_up_to_a_bound_to_keep_the_connection",
    "limit_fields": "contract/test_sizes.py"
    "::test_a_request_within_a_bound_is_answered_and_one_beyond_it_is_refused",
    "limit_framing": "contract/test_sizes.py"
    "::test_a_request_within_a_bound_is_answered_and_one_beyond_it_is_refused",
    "limit_head": "contract/test_sizes.py"
    "::test_a_request_within_a_bound_is_answered_and_one_beyond_it_is_refused",
    "limit_pipeline": "contract/test_pipeline_bound.py::test_no_more_requests_wait_than_the_limit",
    "limit_request_line": "contract/test_sizes.py"
    "::test_a_request_within_a_bound_is_answered_and_one_beyond_it_is_refused",
    "limit_spawned": "contract/test_spawn.py::test_there_is_a_bound",
    "limit_threads": "live/test_lanes.py::test_threads_are_started_when_they_are_needed",
    "limit_unread": "contract/test_sizes.py"
    "::test_a_request_begins_when_so_much_of_its_body_is_there",
    "limit_unread_total": "contract/test_held_together.py"
    "::test_bodies_that_wait_are_bounded_together",
    "limit_unsent": "contract/test_sizes.py"
    "::test_an_application_waits_when_so_much_of_its_response_waits_for_the_client",
    "limit_unsent_total": "contract/test_held_together.py"
    "::test_at_the_bound_an_application_makes_no_more_before_its_client_has_taken_all",
    "linger_timeout": "contract/test_limits.py"
    "::test_a_refused_upload_that_goes_on_slowly_is_read_and_then_its_answer",
    "log_config": "live/test_signals.py"
    "::test_what_python_and_the_deployers_handlers_write_holds_up_nothing",
    "log_format": "live/test_command_line.py::test_the_log_has_its_level_and_its_form",
    "log_level": "live/test_command_line.py::test_the_log_has_its_level_and_its_form",
    "max_requests": "live/test_workers.py::test_a_worker_is_replaced_after_so_many_requests",
    "max_requests_jitter": "process/test_wear.py"
    "::test_a_worker_is_worn_out_after_its_number_of_requests",
    "max_rss": "live/test_workers.py::test_a_worker_is_replaced_when_it_has_too_much_memory",
    "min_rate": "live/test_deadlines.py::test_who_takes_too_long_is_ended_alone",
    "opentelemetry": "serving/test_telemetry.py"
    "::test_opentelemetry_is_told_of_each_request_by_its_two_instruments",
    "pid_file": "live/test_services.py::test_a_second_server_with_the_same_pid_file_is_refused",
    "preload": "live/test_workers.py::test_preloaded_workers_are_forked_from_one_that_has_imported",
    "process_pool": "contract/test_heavy_work.py"
    "::test_one_call_too_many_is_refused_by_the_settings",
    "process_queue": "contract/test_heavy_work.py"
    "::test_one_call_too_many_is_refused_by_the_settings",
    "processes": "contract/test_in_processes.py::test_one_request_too_many_is_refused",
    "proxy_protocol": "live/test_proxies.py"
    "::test_behind_haproxy_the_client_is_who_has_connected_to_it",
    "queue": "live/test_overload.py"
    "::test_each_request_beyond_the_queue_is_answered_and_may_come_again",
    "queue_timeout": "live/test_overload.py"
    "::test_requests_that_were_queued_for_too_long_are_answered_and_never_run",
    "reactor": "live/test_reactor.py::test_an_application_uses_clients_of_twisteds",
    "ready": "contract/test_limits.py::test_a_server_that_stops_lives_and_is_not_ready",
    "request_id": "serving/test_access_log.py::test_a_request_has_an_id_wherever_it_is_looked_for",
    "request_timeout": "contract/test_limits.py"
    "::test_a_request_that_waits_too_long_is_answered_504",
    "response_timeout": "live/test_deadlines.py::test_who_takes_too_long_is_ended_alone",
    "root_path": "contract/test_proxies.py"
    "::test_a_root_path_is_added_and_nothing_is_taken_from_the_path",
    "server_timing": "serving/test_requests.py"
    "::test_a_response_says_where_the_time_went_until_its_head",
    "socket_mode": "live/test_starting.py::test_paths_are_those_of_where_bide_was_started",
    "status": "live/test_status_page.py::test_it_is_live_while_all_lanes_are_blocked",
    "status_token": "live/test_status_page.py"
    "::test_a_token_lets_it_be_shown_to_others_and_is_shown_to_nobody",
    "tcp_keepalive": "transports/test_acceptor.py::test_a_server_has_its_clients_asked",
    "threads": "live/test_lanes.py::test_threads_are_started_when_they_are_needed",
    "tls_minimum": "live/test_tls.py::test_the_oldest_version_is_the_deployer_s_choice",
    "trust": "live/test_proxies.py::test_behind_nginx_the_client_is_who_has_connected_to_it",
    "trust_headers": "contract/test_proxies.py::test_what_a_trusted_proxy_tells_is_in_the_environ",
    "websocket_deflate": "contract/test_websockets.py::test_compression_can_be_switched_off",
    "websocket_max_size": "contract/test_websockets.py::test_a_bomb_ends_its_socket_alone",
    "worker_timeout": "live/test_workers.py"
    "::test_a_worker_whose_loop_is_blocked_is_killed_and_its_stacks_are_told",
    "workers": "live/test_workers.py::test_workers_serve_are_named_and_finish_at_a_stop",
}
"""The test of each setting, below ``tests/``."""


def test_every_setting_has_a_test_of_its_effect() -> None:
    """One that is there, in a module that gives the setting."""
    assert list(EFFECTS) == sorted(EFFECTS)
    with Failures() as failures:
        for name in FIELDS.keys() | EFFECTS.keys():
            with failures.of(name):
                assert name in FIELDS, "it is in the table, and there is no such setting"
                assert name in EFFECTS, "name the test of its effect in the table"
                path, _, function = EFFECTS[name].partition("::")
                text = (ROOT / path).read_text(encoding="utf-8")
                defined = {
                    node.name
                    for node in ast.walk(ast.parse(text))
                    if isinstance(node, ast.FunctionDef)
                }
                assert function in defined
                given = rf'\b{name}=|"{name}"|{flag(name)}"|{variable(name)}\b'
                assert re.search(given, text), f"{path} does not give it"
