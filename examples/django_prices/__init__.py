"""A Django project: see wsgi.py."""
