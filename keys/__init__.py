"""Identities, certificates and the signed roster of a federation."""
