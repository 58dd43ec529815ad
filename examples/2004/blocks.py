"""Fifty blocks, sent after the application has returned: the generator of September 2004.

On 15 September 2004 Phillip J. Eby posted this application to the Web-SIG list, to show that WSGI
can send content *after* the application callable returns; here it yields bytes, as PEP 3333 asks
today. Donovan Preston answered on the Twisted-web list that it still has no way to say "hang on,
I'm not ready to generate more content; I'll tell you when I am". The other examples of this
directory are what he proposed.

It is plain PEP 3333 and runs on every WSGI server. Bide sends each block at once::

    bide examples.2004.blocks:an_application
    curl --no-buffer --raw http://127.0.0.1:8000/

With ``--raw`` curl shows the chunks: each block is one, with its length in front.
"""

from collections.abc import Iterator
from wsgiref.types import StartResponse, WSGIEnvironment


def an_application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterator[bytes]:
    """Yield fifty blocks."""
    start_response("200 OK", [("Content-Type", "text/plain")])
    for i in range(1, 51):
        yield b"Block %d" % i
