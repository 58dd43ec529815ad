"""A long run against a real server: a million mixed requests, a hundred thousand departures.

`make soak`, or `python -m soak --help`; what it does and how to read it is in `README.md`.
"""
