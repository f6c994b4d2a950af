"""Runs beside one another: a row a run, a line a run, a cell a run."""
