"""Write docs/security.md from the samples of HTTP and the list of published advisories.

Run it after a change in ``tests/samples/http1`` or ``tests/advisories/published.json``:
``python docs/make_security.py``. A test says when it was forgotten.
"""

from __future__ import annotations

import json
import pathlib
import re
import sys

PAGE = pathlib.Path(__file__).with_name("security.md")
ROOT = PAGE.parent.parent
if __name__ == "__main__":  # a test that imports this has the project on its path
    sys.path.insert(0, str(ROOT))

from tests.samples.tables import Sample, samples  # noqa: E402

SHOWN = 120
"""Characters of an attack that are shown; a longer one is cut in its middle."""

INTRODUCTION = """\
# Security

<!-- Made by docs/make_security.py from tests/samples/http1 and tests/advisories/published.json. -->

What Bide promises, which attacks are known, and what it answers. Each line of the tables is a
test. [SECURITY.md](../SECURITY.md) says how to report another attack.

- [What it protects from](#what-it-protects-from)
- [What it does not protect from](#what-it-does-not-protect-from)
- [The limits](#the-limits)
- [Attacks on what a request is](#attacks-on-what-a-request-is)
- [Attacks on time, memory and the log](#attacks-on-time-memory-and-the-log)
- [Published advisories](#published-advisories)

## What it protects from

- **Bide and a proxy read a request differently.** Bide reads HTTP/1.1 as strictly as RFC 9110 and
  9112 allow. It refuses a request that is not clear, and never guesses: it answers with an error
  and `Connection: close`, and parses no further byte of that connection. The checks of HTTP/2 are
  the same; there an error ends the one stream, for the others may be other people's.
- **A client holds what others need.** A client that is slow to send its request or to take its
  response holds no thread. Each client has a deadline for the head, a minimum rate for the body and
  the response, and a limit of memory in both directions. There is a limit for all clients together,
  too.
- **A client costs more than it sends.** The cost of a request grows linearly with its bytes. No
  pattern backtracks, and no byte costs more than three of the cheapest. A header, a chunk, a
  trailer and a request each cost more than their few bytes, so their number is limited.
- **An application's mistake becomes an attack.** A status or a header with
  control characters is refused, and so is a header that belongs to the connection. A body that is
  not as long as its Content-Length is cut, so that it never looks complete. An error becomes a
  500 without details, or a response that is cut. The next request is served.
- **A header passes for another one.** Names with `_`, and `Proxy`, do not reach the environ. No
  client can change `REMOTE_ADDR`, `wsgi.url_scheme` or `SCRIPT_NAME` by a header. `Forwarded` and
  `X-Forwarded-…` are read only from [trusted proxies](proxies.md), and reach the application only
  from these. By default no proxy is trusted.
- **Forged lines in the log.** Request targets are logged as they were sent, never decoded.

## What it does not protect from

- **Eavesdroppers, without TLS.** Use a certificate for [HTTPS](tls.md), or let a proxy in
  front end TLS; see [deployment](deployment.md).
- **A flood from thousands of addresses.** The limits bound the cost of a connection and the number
  of connections. `--client-connections` and `--client-requests`, if set, limit what one address
  has. An attacker with many addresses can keep others waiting, within the deadlines. Limit the rate
  of requests in a proxy or a firewall.
- **What the application does.** Bide does not interpret bodies, cookies, queries or paths. Forms,
  uploads, `..` in a path, sessions and authorization are the application's task. A traceback in the
  log shows the text of the application's error, which may quote what a client sent.
- **An application that blocks.** If requests block all threads, others stay in the queue. Bide
  says in the log what blocks, and in the end answers 503, but never ends running code.
- **A trusted proxy that passes on what its clients send.** The proxy must set or remove every
  header for which Bide [trusts](proxies.md#only-some-of-the-headers) it.

## The limits

Every limit is a setting: see the settings for [time](settings.md#time) and for
[space](settings.md#space). The defaults are safe. Two limits have no default, because only you know
the right value: the total time of a request and of a response, `--request-timeout` and
`--response-timeout`. Some limits can be switched off by 0; then a client may fill the memory.

## Attacks on what a request is

There are {count} samples, and {refused} of them are refused. Each is fed whole, byte by byte, and
split at many places, with a good request behind it. The result is always the same. The table shows
one example of the bytes for each attack. "Closed" means: earlier requests are answered, the answer
has `Connection: close`, and the connection is closed slowly enough for the answer to arrive.

| attack | for example | answer | source | samples |
|---|---|---|---|---|
"""

