"""Integrations of frameworks; each framework is imported only by its own module here."""
