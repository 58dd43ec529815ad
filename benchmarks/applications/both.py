"""The blocking view of Flask, and beside it the stream of ASGI, in one process of Bide."""

import bide

from . import flask_slow, streaming

app = bide.mount({"/": flask_slow.app, "/live": streaming.stream})
