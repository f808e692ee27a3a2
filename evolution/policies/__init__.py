"""Policies: what turns observations into actions, given a row of parameters."""
