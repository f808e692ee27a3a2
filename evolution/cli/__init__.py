"""The commands that this package adds to `zoo`: `zoo evolve` and `zoo play`."""
