"""What a shell offers when TAB is pressed."""

from __future__ import annotations


def methods(incomplete: str) -> list[str]:
    """Return names of methods."""
    from evolution.methods import list_methods

    return [name for name in list_methods() if name.startswith(incomplete)]


def policies(incomplete: str) -> list[str]:
    """Return names of policies."""
    from evolution.policies.lookup import POLICIES

    return [name for name in POLICIES if name.startswith(incomplete)]


def environments(incomplete: str) -> list[str]:
    """Return names of environments: those that come along, and Gymnasium's where that is installed."""
    from evolution.environments.lookup import OWN

    try:
        import gymnasium

        known = [*OWN, *gymnasium.registry]
    except ImportError:
        known = [*OWN]
    return [name for name in known if name.startswith(incomplete)]
