"""One call of a WSGI application."""
