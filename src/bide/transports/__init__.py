"""Transports: a non-blocking socket on the loop, writable from any thread."""
