"""Optimization without gradients of any black box, on any number of workers, the same bytes every time."""

__version__ = "0.1.0"
