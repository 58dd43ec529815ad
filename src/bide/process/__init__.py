"""The process around a server: its start, its signals, its end."""
