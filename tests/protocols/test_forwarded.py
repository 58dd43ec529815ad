"""What is believed of X-Forwarded-… and Forwarded: headers in, the client out."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bide.exchange.messages import Request
from bide.exchange.trust import Trust
from bide.protocols.forwarded import (
    KEYS,
    LONGEST,
    MOST_HOPS,
    UNKNOWN,
    Node,
    NotUnderstood,
    Told,
    find,
    read,
    split_forwarded,
)
from tests.failures import Failures, same

TRUST = Trust(["10.0.0.0/8", "fd00::/8", "unix:"])
ALL = frozenset(KEYS.values())

# Header lines, and what is believed: the client, other facts, and which headers are doubtful.
Row = tuple[list[str], dict[str, Any]]
CHAINS: list[Row] = [
    (["x-forwarded-for: 192.0.2.7"], {"client": ("192.0.2.7", 0)}),
    (["x-forwarded-for: 1.1.1.1, 192.0.2.7"], {"client": ("192.0.2.7", 0)}),
    (["x-forwarded-for: 1.1.1.1, 192.0.2.7, 10.0.0.2"], {"client": ("192.0.2.7", 0)}),
    (["x-forwarded-for: 1.1.1.1", "x-forwarded-for: 192.0.2.7"], {"client": ("192.0.2.7", 0)}),
    (["x-forwarded-for: 10.0.0.3, 10.0.0.2"], {"client": ("10.0.0.3", 0)}),  # all are trusted
    (["x-forwarded-for: 192.0.2.7:5123"], {"client": ("192.0.2.7", 5123)}),
    (["x-forwarded-for: 2001:db8::7"], {"client": ("2001:db8::7", 0)}),
    (["x-forwarded-for: 2001:DB8:0::7"], {"client": ("2001:db8::7", 0)}),
    (["x-forwarded-for: [2001:db8::7]:5123"], {"client": ("2001:db8::7", 5123)}),
    (["x-forwarded-for: ::ffff:192.0.2.7"], {"client": ("192.0.2.7", 0)}),
    (["x-forwarded-for: ::ffff:10.0.0.2, fd00::1"], {"client": ("10.0.0.2", 0)}),
    (["x-forwarded-for: ,, 192.0.2.7 ,"], {"client": ("192.0.2.7", 0)}),
    (["x-forwarded-for: anything, 192.0.2.7"], {"client": ("192.0.2.7", 0)}),
    (["x-forwarded-for: unknown"], {"client": ("", 0)}),
    (["x-forwarded-for: 1.1.1.1, unknown, 10.0.0.2"], {"client": ("", 0)}),
    (["x-forwarded-for: ,"], {}),
    (["x-forwarded-for: 192.0.2.7" + ", 10.0.0.2" * (MOST_HOPS - 1)], {"client": ("192.0.2.7", 0)}),
    (["x-forwarded-for: " + "1.1.1.1," * 5000 + "192.0.2.7"], {"client": ("192.0.2.7", 0)}),
    (["forwarded: for=192.0.2.7"], {"client": ("192.0.2.7", 0)}),
    (["forwarded: For=1.1.1.1, FOR=192.0.2.7"], {"client": ("192.0.2.7", 0)}),
    (["forwarded: for=1.1.1.1", "forwarded: for=192.0.2.7"], {"client": ("192.0.2.7", 0)}),
    (["forwarded: for=192.0.2.7, for=10.0.0.2"], {"client": ("192.0.2.7", 0)}),
    (['forwarded: for="192.0.2.7:5123"'], {"client": ("192.0.2.7", 5123)}),
    (['forwarded: for="[2001:db8::7]"'], {"client": ("2001:db8::7", 0)}),
    (['forwarded: for="[2001:db8::7]:5123"'], {"client": ("2001:db8::7", 5123)}),
    (['forwarded: for="[2001:db8::7]:_port"'], {"client": ("2001:db8::7", 0)}),
    ([r'forwarded: for="\1\9\2.0.2.7"'], {"client": ("192.0.2.7", 0)}),
    (["forwarded: for=_hidden"], {"client": ("", 0)}),
    (['forwarded: for="_SEVKISEK:5123"'], {"client": ("", 0)}),
    (["forwarded: for=unknown"], {"client": ("", 0)}),
    (["forwarded: for=1.1.1.1, for=_hidden, for=10.0.0.2"], {"client": ("", 0)}),
    (["forwarded: for=1.1.1.1, proto=https, for=10.0.0.2"], {"client": ("", 0), "scheme": "https"}),
    (["forwarded: proto=https"], {"scheme": "https"}),
    (
        ["forwarded: for=192.0.2.7;proto=https;host=shop.example;by=203.0.113.60"],
        {"client": ("192.0.2.7", 0), "scheme": "https", "host": "shop.example"},
    ),
    (
        ['forwarded: for=192.0.2.7 ; proto=https; host="shop.example:8443";secret=_x'],
        {"client": ("192.0.2.7", 0), "scheme": "https", "host": "shop.example:8443"},
    ),
    (
        ["forwarded: for=192.0.2.7;host=outer.example, for=10.0.0.2;host=inner.example"],
        {"client": ("192.0.2.7", 0), "host": "outer.example"},
    ),
    ([";forwarded: ;;for=192.0.2.7;;, ,"[1:]], {"client": ("192.0.2.7", 0)}),
    (["x-forwarded-proto: https"], {"scheme": "https"}),
    (["x-forwarded-proto: HTTPS"], {"scheme": "https"}),
    (["x-forwarded-proto: http, https"], {"scheme": "https"}),
    (["x-forwarded-proto: wss"], {"scheme": "https"}),
    (["x-forwarded-proto: ws"], {"scheme": "http"}),
    (
        ["x-forwarded-for: 192.0.2.7, 10.0.0.2", "x-forwarded-proto: https, http"],
        {"client": ("192.0.2.7", 0), "scheme": "https"},
    ),
    (
        ["x-forwarded-for: 192.0.2.7, 10.0.0.2", "x-forwarded-proto: https"],
        {"client": ("192.0.2.7", 0), "scheme": "https"},
    ),
    (
        ["x-forwarded-for: 1.1.1.1, 192.0.2.7", "x-forwarded-proto: http, https"],
        {"client": ("192.0.2.7", 0), "scheme": "https"},
    ),
    (["x-forwarded-host: shop.example"], {"host": "shop.example"}),
    (["x-forwarded-host: forged.example, shop.example:8443"], {"host": "shop.example:8443"}),
    (["x-forwarded-host: [2001:db8::1]:443"], {"host": "[2001:db8::1]:443"}),
    (["x-forwarded-port: 8443"], {"port": 8443}),
    (["x-forwarded-prefix: /shop"], {"root": b"/shop"}),
    (["x-forwarded-prefix: /shop/eu/"], {"root": b"/shop/eu"}),
    (["x-forwarded-prefix: /caf%C3%A9"], {"root": "/café".encode()}),
    (["x-forwarded-prefix: /"], {}),
    (
        ["x-forwarded-for: 192.0.2.7", "forwarded: for=192.0.2.7;proto=https"],
        {"client": ("192.0.2.7", 0), "scheme": "https"},
    ),
    (
        ["x-forwarded-for: 2001:db8::7, 10.0.0.2", 'forwarded: for="[2001:DB8::7]:99"'],
        {"client": ("2001:db8::7", 0)},
    ),
]

F, P, H = "x-forwarded-for", "x-forwarded-proto", "x-forwarded-host"
DOUBTFUL: list[tuple[list[str], dict[str, Any], set[str]]] = [
    (["x-forwarded-for: nobody"], {"client": ("", 0)}, {F}),
    (["x-forwarded-for: 192.0.2.7, nobody, 10.0.0.2"], {"client": ("", 0)}, {F}),
    (["x-forwarded-for: 192.0.2.256"], {"client": ("", 0)}, {F}),
    (["x-forwarded-for: 192.0.2.07"], {"client": ("", 0)}, {F}),
    (["x-forwarded-for: 192.0.2.7:"], {"client": ("", 0)}, {F}),
    (["x-forwarded-for: 192.0.2.7:99999"], {"client": ("", 0)}, {F}),
    (["x-forwarded-for: 192.0.2.7 10.0.0.1"], {"client": ("", 0)}, {F}),
    (["x-forwarded-for: [192.0.2.7]"], {"client": ("", 0)}, {F}),
    (["x-forwarded-for: fe80::1%eth0"], {"client": ("", 0)}, {F}),
    (["x-forwarded-for: ١.1.1.1"], {"client": ("", 0)}, {F}),
    (['x-forwarded-for: "192.0.2.7"'], {"client": ("", 0)}, {F}),
    (["x-forwarded-for: " + "10.0.0.2," * (MOST_HOPS + 1) + "10.0.0.2"], {"client": ("", 0)}, {F}),
    (["x-forwarded-proto: ftp"], {}, {P}),
    (["x-forwarded-proto: https, on"], {}, {P}),
    (["x-forwarded-host: shop.example/path"], {}, {H}),
    (["x-forwarded-host: :80"], {}, {H}),
    (["x-forwarded-host: a b"], {}, {H}),
    (["x-forwarded-host: [::1"], {}, {H}),
    (["x-forwarded-port: 0"], {}, {"x-forwarded-port"}),
    (["x-forwarded-port: 65536"], {}, {"x-forwarded-port"}),
    (["x-forwarded-port: 080"], {}, {"x-forwarded-port"}),
    (["x-forwarded-prefix: shop"], {}, {"x-forwarded-prefix"}),
    (["x-forwarded-prefix: //evil.example"], {}, {"x-forwarded-prefix"}),
    (["x-forwarded-prefix: /%2Fevil.example"], {}, {"x-forwarded-prefix"}),
    (["x-forwarded-prefix: /a/../b"], {}, {"x-forwarded-prefix"}),
    (["x-forwarded-prefix: /a/%2e%2E"], {}, {"x-forwarded-prefix"}),
    (["x-forwarded-prefix: /a%0d%0aSet-Cookie:x"], {}, {"x-forwarded-prefix"}),
    (["x-forwarded-prefix: /\\evil.example"], {}, {"x-forwarded-prefix"}),
    (["x-forwarded-prefix: /%5Cevil.example"], {}, {"x-forwarded-prefix"}),
    (["x-forwarded-prefix: /a?b"], {}, {"x-forwarded-prefix"}),
    (["forwarded: 192.0.2.7"], {"client": ("", 0)}, {"forwarded"}),
    (["forwarded: for=192.0.2.7:80"], {"client": ("", 0)}, {"forwarded"}),  # not quoted
    (["forwarded: for=2001:db8::7"], {"client": ("", 0)}, {"forwarded"}),
    (['forwarded: for="2001:db8::7"'], {"client": ("", 0)}, {"forwarded"}),  # no brackets
    (["forwarded: for=[2001:db8::7]"], {"client": ("", 0)}, {"forwarded"}),
    (["forwarded: for = 192.0.2.7"], {"client": ("", 0)}, {"forwarded"}),
    (["forwarded: for="], {"client": ("", 0)}, {"forwarded"}),
    (['forwarded: for=""'], {"client": ("", 0)}, {"forwarded"}),
    (["forwarded: for=192.0.2.7;for=192.0.2.8"], {"client": ("", 0)}, {"forwarded"}),
    (['forwarded: for="192.0.2.7'], {"client": ("", 0)}, {"forwarded"}),
    # A client's open quote swallows what the proxy has added.
    (['forwarded: for="1.1.1.1, for=192.0.2.7'], {"client": ("", 0)}, {"forwarded"}),
    (['forwarded: for="1.1.1.1", for=192.0.2.7"'], {"client": ("", 0)}, {"forwarded"}),
    (["forwarded: for=192.0.2.7;proto=ftp"], {"client": ("", 0)}, {"forwarded"}),
    (["forwarded: for=192.0.2.7;host=a/b"], {"client": ("", 0)}, {"forwarded"}),
    (["forwarded: for=192.0.2.7 proto=https"], {"client": ("", 0)}, {"forwarded"}),
    (["forwarded: " + "for=192.0.2.7," * (LONGEST // 13)], {"client": ("", 0)}, {"forwarded"}),
    # They contradict each other: neither is believed.
    (
        ["x-forwarded-for: 192.0.2.7", "forwarded: for=192.0.2.8"],
        {"client": ("", 0)},
        {F, "forwarded"},
    ),
    (
        ["x-forwarded-for: 192.0.2.7", "forwarded: for=_hidden"],
        {"client": ("", 0)},
        {F, "forwarded"},
    ),
    (
        ["x-forwarded-for: 192.0.2.7", "forwarded: nonsense"],
        {"client": ("", 0)},
        {F, "forwarded"},
    ),
    (
        ["x-forwarded-proto: https", "forwarded: for=192.0.2.7;proto=http"],
        {"client": ("192.0.2.7", 0)},
        {P, "forwarded"},
    ),
    (
        ["x-forwarded-host: a.example", "forwarded: host=b.example"],
        {},
        {H, "forwarded"},
    ),
]


def said(*lines: str) -> dict[str, str]:
    """Return what a request with some header lines says, by CGI's keys."""
    pairs = [each.split(": ", 1) for each in lines]
    headers = [(name.encode(), value.encode("utf-8")) for name, value in pairs]
    return find(Request("GET", b"/", b"/", b"", "1.1", headers), ALL)


