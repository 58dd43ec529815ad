"""Waiting in ordinary code: ``wait`` and the functions beside it, usable without a server."""
