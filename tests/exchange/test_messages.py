"""A request's path and root; a response's head is tested with the stream that it belongs to."""

from bide.exchange.limits import Limits
from bide.exchange.messages import Request
from bide.settings import Settings
from tests.failures import Failures, same

# Path as sent, the mount's root, and what becomes of both.
MOUNTED = {
    ("/app/x", "/app"): ("/app", "/x"),
    ("/app/", "/app"): ("/app", "/"),
    ("/app", "/app"): ("/app", ""),
    ("/app//x", "/app"): ("/app", "//x"),
    ("/apple", "/app"): ("", "/apple"),
    ("/x/app", "/app"): ("", "/x/app"),
    ("//app/x", "/app"): ("", "//app/x"),
    ("/%61pp/%2525", "/app"): ("/app", "/%25"),
    ("/a%25b/c", "/a%b"): ("/a%b", "/c"),
    ("/a%2Fb/c", "/a/b"): ("/a/b", "/c"),
    ("/x", ""): ("", "/x"),
    ("*", "/app"): ("", ""),
}


def test_a_mount_takes_whole_segments_off_the_path() -> None:
    """What is not a part of the path is not taken off it, and both are decoded once."""
    with Failures() as failures:
        for (sent, root), (script, rest) in MOUNTED.items():
            with failures.of(f"{sent} below {root}"):
                raw = sent.encode()
                request = Request("GET", raw, raw, b"", "1.1", [])
                same(request.mount(root.encode()), bool(script) or not root)
                same((request.root, request.path), (script.encode(), rest.encode()))
                same((request.target, request.raw_path), (raw, raw))


def test_mounts_below_mounts_add_up() -> None:
    """The root is all of them."""
    request = Request("GET", b"/a/b/c", b"/a/b/c", b"", "1.1", [])
    assert request.mount(b"/a")
    assert request.mount(b"/b")
    assert (request.root, request.path) == (b"/a/b", b"/c")


def test_limits_are_the_settings() -> None:
    """By default, and where somebody has set one."""
    assert Limits() == Limits.of(Settings())
    limits = Limits.of(Settings(limit_head=4321, limit_unread=5432, linger_timeout=7))
    assert limits == Limits(head=4321, window=5432, linger=7)