def facts(told: Told) -> dict[str, Any]:
    """Return what is believed, without what is not told."""
    found = {"scheme": told.scheme, "host": told.host, "port": told.port, "root": told.root}
    facts: dict[str, Any] = {name: value for name, value in found.items() if value}
    if told.client is not None:
        facts["client"] = (told.client.address, told.client.port)
    return facts


def test_the_client_is_the_right_most_hop_that_is_not_trusted() -> None:
    """Each proxy adds to the right; what stands left of an untrusted one anybody has written."""
    with Failures() as failures:
        for lines, expected in CHAINS:
            with failures.of(" | ".join(lines)):
                told = read(said(*lines), TRUST.trusts)
                same(facts(told), expected)
                same(told.doubtful, set())


def test_what_is_malformed_or_contradicted_is_not_believed_and_not_passed_on() -> None:
    """Nothing else takes its place: not the next hop, which may be anybody's, nor the proxy."""
    with Failures() as failures:
        for lines, expected, doubtful in DOUBTFUL:
            with failures.of(" | ".join(lines)[:100]):
                told = read(said(*lines), TRUST.trusts)
                same(facts(told), expected)
                same(told.doubtful, {KEYS[name] for name in doubtful})
                assert not told.doubtful & told.headers.keys()


def test_headers_are_passed_on_as_far_as_trusted_proxies_have_written_them() -> None:
    """So an application that takes the left-most address of its list takes the client's, too."""
    for lines, expected in (
        (["x-forwarded-for: 1.1.1.1, 192.0.2.7,10.0.0.2"], "192.0.2.7, 10.0.0.2"),
        (
            ["forwarded: for=1.1.1.1, for=192.0.2.7;by=_x,for=10.0.0.2"],
            "for=192.0.2.7;by=_x,for=10.0.0.2",
        ),
        (["x-forwarded-proto: http, https"], "https"),
        (["x-forwarded-host: forged.example, shop.example"], "shop.example"),
    ):
        told = read(said(*lines), TRUST.trusts)
        assert list(told.headers.values()) == [expected]


