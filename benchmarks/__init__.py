"""Bide measured beside its peers: `python -m benchmarks`, or `make bench`.

How it measures, and how to read it, is in `benchmarks/README.md`. The soak shares `command`,
`drawing`, `markdown`, `machine`, `processes`, `servers` and `errors` with it.
"""
