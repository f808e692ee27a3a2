"""What there is to choose from: the methods, and their options."""

from __future__ import annotations

from zoo.cli.output import print_json, print_table, remark


def print_methods(as_json: bool) -> None:
    """Print the methods with their options and defaults."""
    from evolution.methods import list_methods

    methods = list_methods()
    if as_json:
        print_json(
            [
                {
                    "name": one.name,
                    "summary": one.summary,
                    "paper": one.paper,
                    "traits": list(one.traits),
                    "options": {name: _written(value) for name, value in one.options().items()},
                }
                for one in methods.values()
                if not one.is_validated
            ]
            + [
                {"name": one.name, "summary": one.summary, "paper": one.paper, "traits": list(one.traits)}
                for one in methods.values()
                if one.is_validated
            ]
        )
        return
    own = [one for one in methods.values() if not one.is_validated]
    rows = [
        (
            one.name,
            one.summary,
            " ".join(f"{name}={_written(value)}" for name, value in one.options().items()),
        )
        for one in own
    ]
    print_table(("method", "what it is", "options"), rows)
    others = ", ".join(one.name for one in methods.values() if one.is_validated)
    remark(
        f"All methods of zoo move the parameters of a policy, too; `zoo list NAME` says their options: {others}."
    )


def _written(value: object) -> object:
    return value if isinstance(value, (bool, int, float, str, type(None))) else str(value)
