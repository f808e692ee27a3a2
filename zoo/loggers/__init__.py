"""Watchers that pass on what a run logs to other tools."""
