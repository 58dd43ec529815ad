"""A command line for bjoern, which has none: `python -m benchmarks.run_bjoern MODULE:NAME PORT`."""

import sys
from importlib import import_module

import bjoern  # type: ignore[import-not-found, import-untyped, unused-ignore]

module, _, name = sys.argv[1].partition(":")
bjoern.run(getattr(import_module(module), name), "127.0.0.1", int(sys.argv[2]))
