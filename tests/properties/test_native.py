"""The hot functions on bytes: whatever comes, the fast way is a shorter one to the same."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from bide.exchange.messages import Head
from tests.failures import same
from tests.forms import FORMS
from tests.fuzz import heads
from tests.properties.wires import Sent, damaged, requests
from tests.test_native import Given, outcome

DRAWN = st.binary(min_size=3, max_size=3)
TEXT = st.text(st.sampled_from("ab0159 \t\r\n\0\x7f\x80\xe9€😀-:;,="), max_size=12)
NAME = st.sampled_from(
    ["X-A", "Date", "server", "Content-Length", "Content-Type", "Connection", "TE", "X A", "é"]
)
HEADERS = st.lists(st.tuples(NAME, st.one_of(TEXT, st.just("5"), st.just("close"))), max_size=5)


@given(drawn=DRAWN, request=requests())
def test_a_good_head_means_the_same_in_every_way(drawn: bytes, request: Sent) -> None:
    """Taken by the fast way or not."""
    heads.check(drawn + request.wire)


@given(drawn=DRAWN, data=damaged())
def test_a_damaged_head_means_the_same_in_every_way(drawn: bytes, data: bytes) -> None:
    """The fast way takes nothing that the strict way refuses."""
    heads.check(drawn + data)


@given(status=st.sampled_from(["200 OK", "204 No Content", "500 é"]), headers=HEADERS)
def test_headers_of_a_response_are_checked_and_encoded_alike(
    status: str, headers: list[tuple[str, str]]
) -> None:
    """Refused in the same words, or byte for byte the same; by both forms."""
    expected = outcome(status, Given(headers))
    same(outcome(status, headers), expected)
    if isinstance(expected, str):
        return
    head = Head(status, headers)
    lines = [f"HTTP/1.1 {status}", *(f"{name}: {value}" for name, value in head.headers), "END"]
    wire = "\r\n".join(lines).encode("latin-1")
    for name, form in FORMS.items():
        same(form.encode(head.code, head.reason, head.headers, b"E", b"N", b"D"), wire, name)
