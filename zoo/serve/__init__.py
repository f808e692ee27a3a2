"""A live page of runs on this machine."""
