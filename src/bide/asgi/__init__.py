"""One ASGI call: a coroutine on the event loop."""
