"""Waiting in ordinary code: ``wait`` and its company, usable without a server."""
