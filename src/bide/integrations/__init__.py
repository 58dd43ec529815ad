"""Frameworks that gain from Bide; each is imported by its own module here alone."""
