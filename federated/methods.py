"""The federated methods there are, by name; a method's file is imported when it is first asked for.

Your own is named as "module:name". Other distributions add theirs through the entry point group
`gradfree.federated_methods`: a name, and "module:factory" of a `FederatedAlgorithm`.
"""

from __future__ import annotations

import functools
import importlib.metadata
import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from federated.algorithm import FederatedAlgorithm
from zoo.core.named import named
from zoo.core.validation import check_flag, check_known, hint, listed


@dataclass(frozen=True, slots=True)
class Method:
    """An entry of the table.

    Attributes:
        name: What users write.
        target: "module:factory"; the factory's keyword arguments are the method's options. It may also be an
            algorithm itself, which then has none.
        summary: One line.
        paper: Where it comes from, author and year.
    """

    name: str
    target: str
    summary: str
    paper: str = ""

    @property
    def factory(self) -> Any:
        """The factory itself.

        Raises:
            ValueError: There is nothing of that name.
            TypeError: It is nothing that makes an algorithm.
        """
        found = named("method", self.target)
        if not (callable(found) or isinstance(found, FederatedAlgorithm)):
            raise TypeError(
                f"`method` is {self.target!r}, which is no FederatedAlgorithm, and no function that returns "
                f"one: {found!r}."
            )
        return found

    def options(self) -> dict[str, Any]:
        """Return the options there are, with their defaults; `inspect.Parameter.empty` where one is needed.

        "published" is one of those methods whose factory has a `published`: with it, the other ones have the
        defaults of the paper's own code.
        """
        if isinstance(self.factory, FederatedAlgorithm):
            return {}
        own = {
            name: p.default
            for name, p in inspect.signature(self.factory).parameters.items()
            if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
        }
        return {**own, **({"published": False} if hasattr(self.factory, "published") else {})}

    def build(self, options: Mapping[str, Any] | None = None) -> FederatedAlgorithm[Any, Any]:
        """Return the method with some options set.

        Raises:
            TypeError: An option is unknown or missing, or what is made is no algorithm.
            ValueError: An option has a value that it cannot have.
        """
        given, known = dict(options or {}), self.options()
        if isinstance(self.factory, FederatedAlgorithm):
            if given:
                raise TypeError(
                    f"`options` must be left out where {self.name!r} is an algorithm already, got "
                    f"{listed(given)}: name its class."
                )
            return self.factory
        check_known(f"option of method {self.name!r}:", given, known)
        empty = inspect.Parameter.empty
        if missing := [name for name, value in known.items() if value is empty and name not in given]:
            raise TypeError(f"method {self.name!r} needs the option {missing[0]!r}.")
        as_published = hasattr(self.factory, "published") and check_flag(
            "published", given.pop("published", False)
        )
        made = self.factory.published(**given) if as_published else self.factory(**given)
        if not isinstance(made, FederatedAlgorithm):
            raise TypeError(f"method {self.name!r} must be or return a FederatedAlgorithm, got {made!r}.")
        return made


_OWN = (
    Method(
        "fzoos",
        "federated.algorithms.fzoos:FZooS",
        "surrogates learnt from where clients have been, corrected by one of all of them",
        "Shu et al. 2023",
    ),
    Method(
        "fedzo",
        "federated.algorithms.fedzo:FedZO",
        "local steps on finite differences, then the mean",
        "Fang et al. 2022",
    ),
    Method(
        "fedprox",
        "federated.algorithms.fedprox:FedProx",
        "fedzo that is drawn back to where the round began",
        "Li et al. 2020",
    ),
    Method(
        "scaffold-1",
        "federated.algorithms.scaffold:ScaffoldI",
        "fedzo corrected by differences taken anew at the start of each round",
        "Karimireddy et al. 2020",
    ),
    Method(
        "scaffold-2",
        "federated.algorithms.scaffold:ScaffoldII",
        "fedzo corrected by the differences of the round before",
        "Karimireddy et al. 2020",
    ),
    Method(
        "fedavg",
        "federated.algorithms.fedavg:FedAvg",
        "local steps on exact gradients, then the mean; for reference",
        "McMahan et al. 2017",
    ),
    Method(
        "decomfl",
        "federated.algorithms.decomfl:DeComFL",
        "seeds and single numbers are all that travels, whatever the dimension",
        "Li et al. 2025",
    ),
    Method(
        "fedkseed",
        "federated.algorithms.fedkseed:FedKSeed",
        "a number for each of a fixed set of directions says where x is",
        "Qin et al. 2024",
    ),
)


@functools.cache
def list_methods() -> dict[str, Method]:
    """Return all methods by name: our own, and those of other distributions.

    Example:
        >>> list(list_methods())[:2]
        ['fzoos', 'fedzo']
    """
    known = {method.name: method for method in _OWN}
    for entry in importlib.metadata.entry_points(group="gradfree.federated_methods"):
        known.setdefault(entry.name, Method(entry.name, entry.value, f"from {entry.value.partition(':')[0]}"))
    return known


def find(name: str) -> Method:
    """Return a method by name.

    Args:
        name: One of `list_methods()`; or "module:name" of a `FederatedAlgorithm` of your own: its class, an
            instance, or a function that returns one.

    Raises:
        ValueError: There is none of that name; the nearest is suggested.
        TypeError: What "module:name" stands for makes no algorithm.

    Example:
        >>> find("fedzo").paper
        'Fang et al. 2022'
        >>> find("federated.algorithms.fedzo:FedZO").build({"num_steps": 3}).num_steps
        3
    """
    known = list_methods()
    if name in known:
        return known[name]
    if ":" in name:
        method = Method(name, name, f"from {name.partition(':')[0]}")
        method.factory  # noqa: B018 - that there is one is to be known now
        return method
    raise ValueError(
        f'unknown method {name!r}.{hint(name, known)} Valid: {listed(known)}, or "module:name" of your own.'
    )


def label_of(name: str) -> str:
    """Return what a method is called among others, and in names of directories, if it is given no label.

    Example:
        >>> label_of("slopes:SharedDirections"), label_of("scaffold-1")
        ('SharedDirections', 'scaffold-1')
    """
    return name.partition(":")[2].replace(".", "_") or name
