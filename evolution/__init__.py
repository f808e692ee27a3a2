"""Neuroevolution: genetic algorithms, novelty search and evolution strategies on environments.

Start with `evolution.evolve`; `evolution.resume` goes on with a run, `evolution.list_methods` says what
methods there are. It stands on `zoo` and never imports `federated`.

Names are imported when they are first used, so that importing the package costs next to nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from evolution.archive import Archive as Archive
    from evolution.deep_ga import DeepGA as DeepGA
    from evolution.deep_ga import RandomPolicies as RandomPolicies
    from evolution.environments.environment import Environment as Environment
    from evolution.environments.environment import Step as Step
    from evolution.es import Validated as Validated
    from evolution.facade import Evolution as Evolution
    from evolution.facade import Generation as Generation
    from evolution.facade import evolve as evolve
    from evolution.facade import resume as resume
    from evolution.genome import Codec as Codec
    from evolution.genome import Genome as Genome
    from evolution.individual import Individual as Individual
    from evolution.individual import load_individual as load_individual
    from evolution.individual import save_individual as save_individual
    from evolution.methods import list_methods as list_methods
    from evolution.novelty_es import NSES as NSES
    from evolution.novelty_es import NSRAES as NSRAES
    from evolution.novelty_es import NSRES as NSRES
    from evolution.novelty_ga import NoveltyGA as NoveltyGA
    from evolution.playing import champion_of as champion_of
    from evolution.policies.policy import Actor as Actor
    from evolution.policies.policy import Piece as Piece
    from evolution.policies.policy import Policy as Policy
    from evolution.progress import Progress as Progress

_HOMES = {
    "evolution.archive": ("Archive",),
    "evolution.deep_ga": ("DeepGA", "RandomPolicies"),
    "evolution.environments.environment": ("Environment", "Step"),
    "evolution.es": ("Validated",),
    "evolution.facade": ("Evolution", "Generation", "evolve", "resume"),
    "evolution.genome": ("Codec", "Genome"),
    "evolution.individual": ("Individual", "load_individual", "save_individual"),
    "evolution.methods": ("list_methods",),
    "evolution.novelty_es": ("NSES", "NSRAES", "NSRES"),
    "evolution.novelty_ga": ("NoveltyGA",),
    "evolution.playing": ("champion_of",),
    "evolution.policies.policy": ("Actor", "Piece", "Policy"),
    "evolution.progress": ("Progress",),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
