"""WSGI calls that are made in child processes, one at a time each: the processes executor."""
