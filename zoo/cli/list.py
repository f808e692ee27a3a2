"""`zoo list`: what there is to choose from."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from zoo.cli import completion
from zoo.cli.common import Json, explained
from zoo.cli.output import print_facts, print_json, print_table, remark, say

if TYPE_CHECKING:
    from zoo.cli.extras import Extra
    from zoo.cli.problems import Problem
    from zoo.registry import Method


def list_(
    what: Annotated[
        str,
        typer.Argument(
            metavar="WHAT",
            help="methods, problems, extras, or the name of one.",
            autocompletion=completion.listable,
        ),
    ] = "methods",
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="One of these.", autocompletion=completion.listable)
    ] = None,
    as_json: Json = False,
) -> None:
    """List methods, problems or extras; say what options a method has.

    \b
    # all methods, and one with its options
    zoo list
    zoo list cma
    # problems to try methods on, and what more can be installed
    zoo list problems
    zoo list extras
    # for another program
    zoo list methods --json
    """  # noqa: D301 - \b is for the help page
    from zoo.cli import extras, problems
    from zoo.core.validation import hint
    from zoo.registry import list_methods

    kinds: dict[str, tuple[Mapping[str, Any], Callable[[bool], None], Callable[[str, bool], None]]] = {
        "methods": (list_methods(), _list_methods, _show_method),
        "problems": (problems.PROBLEMS, _list_problems, _show_problem),
        "extras": (extras.EXTRAS, _list_extras, _show_extra),
    }
    with explained():
        if name is None and what not in kinds:
            name, what = what, next((kind for kind in kinds if what in kinds[kind][0]), "")
        valid = [one for kind in kinds.values() for one in kind[0]]
        named = next((one for one in (name, what) if one in valid), None)
        if what not in kinds and what:
            nearest = hint(what, kinds) if named is None else f" `zoo list {named}` says all of {named!r}."
            raise ValueError(f"WHAT must be {', '.join(kinds)} or one name, got {what!r}.{nearest}")
        if not what:
            wrong = name or ""
            raise ValueError(
                f"there is no method, problem or extra {wrong!r}.{hint(wrong, [*kinds, *valid])} `zoo list`, "
                "`zoo list problems` and `zoo list extras` list them."
            )
        known, list_all, show = kinds[what]
        if name is None:
            list_all(as_json)
        elif name in known:
            show(name, as_json)
        else:
            nearest = hint(name, known) if named is None else f" `zoo list {named}` says what it is."
            raise ValueError(f"there is no {name!r} among {what}.{nearest} `zoo list {what}` lists them.")


def _list_methods(as_json: bool) -> None:
    from zoo.registry import list_methods

    methods = list_methods().values()
    if as_json:
        print_json([_method(method) for method in methods])
        return
    rows = [
        (
            method.name,
            method.summary + (f" (extra {_needs(method.extra)})" if method.extra else ""),
            _range(method.dims),
            method.cost,
            ", ".join(method.traits),
        )
        for method in methods
    ]
    columns = ("method", "what it is", "variables", "cost of a step", "traits")
    print_table(columns, rows, spare=("cost of a step", "variables"))
    remark("`zoo list NAME` shows a method's options. auto, the default, is cma, or de for mixed variables.")


def _show_method(name: str, as_json: bool) -> None:
    from zoo.cli.described import meanings, summary_of
    from zoo.registry import TRAITS, list_methods

    method = list_methods()[name]
    try:
        said, defaults = meanings(method.factory), method.options()
    except (ImportError, AttributeError) as error:
        raise ValueError(f"the method {name!r} cannot be loaded from {method.target}: {error}.") from None
    options = [(option, default, said.get(option, "")) for option, default in defaults.items()]
    if as_json:
        listed = [{"name": one, "default": default, "meaning": what} for one, default, what in options]
        print_json({**_method(method), "options": listed})
        return
    say(f"{name}: {summary_of(method.factory)}", "bold")
    facts = {
        "paper": method.paper,
        "variables": _range(method.dims),
        "a step": f"{method.batch} evaluations" if method.batch else "",
        "its cost": f"{method.cost}, n being candidates and d variables" if method.cost else "",
        "needs": _needs(method.extra),
    }
    facts |= {trait: TRAITS.get(trait, "") for trait in method.traits}
    print_facts(facts)
    if options:
        say("\nOptions, as in --option NAME=VALUE, or under [method.options] in an experiment file:")
        print_table(
            ("option", "default", "meaning"),
            [(one, _written(default), what) for one, default, what in options],
        )


def _list_problems(as_json: bool) -> None:
    from zoo.cli.problems import PROBLEMS

    if as_json:
        print_json([_problem(problem) for problem in PROBLEMS.values()])
        return
    rows = [
        (one.name, one.summary, str(one.dim or "any"), _box(one), _minimum(one), one.spec)
        for one in PROBLEMS.values()
    ]
    columns = ("problem", "what it is", "variables", "box", "minimum", "objective")
    print_table(columns, rows, spare=("box", "objective"))
    remark("`zoo list NAME` says where the minimum is; `zoo bench NAME` compares methods on it.")


def _show_problem(name: str, as_json: bool) -> None:
    from zoo.cli.problems import PROBLEMS

    problem = PROBLEMS[name]
    if as_json:
        print_json(_problem(problem))
        return
    say(f"{name}: {problem.summary}", "bold")
    print_facts(
        {
            "computes": problem.formula,
            "objective": problem.spec,
            "variables": str(problem.dim or "any number"),
            "box": _box(problem),
            "space": "" if problem.space is None else repr(problem.space),
            "minimum": _minimum(problem),
            "at": problem.at,
            "compare": "" if problem.several else f"zoo bench {name}",
        }
    )


def _list_extras(as_json: bool) -> None:
    from zoo.cli.extras import EXTRAS, find

    extras = [find(name) for name in EXTRAS]
    if as_json:
        print_json([_extra(extra) for extra in extras])
        return
    rows = [
        (one.name, one.gives, "installed" if one.is_installed else "missing", one.command) for one in extras
    ]
    print_table(("extra", "what it gives", "here", "what installs it"), rows, spare=("what installs it",))
    remark("`zoo list NAME` says what installs one.")


def _show_extra(name: str, as_json: bool) -> None:
    from zoo.cli.extras import find

    extra = find(name)
    if as_json:
        print_json(_extra(extra))
        return
    say(f"{name}: {extra.gives}", "bold")
    print_facts({**{one: v or "missing" for one, v in extra.versions.items()}, "install": extra.command})


def _method(method: Method) -> dict[str, Any]:
    from zoo.cli.extras import EXTRAS, find

    return {
        "name": method.name,
        "summary": method.summary,
        "paper": method.paper,
        "dims": list(method.dims),
        "batch": method.batch,
        "cost": method.cost,
        "traits": list(method.traits),
        "extra": method.extra,
        "installed": method.extra not in EXTRAS or find(method.extra).is_installed,
    }


def _problem(problem: Problem) -> dict[str, Any]:
    return {
        "name": problem.name,
        "objective": problem.spec,
        "summary": problem.summary,
        "formula": problem.formula,
        "dim": problem.dim,
        "bounds": problem.bounds,
        "space": None if problem.space is None else problem.space.describe(),
        "constrained": bool(problem.constraints),
        "minimum": problem.minimum,
        "at": problem.at,
    }


def _extra(extra: Extra) -> dict[str, Any]:
    return {
        "name": extra.name,
        "gives": extra.gives,
        "installed": extra.is_installed,
        "versions": extra.versions,
        "install": extra.command,
    }


def _needs(name: str) -> str:
    from zoo.cli.extras import EXTRAS, find

    if name not in EXTRAS:
        return name
    return f"{name}, installed" if find(name).is_installed else f"{name}, missing: {find(name).command}"


def _range(dims: tuple[int, int]) -> str:
    least, most = dims
    return f"{least:,} or more" if most >= 10**9 else f"{least:,} to {most:,}"


def _box(problem: Problem) -> str:
    if problem.bounds is None:
        return ""
    pairs = list(dict.fromkeys(problem.bounds))
    shown = ", ".join(f"{lower:g}:{upper:g}" for lower, upper in pairs[:2])
    return shown if len(pairs) <= 2 else f"{shown}, ..."


def _minimum(problem: Problem) -> str:
    if problem.several:
        return "a curve"
    return "unknown" if problem.minimum is None else f"{problem.minimum:.10g}"


def _written(default: Any) -> str:
    """Return a default as `--option` would be given it."""
    if isinstance(default, float):
        return f"{default:.12g}"
    return "None" if default is None else json.dumps(_plain(default), ensure_ascii=False)


def _plain(default: Any) -> Any:
    return default if isinstance(default, (str, int, float, bool, type(None))) else repr(default)