BEHAVIOUR = """\

If a body is malformed, the application's read raises `RemoteProtocolError`. If the application does
not handle it, it becomes the answer. The connection is always closed.

## Attacks on time, memory and the log

| attack | answer | tested in |
|---|---|---|
"""

ADVISORIES = """\

## Published advisories

Published mistakes of other servers and frameworks for Python. `tests/advisories` replays them
against Bide. The descriptions are ours.

| advisory | of | attack | Bide's answer |
|---|---|---|---|
"""

ABSENT = """\

These do not concern Bide yet, because it does not have the feature:

| advisory | of | attack | not here, for |
|---|---|---|---|
"""

# What does not depend on the bytes of one request: the attack, the answer, and a test of it.
OTHERS = [
    (
        "A head that comes slowly, or never ends",
        "408 after `--head-timeout`, from its first byte",
        "tests/contract/test_deadlines_of_connections.py",
        "test_a_head_has_its_time_from_the_first_byte",
    ),
    (
        "Empty lines, or halves of them, that never become a request",
        "they begin a head, all but one of them: 408 after `--head-timeout`",
        "tests/contract/test_deadlines_of_connections.py",
        "test_empty_lines_do_not_prolong_the_time_of_a_head",
    ),
    (
        "A body that comes slowly",
        "408 when `--idle-timeout` is used up, which `--min-rate` earns back",
        "tests/contract/test_deadlines_of_connections.py",
        "test_a_body_that_is_slower_than_the_rate_uses_its_time_up",
    ),
    (
        "A client that does not read its response",
        "the application waits, then the connection is reset",
        "tests/contract/test_deadlines_of_connections.py",
        "test_a_client_that_takes_nothing_is_reset_when_its_time_is_over",
    ),
    (
        "A client that takes a large response as slowly as it may",
        "it must take what waits in half an hour, else the connection is reset",
        "tests/contract/test_deadlines_of_connections.py",
        "test_the_rate_grows_with_what_is_held",
    ),
    (
        "Sending and taking by turns, for more time",
        "a body and a response have one allowance together",
        "tests/contract/test_deadlines_of_connections.py",
        "test_sending_and_taking_by_turns_does_not_prolong_the_time",
    ),
    (
        "Many clients that do not read large responses",
        "queued by reference; at `--limit-unsent-total` those with the most are given up first",
        "tests/contract/test_held_together.py",
        "test_those_who_hold_the_most_are_given_up_first_and_no_more_than_must_be",
    ),
    (
        "Many bodies that wait to be read",
        "at `--limit-unread-total` each is read no further before it is empty",
        "tests/contract/test_held_together.py",
        "test_bodies_that_wait_are_bounded_together",
    ),
    (
        "Messages of a WebSocket that inflate to a thousand times their size",
        "parsed as far as may wait, the rest stays as it came; 1009 beyond `--websocket-max-size`",
        "tests/live/test_constant_memory.py",
        "test_bombs_of_many_websockets_take_a_window_and_some_messages_each",
    ),
    (
        "Messages of many WebSockets that never end",
        "at `--limit-unread-total` those that are longer than `--limit-unread` are refused: 1013",
        "tests/protocols/websocket/test_frames.py",
        "test_a_message_that_is_coming_counts_and_a_long_one_is_refused_at_the_bound",
    ),
    (
        "A client that vanishes without a word",
        "asked by TCP's keep-alive after `--tcp-keepalive` of silence, then lost",
        "tests/transports/test_acceptor.py",
        "test_connections_are_asked_for_when_they_are_silent",
    ),
    (
        "A body that grows too large",
        "413 where it exceeds `--limit-body`",
        "tests/contract/test_limits.py",
        "test_a_chunked_body_that_grows_too_long_is_refused",
    ),
    (
        "A body that the application does not read",
        "read no further than `--limit-unread`; discarded up to `--limit-discard`, else closed",
        "tests/protocols/http1/test_connection.py",
        "test_body_that_is_too_long_to_drain_closes_the_connection",
    ),
    (
        "Very many chunks",
        "400 beyond `--limit-chunks`",
        "tests/contract/test_limits.py",
        "test_a_body_of_many_small_chunks_is_refused",
    ),
    (
        "Endless sizes, extensions and trailers",
        "400 beyond `--limit-framing`",
        "tests/protocols/http1/test_limits.py",
        "test_framing_of_a_chunked_body_is_bounded",
    ),
    (
        "Pipelined requests without number",
        "read no further when `--limit-pipeline` wait",
        "tests/advisories/test_behaviour.py",
        "test_a_client_is_read_no_further_when_many_of_its_requests_wait",
    ),
    (
        "Requests of a client that takes no answers",
        "not begun before it does",
        "tests/live/test_hardened.py",
        "test_requests_of_a_client_that_takes_no_answers_wait",
    ),
    (
        "More connections than there is room for",
        "new ones wait in the backlog, and idle ones are closed for them",
        "tests/contract/test_deadlines_of_connections.py",
        "test_an_idle_connection_of_a_crowded_server_is_closed_at_the_second_look",
    ),
    (
        "Requests that cost more than their bytes",
        "none: calls and copied bytes are counted, for twice the input and against plain data",
        "tests/advisories/test_linear_cost.py",
        "test_twice_as_much_is_twice_the_work",
    ),
    (
        "Departure at any moment",
        "the connection ends, and the wait is cancelled",
        "tests/contract/test_departure.py",
        "test_a_departure_is_noticed_while_nothing_is_written",
    ),
    (
        "Departure before the connection is accepted",
        "the connection ends, and the loop sleeps",
        "tests/advisories/test_behaviour.py",
        "test_a_client_that_leaves_before_it_is_accepted_does_no_harm",
    ),
    (
        "A response that would be split",
        "500, logged; nothing of it is sent",
        "tests/protocols/http1/test_writing.py",
        "test_head_with_a_control_character_is_refused",
    ),
    (
        "A response whose length is wrong",
        "500 before the head is sent; afterwards it is cut",
        "tests/contract/test_pep3333.py",
        "test_less_than_content_length_is_an_error_and_cut",
    ),
    (
        "Escape sequences and line ends for the log",
        "percent-encoded as they were sent; raw ones are refused",
        "tests/advisories/test_log_lines.py",
        "test_raw_bytes_that_would_have_to_be_escaped_are_refused",
    ),
]


