"""Bide's conversations under other servers."""
