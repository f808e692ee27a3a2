"""The command that this package adds to `zoo`: `zoo federate`."""
