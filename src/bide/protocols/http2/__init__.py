"""HTTP/2 (RFC 9113), on the package ``h2``."""
