"""Promises of other libraries: have ``bide.wait`` take what it does not know."""

from bide.waiting.registered import register

__all__ = ["register"]
