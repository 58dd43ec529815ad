"""The same hello, declared able to run on the event loop: it never blocks its thread."""

from bide import capable

from .hello import app as hello

app = capable("async")(hello)
