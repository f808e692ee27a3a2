"""Algorithms for federations, each in a file of its own beside its paper."""
