"""What a shell offers when TAB is pressed."""

from __future__ import annotations


def methods(incomplete: str) -> list[str]:
    """Return names of methods, behind a label where there is one."""
    from federated.methods import list_methods

    label, equals, name = incomplete.rpartition("=")
    return [label + equals + one for one in list_methods() if one.startswith(name)]


def tasks(incomplete: str) -> list[str]:
    """Return names of tasks."""
    from federated.tasks.lookup import TASKS

    return [name for name in TASKS if name.startswith(incomplete)]
