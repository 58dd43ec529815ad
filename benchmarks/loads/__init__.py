"""What is done to a server and measured: one module for each kind of load."""
