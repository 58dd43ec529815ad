"""The same events, declared able to run on the event loop."""

from bide import capable

from .events_waiting import app as events

app = capable("async")(events)
