"""Compares runs: a row, a line or a cell of a map for each run."""
