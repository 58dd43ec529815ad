"""The figures that are measured: what each is called, its unit, and which way is better."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Figure:
    """One kind of figure.

    Attributes:
        name: What the JSON calls it; the unit is its end.
        title: What the tables call it.
        more: Whether more is better; less is, if not.
        compared: Whether the tables divide Bide's by every peer's.
    """

    name: str
    title: str
    more: bool = False
    compared: bool = False


CPU_REQUEST = Figure("cpu_us_per_request", "CPU µs/request", compared=True)
CPU_EVENT = Figure("cpu_us_per_event", "CPU µs/event", compared=True)
CPU_MESSAGE = Figure("cpu_us_per_message", "CPU µs/message", compared=True)
CPU_STREAM = Figure("cpu_ms_per_stream", "CPU ms/stream", compared=True)
CPU_UPLOAD = Figure("cpu_ms_per_upload", "CPU ms/upload", compared=True)
CPU_START = Figure("cpu_ms_to_start", "CPU ms to start", compared=True)
REQUESTS = Figure("requests_per_second", "requests/s", more=True, compared=True)
EVENTS = Figure("events_per_second", "events/s", more=True, compared=True)
MESSAGES = Figure("messages_per_second", "messages/s", more=True, compared=True)
MEGABYTES = Figure("mb_per_second", "MB/s", more=True)
START = Figure("start_ms", "first answer after ms", compared=True)
P50 = Figure("p50_ms", "p50 ms")
P99 = Figure("p99_ms", "p99 ms")
NEW_CLIENT = Figure("new_client_ms", "new client ms")
QUICK_P50 = Figure("quick_p50_ms", "quick request p50 ms")
QUICK_P99 = Figure("quick_p99_ms", "quick request p99 ms")
EVENT_ALONE_P99 = Figure("event_alone_p99_ms", "event alone late by p99 ms")
EVENT_P99 = Figure("event_p99_ms", "event late by p99 ms")
LATER = Figure("later_by", "that ÷ alone")
COUNTS = Figure("million_counts_per_second", "million counts/s", more=True)
MEMORY = Figure("memory_mb", "memory MB")
PARKED = Figure("parked_mb", "MB parked")
KB_REQUEST = Figure("kb_per_request", "KB/request", compared=True)
KB_CLIENT = Figure("kb_per_client", "KB/client")
KB_SOCKET = Figure("kb_per_socket", "KB/socket", compared=True)
ALONE_P99 = Figure("alone_p99_ms", "quick request alone p99 ms")
BUSY = Figure("busy_threads", "busy threads")
