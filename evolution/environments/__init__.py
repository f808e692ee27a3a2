"""Environments: where policies act, several episodes side by side."""
