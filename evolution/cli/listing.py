"""What there is to choose from: the methods, and their options."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from zoo.cli.output import print_facts, print_json, print_table, remark, say

if TYPE_CHECKING:
    from evolution.methods import Method


def print_methods(name: str | None, *, as_json: bool) -> None:
    """Print the methods, or one with its options.

    Args:
        name: That of the one, or None for all.
        as_json: Whether to print JSON.

    Raises:
        ValueError: There is none of that name.
    """
    from evolution.methods import find, list_methods

    if name is not None:
        _print_method(find(name), as_json)
        return
    methods = list_methods().values()
    if as_json:
        print_json([_entry(one) for one in methods])
        return
    rows = [(one.name, one.summary, ", ".join(one.traits)) for one in methods if not one.is_validated]
    print_table(("method", "what it is", "traits"), rows, spare=("traits",))
    others = ", ".join(one.name for one in methods if one.is_validated)
    say(f"And all methods of zoo, which move the parameters of a policy: {others}.")
    remark("`zoo evolve --list --method NAME` shows a method's options.")


def _print_method(method: Method, as_json: bool) -> None:
    from zoo.cli.described import inherited_meanings, summary_of

    if as_json:
        print_json({**_entry(method), "options": {n: _written(v) for n, v in method.options().items()}})
        return
    say(f"{method.name}: {summary_of(method.factory)}", "bold")
    print_facts({"paper": method.paper, "traits": ", ".join(method.traits)})
    said = {
        "validation_every": "Steps from one trial of what the method recommends to the next.",
        "validation_episodes": "Episodes of each.",
        **inherited_meanings(method.factory),
    }
    rows = [(n, str(_written(value)), said.get(n, "")) for n, value in method.options().items()]
    print_table(("option", "default", "what it is"), rows)


def _entry(method: Method) -> dict[str, Any]:
    return {
        "name": method.name,
        "summary": method.summary,
        "paper": method.paper,
        "traits": list(method.traits),
        "is_validated": method.is_validated,
    }


def _written(value: object) -> object:
    return value if isinstance(value, (bool, int, float, str, type(None))) else str(value)
