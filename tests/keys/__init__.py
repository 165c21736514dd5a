"""Tests of `keys` and of `secagg keys`."""
