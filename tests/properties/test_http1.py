"""HTTP/1 under any bytes: any requests, split anywhere, mean the same."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tests.properties.wires import CUTS, Sent, damaged, requests, split
from tests.protocols.fakes import Result, feed


@given(sent=st.lists(requests(), min_size=1, max_size=4), cuts=CUTS)
def test_any_split_of_any_requests_gives_the_same_streams(
    sent: list[Sent], cuts: list[int]
) -> None:
    """As many streams as requests, each with its method, target, headers and body."""
    data = b"".join(each.wire for each in sent)
    expected = Result([each.expected for each in sent])
    assert feed(split(data, cuts)) == expected
    assert feed([data]) == expected


@given(data=damaged(), cuts=CUTS)
def test_any_split_of_damaged_requests_gives_the_same_result(data: bytes, cuts: list[int]) -> None:
    """Refused with the same status, or understood as the same streams."""
    whole = feed([data])
    assert feed(split(data, cuts)) == whole
    assert feed([data[at : at + 1] for at in range(len(data))]) == whole
    assert len(whole.statuses) <= 1


@given(data=st.binary(max_size=200), cuts=CUTS)
def test_any_bytes_are_refused_or_waited_for(data: bytes, cuts: list[int]) -> None:
    """Nothing raises, whatever comes, and nothing is understood that has no method."""
    result = feed(split(data, cuts))
    assert feed([data]) == result
    if not data.strip(b"\r\n")[:1].isalpha():
        assert result.requests == []
