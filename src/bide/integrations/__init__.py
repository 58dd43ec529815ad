"""Frameworks that gain from Bide unmodified; each is imported by its own module here alone."""
