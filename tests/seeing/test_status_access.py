"""Who may look at the status page."""

from bide.seeing.status_access import Access
from tests.failures import Failures

TOKEN = "correct-horse-battery"


def test_without_a_token_a_name_of_another_site_leads_nowhere() -> None:
    """Its page could read this one, if its name led to the loopback. A socket has no such names."""
    hosts = {
        "localhost": True,
        "localhost:9000": True,
        "LOCALHOST.:9000": True,
        "shop.localhost:9000": True,
        "127.0.0.1:9000": True,
        "127.8.9.1": True,
        "[::1]:9000": True,
        "[::1]": True,
        "": False,
        "evil.example": False,
        "evil.example:9000": False,
        "127.0.0.1.evil.example": False,
        "localhost.evil.example": False,
        "192.0.2.1": False,
        "[2001:db8::1]:9000": False,
    }
    with Failures() as failures:
        for host, may in hosts.items():
            with failures.of(host):
                assert Access("", by_name=True).allowed({"HTTP_HOST": host}) is may
                assert Access("", by_name=False).allowed({"HTTP_HOST": host})


def test_with_a_token_who_has_it_may_look() -> None:
    """In its header, or as the cookie that it was exchanged for; whatever the host is."""
    access = Access(TOKEN, by_name=True)
    cookie = access.cookie(f"token={TOKEN}")
    assert cookie.endswith("; HttpOnly; SameSite=Strict; Path=/")
    assert TOKEN not in cookie
    name, _, value = cookie.partition(";")[0].partition("=")
    other, _, _ = Access(f"{TOKEN}2", by_name=True).cookie(f"token={TOKEN}2").partition("=")
    assert other != name  # two pages of one host
    environs = [
        ({"HTTP_AUTHORIZATION": f"Bearer {TOKEN}"}, True),
        ({"HTTP_AUTHORIZATION": f"bearer  {TOKEN}"}, True),
        ({"HTTP_COOKIE": f"theme=dark; {name}={value}"}, True),
        ({}, False),
        ({"HTTP_HOST": "localhost"}, False),
        ({"HTTP_AUTHORIZATION": "Bearer "}, False),
        ({"HTTP_AUTHORIZATION": f"Bearer {TOKEN}2"}, False),
        ({"HTTP_AUTHORIZATION": f"Basic {TOKEN}"}, False),
        ({"HTTP_AUTHORIZATION": "Bearer \xff\udc80"}, False),
        ({"HTTP_COOKIE": f"{name}={TOKEN}"}, False),
        ({"HTTP_COOKIE": f"{name}={value}0"}, False),
        ({"HTTP_COOKIE": f"{other}={value}"}, False),
        ({"HTTP_COOKIE": f"{name}={value}", "HTTP_AUTHORIZATION": "Bearer wrong"}, False),
    ]
    with Failures() as failures:
        for environ, may in environs:
            with failures.of(str(environ)):
                assert access.allowed(environ) is may
        for query in ("", "token=", "token=wrong", f"other={TOKEN}", "token=\udc80"):
            with failures.of(query):
                assert not access.cookie(query)
    assert not Access("", by_name=True).cookie("token=")
