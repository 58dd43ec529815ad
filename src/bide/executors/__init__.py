"""Executors: on which thread a conversation runs, and so what waiting means."""
