"""The methods there are for policies, by name; a method's file is imported when it is first asked for.

All methods of `zoo` are among them: they move a vector of parameters, and what they recommend is tried in
episodes of its own, see `evolution.es.Validated`. Other distributions add theirs through the entry point
group `gradfree.evolution_methods`: a name, and "module:factory" of an `Optimizer` whose `ask` returns
`evolution.members.Members`.
"""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from zoo import registry
from zoo.core.types import Optimizer
from zoo.core.validation import check_known, hint, listed

TRAITS = {
    "genomes": "is told what chains of seeds stand for, as `codec`",
    "needs behaviour": "compares what episodes have come to",
    "parameters": "moves a vector of parameters, from a first policy on",
    "dense": "holds a matrix as wide as the policy has parameters; for small ones",
}
"""What a method may be said to be."""

_VALIDATION = {"validation_every": 10, "validation_episodes": 30}


@dataclass(frozen=True, slots=True)
class Method:
    """An entry of the table.

    Attributes:
        name: What users write.
        target: "module:factory"; the factory's keyword arguments are the method's options.
        summary: One line.
        paper: Where it comes from, author and year, empty where there is none.
        traits: Words of `TRAITS`.
        defaults: Options that have another default here than in the factory.
        is_validated: Whether it is one of `zoo`, whose recommendations are tried in episodes of their own.
    """

    name: str
    target: str
    summary: str
    paper: str = ""
    traits: tuple[str, ...] = ()
    defaults: Mapping[str, Any] = field(default_factory=dict)
    is_validated: bool = False

    @property
    def factory(self) -> Any:
        """The factory itself."""
        module, _, attribute = self.target.partition(":")
        return getattr(importlib.import_module(module), attribute)

    def options(self) -> dict[str, Any]:
        """Return the options there are, with their defaults; `codec` is not among them."""
        signature = inspect.signature(self.factory)
        own = {name: p.default for name, p in signature.parameters.items() if name != "codec"}
        return {**own, **self.defaults, **(_VALIDATION if self.is_validated else {})}

    def build(self, options: Mapping[str, Any] | None = None) -> Optimizer[Any]:
        """Return the method with some options set.

        Args:
            options: The options; "codec" among them for methods that have the trait "genomes".

        Raises:
            TypeError: An option is unknown.
            ValueError: An option has a value that it cannot have.
        """
        given = dict(options or {})
        codec = {"codec": given.pop("codec")} if "genomes" in self.traits and "codec" in given else {}
        check_known(f"option of method {self.name!r}:", given, self.options())
        given = {**self.defaults, **given, **codec}
        if not self.is_validated:
            made: Optimizer[Any] = self.factory(**given)
            return made
        from evolution.es import Validated

        own = {name: value for name, value in given.items() if name not in _VALIDATION}
        trials = {name: value for name, value in given.items() if name in _VALIDATION}
        return Validated(self.factory(**own), **trials)


_OWN = (
    Method(
        "deep-ga",
        "evolution.deep_ga:DeepGA",
        "truncation, mutation and an elite by re-evaluation; for networks of any size",
        "Such et al. 2017",
        traits=("genomes",),
    ),
    Method(
        "random",
        "evolution.deep_ga:RandomPolicies",
        "fresh policies, the best of them by re-evaluation; what others have to be better than",
        "Such et al. 2017",
        traits=("genomes",),
    ),
    Method(
        "novelty-ga",
        "evolution.novelty_ga:NoveltyGA",
        "deep-ga that looks for what is new, for tasks that lead into dead ends",
        "Such et al. 2017",
        traits=("genomes", "needs behaviour"),
    ),
    Method(
        "ns-es",
        "evolution.novelty_es:NSES",
        "evolution strategies that climb novelty",
        "Conti et al. 2018",
        traits=("genomes", "needs behaviour", "parameters"),
    ),
    Method(
        "nsr-es",
        "evolution.novelty_es:NSRES",
        "evolution strategies that climb novelty and score alike",
        "Conti et al. 2018",
        traits=("genomes", "needs behaviour", "parameters"),
    ),
    Method(
        "nsra-es",
        "evolution.novelty_es:NSRAES",
        "evolution strategies that climb the score, and novelty where that does not help",
        "Conti et al. 2018",
        traits=("genomes", "needs behaviour", "parameters"),
    ),
)

_DEFAULTS: dict[str, dict[str, Any]] = {
    "openai-es": {
        "population_size": 256,
        "sigma": 0.02,
        "learning_rate": 0.01,
        "weight_decay": 0.005,
    },
}
_DENSE = 1000  # parameters; methods of `zoo` that are meant for no more hold a matrix, or slow down otherwise


@functools.cache
def list_methods() -> dict[str, Method]:
    """Return all methods by name: our own, those of other distributions, and those of `zoo`.

    Example:
        >>> list(list_methods())[:3]
        ['deep-ga', 'random', 'novelty-ga']
        >>> list_methods()["cma"].is_validated
        True
    """
    known = {method.name: method for method in _OWN}
    for entry in importlib.metadata.entry_points(group="gradfree.evolution_methods"):
        known.setdefault(entry.name, Method(entry.name, entry.value, f"from {entry.value.partition(':')[0]}"))
    for name, method in registry.list_methods().items():
        known.setdefault(
            name,
            Method(
                name,
                method.target,
                method.summary,
                method.paper,
                ("parameters", "dense") if method.dims[1] <= _DENSE else ("parameters",),
                _DEFAULTS.get(name, {}),
                is_validated=True,
            ),
        )
    return known


def find(name: str) -> Method:
    """Return a method by name.

    Raises:
        ValueError: There is none of that name; the nearest is suggested.

    Example:
        >>> find("openai-es").options()["sigma"]
        0.02
    """
    known = list_methods()
    if name not in known:
        raise ValueError(f"unknown method {name!r}.{hint(name, known)} Valid: {listed(known)}.")
    return known[name]
