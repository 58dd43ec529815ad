"""A Django project, and the tests that serve it."""
