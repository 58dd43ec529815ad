"""Bide measured beside its peers: `python -m benchmarks`, or `make bench`.

How it measures, and how to read it, is in `benchmarks/README.md`.
"""
