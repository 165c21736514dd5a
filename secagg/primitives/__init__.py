"""Thin wrappers around the `cryptography` package, and Shamir sharing."""
