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
test. How to report what is missing is in [SECURITY.md](../SECURITY.md).

- [What it protects from](#what-it-protects-from)
- [What it does not protect from](#what-it-does-not-protect-from)
- [The limits](#the-limits)
- [Attacks on what a request is](#attacks-on-what-a-request-is)
- [Attacks on time, memory and the log](#attacks-on-time-memory-and-the-log)
- [Published advisories](#published-advisories)

## What it protects from

- **Another reading of a request than a proxy's.** HTTP/1.1 is taken as strictly as RFC 9110 and
  9112 allow. What is not certain is refused, never guessed: an answer with the status,
  `Connection: close`, and not one byte more of that connection is parsed.
- **A client that holds what others need.** Waiting for a client, for the rest of a request or to
  take its response, holds no thread. Each client has a deadline for the head, a rate for the body
  and the response, and a window of memory in both directions; all together have a bound.
- **A client that costs more than it sends.** What a request costs grows with its bytes and no
  faster, no pattern searches back and forth, and no byte costs more than three of the cheapest. A
  header, a chunk, a trailer and a request are each a thing of their own, which costs more than its
  few bytes: how many there may be is limited.
- **An application's mistake that becomes an attack.** A response's status and headers with
  control characters are refused, and so are headers that belong to the connection. A body that is
  not as long as its Content-Length is cut, so that it never looks complete. An error becomes a
  500 without details, or a response that is cut; the next request is served.
- **Headers that pass for others.** Names with `_` and `Proxy` do not reach the environ. No header
  of a client's changes `REMOTE_ADDR`, `wsgi.url_scheme` or `SCRIPT_NAME`.
- **Forged lines in the log.** Request targets are logged as they were sent, never decoded.

## What it does not protect from

- **Eavesdroppers.** There is no TLS. A proxy in front ends it; see [deployment](deployment.md).
- **A flood from thousands of addresses.** The limits bound what one connection costs, and how
  many there are together. They do not count the connections or the requests of one address: who
  opens as many as there may be keeps others waiting, within the deadlines. A proxy or a firewall
  in front counts.
- **What the application does.** Bide interprets no body, no cookie, no query, and no path: forms,
  uploads, `..` in a path, sessions and authorization are the application's. A traceback in the
  log shows the text of the application's error, and whatever of a client's it quotes.
- **An application that blocks.** Requests that block all threads keep others in the queue. Bide
  says in the log what blocks, and answers 503 in the end, but ends no running code.
- **A proxy that is to be believed.** `X-Forwarded-For` and its like are headers like any. The
  application, or middleware, decides whom it trusts.

## The limits

Every limit can be set: see the settings for [time](settings.md#time) and for
[space](settings.md#space). All have defaults that protect, but for the whole time of a request
and of a response, `--request-timeout` and `--response-timeout`, which only you can know. 0 takes
a limit away where it says so; the memory is then the client's to fill.

## Attacks on what a request is

{count} samples, of which {refused} are refused. Each is fed whole, byte by byte, and split at
many places, with a good request behind it; the result is always the same. Beside the answer
stands one example of the bytes. "Closed" means: after the answers to what came before, with
`Connection: close`, lingering so that the answer arrives.

| attack | for example | answer | source | samples |
|---|---|---|---|---|
"""

BEHAVIOUR = """\

What is found wrong in a body, the application hears where it reads: `RemoteProtocolError`, which
unhandled becomes the answer, and the connection is closed in any case.

## Attacks on time, memory and the log

| attack | answer | tested in |
|---|---|---|
"""

ADVISORIES = """\

## Published advisories

Mistakes of other servers and frameworks for Python that were published, replayed against Bide by
`tests/advisories`. The descriptions are ours.

| advisory | of | attack | Bide's answer |
|---|---|---|---|
"""

ABSENT = """\

These cannot concern Bide yet, since it does not have what they are about:

| advisory | of | attack | not here, for |
|---|---|---|---|
"""

# What is no matter of one request's bytes: the attack, the answer, and a test of it.
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
