"""Measurements against peers and against the raw machine; not installed, run from the checkout."""
