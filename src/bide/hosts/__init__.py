"""Bide's conversations under somebody else's server."""
