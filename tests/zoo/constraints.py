"""Constraints: apart from the tests, which would cost the processes that import them their imports."""


def halfspace(x):
    """At least 0 where the coordinates sum up to 1."""
    return x.sum() - 1


def far(x):
    return x[0] - 2


def near(x):
    return 4 - (x**2).sum()