def page() -> str:
    """Return the page's text."""
    attacks: dict[str, list[Sample]] = {}
    for sample in samples():
        if sample.attack:
            attacks.setdefault(sample.attack, []).append(sample)
    refused = sum(sample.kind == "reject" for sample in samples())
    advisories = ROOT / "tests" / "advisories" / "published.json"
    published = json.loads(advisories.read_text(encoding="utf-8"))
    return "".join(
        [
            INTRODUCTION.format(count=len(samples()), refused=refused),
            *(_attack(name, attacks[name]) for name in sorted(attacks, key=_order)),
            BEHAVIOUR,
            *(_row(attack, answer, f"`{path}`") for attack, answer, path, _ in OTHERS),
            ADVISORIES,
            *(
                _row(each["id"], each["of"], each["attack"], each["answer"])
                for each in published
                if "answer" in each
            ),
            ABSENT,
            *(
                _row(each["id"], each["of"], each["attack"], each["absent"])
                for each in published
                if "absent" in each
            ),
        ]
    )


def readable(data: bytes) -> str:
    """Show bytes in a line: what is not printable, and a backslash, as in Python."""
    text = "".join(
        chr(byte) if 0x20 <= byte < 0x7F and byte != 0x5C else repr(bytes([byte]))[2:-1]
        for byte in data
    )
    text = re.sub(r"(.{1,12}?)\1{9,}", r"\1…", text)
    if len(text) > SHOWN:
        text = f"{text[: SHOWN // 2]}…{text[-SHOWN // 2 :]}"
    return text


def _order(attack: str) -> str:
    return attack.lower().removeprefix("a ").removeprefix("an ").lstrip("`")


def _attack(name: str, group: list[Sample]) -> str:
    (shown,) = [each for each in group if each.shown]
    answer = shown.answer
    if not answer:
        statuses = sorted({each.status for each in group})
        *first, last = map(str, statuses)
        answer = f"{', '.join(first)} or {last}, closed" if first else f"{last}, closed"
    return _row(
        name,
        f"`{readable(shown.data)}`".replace("|", "\\|"),
        answer,
        _sources(group),
        str(len(group)),
    )


def _sources(group: list[Sample]) -> str:
    sections: dict[str, list[str]] = {}
    advisories = set()
    for source in sorted({source for each in group for source in each.source}):
        if source.startswith("RFC"):
            name, _, section = source.partition(" section ")
            sections.setdefault(name, []).extend([f"§{section}"] if section else [])
        else:
            advisories.add(source)
    found = [" ".join([name, ", ".join(each)]).strip() for name, each in sections.items()]
    return "; ".join([*found, *sorted(advisories)])


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