def test_only_the_wanted_headers_are_found_whatever_their_case() -> None:
    """Names are without case; one with underscores is another name."""
    lines = ["X-FORWARDED-FOR: 192.0.2.7", "x-Forwarded-Proto: https", "X_Forwarded_For: 1.1.1.1"]
    assert said(*lines) == {
        "HTTP_X_FORWARDED_FOR": "192.0.2.7",
        "HTTP_X_FORWARDED_PROTO": "https",
    }
    pairs = [tuple(each.encode().split(b": ", 1)) for each in lines]
    request = Request("GET", b"/", b"/", b"", "1.1", pairs)  # type: ignore[arg-type]
    assert find(request, frozenset({KEYS["x-forwarded-proto"]})) == {
        "HTTP_X_FORWARDED_PROTO": "https"
    }
    # The same where the head was plain, and its fields are there already.
    request.fields = ("HTTP_X_FORWARDED_FOR", "1.1.1.1", "HTTP_X_FORWARDED_FOR", "192.0.2.7")
    assert find(request, ALL) == {"HTTP_X_FORWARDED_FOR": "1.1.1.1,192.0.2.7"}


NODES = st.sampled_from(
    ["192.0.2.7", "10.0.0.2", '"[fd00::1]"', '"[2001:db8::7]:80"', "_x", "unknown", '"10.0.0.3:1"']
)


