"""WebSocket (RFC 6455), over the sans-I/O protocol of the package ``websockets``."""
