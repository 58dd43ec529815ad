"""One request and its response, for any protocol and any interface."""
