"""Protocols: bytes to streams and back. No sockets, no threads, no event loop."""
