"""Runs: the one loop, when it stops, and the directory that outlives it."""
