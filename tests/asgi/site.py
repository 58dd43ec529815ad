"""A module with an application, to be named."""

from tests.asgi.test_mounts import wsgi

app = wsgi("b")
