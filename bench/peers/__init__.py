"""Other implementations, each in its own environment and run as a subprocess."""
