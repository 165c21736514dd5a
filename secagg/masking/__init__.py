"""Pairwise masking after Bonawitz et al. 2017."""
