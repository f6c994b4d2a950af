"""Families of attention: the causal transformer and the vision transformer."""
