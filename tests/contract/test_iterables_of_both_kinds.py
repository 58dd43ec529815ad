"""An iterable that is both kinds: to a WSGI server it is what PEP 3333 says, iterated plainly."""

from collections.abc import AsyncIterator, Iterator
from typing import Any

from tests.conftest import Serve
from tests.served import Environ


class Both:
    """A response like Django's ``StreamingHttpResponse``, which has both methods."""

    def __iter__(self) -> Iterator[bytes]:
        yield b"plainly "
        yield b"iterated"

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._consumed_first()

    async def _consumed_first(self) -> AsyncIterator[bytes]:
        yield b"all at once"


def test_an_iterable_is_iterated_plainly_when_it_is_asynchronous_too(serve: Serve) -> None:
    """Its ``__aiter__`` is for servers of another interface, and may gather all blocks first."""

    def application(environ: Environ, start_response: Any) -> Both:
        start_response("200 OK", [("Content-Type", "text/plain")])
        return Both()

    response = serve(application).get()
    assert response.chunks == [b"plainly ", b"iterated"]
    assert response.complete