@given(st.lists(NODES, min_size=1, max_size=6), st.text(alphabet='",;=\\ fo1.', max_size=12))
def test_whatever_a_client_has_sent_does_not_change_the_client_that_is_named(
    nodes: list[str], forged: str
) -> None:
    """At worst it is not known: it stands in what the proxies have added, or nowhere."""
    own = ",".join(f"for={each}" for each in nodes)
    alone = read({KEYS["forwarded"]: f"for=203.0.113.9,{own}"}, TRUST.trusts)
    told = read({KEYS["forwarded"]: f"{forged},for=203.0.113.9,{own}"}, TRUST.trusts)
    assert told.client in (alone.client, UNKNOWN)
    plain = [each.strip('"') for each in nodes]
    alone = read({KEYS[F]: ",".join(["203.0.113.9", *plain])}, TRUST.trusts)
    told = read({KEYS[F]: ",".join([forged, "203.0.113.9", *plain])}, TRUST.trusts)
    assert told.client == alone.client


@given(st.text(max_size=60))
def test_any_text_is_read_without_an_error(text: str) -> None:
    """The values are whatever came; none may end a connection."""
    read(dict.fromkeys(KEYS.values(), text.encode("utf-8").decode("latin-1")), TRUST.trusts)
    try:
        elements = split_forwarded(text)
    except NotUnderstood:
        return
    for pairs, begins in elements:
        assert pairs
        assert 0 <= begins < len(text)


def test_a_quoted_value_may_have_what_separates_others() -> None:
    """RFC 7239 section 4: the value is a token or a quoted string."""
    elements = split_forwarded('for=_a;x="1,2;3=\\"4\\"", for=_b')
    assert [pairs for pairs, _ in elements] == [{"for": "_a", "x": '1,2;3="4"'}, {"for": "_b"}]
    with pytest.raises(NotUnderstood):
        split_forwarded('for=_a;x="\x01"')
    assert Node("", 0) == UNKNOWN
