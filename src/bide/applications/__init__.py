"""Applications: finding what the deployer named, and telling what it is."""
