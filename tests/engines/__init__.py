"""With other people's engines, as they are: see `make test-engines`."""
