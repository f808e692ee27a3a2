"""The methods there are, by name; a method's file is imported when it is first asked for.

Other distributions add theirs through the entry point group `gradfree.methods`: a name, and
"module:factory" of something that returns an `Optimizer`.
"""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import inspect
from dataclasses import dataclass
from typing import Any

from zoo.core.types import Optimizer
from zoo.core.validation import check_known, hint, listed

TRAITS = {
    "local": "goes downhill from where it starts",
    "global": "looks beyond the next valley",
    "ranks": "uses the order of values only, so that any increasing function of them gives the same search",
    "noise": "copes with noise better than most",
    "ill-conditioned": "learns the shape of long narrow valleys",
    "separable": "profits where variables do not interact",
    "model": "fits a model to what was evaluated; for expensive objectives",
    "restarts": "starts again when it has converged",
    "objectives": "takes several objectives at once",
    "constraints": "takes constraints itself; all others are kept to them by what they are told",
    "minima": "finds several minima at once, `result.minima`",
}
"""What a method may be said to be good for."""


@dataclass(frozen=True, slots=True)
class Method:
    """An entry of the registry.

    Attributes:
        name: What users write.
        target: "module:factory"; the factory's keyword arguments are the method's options.
        summary: One line.
        paper: Where it comes from, author and year, empty where there is none.
        dims: Numbers of variables that it is meant for, from the least to the most.
        batch: Evaluations of a step, which is how many workers can be busy; n candidates, d variables.
        cost: What a step takes besides its evaluations, in numbers touched: "n d", say.
        traits: What it is good for, words of `TRAITS`.
        extra: The extra that installs what it needs, empty where nothing more is needed.
    """

    name: str
    target: str
    summary: str
    paper: str = ""
    dims: tuple[int, int] = (1, 1000)
    batch: str = ""
    cost: str = ""
    traits: tuple[str, ...] = ()
    extra: str = ""

    @property
    def factory(self) -> Any:
        """The factory itself."""
        module, _, attribute = self.target.partition(":")
        return getattr(importlib.import_module(module), attribute)

    def options(self) -> dict[str, Any]:
        """Return the options there are, with their defaults."""
        return dict(_defaults(self.factory))

    def build(self, options: dict[str, Any] | None = None) -> Optimizer[Any]:
        """Return the method with some options set.

        Raises:
            TypeError: An option is unknown.
            ValueError: An option has a value that it cannot have.
        """
        given = dict(options or {})
        check_known(f"option of method {self.name!r}:", given, self.options())
        made: Optimizer[Any] = self.factory(**given)
        return made


_MANY = 10**9  # as many variables as fit into memory

_OWN = (
    Method(
        "cma",
        "zoo.methods.cma_es:CMAES",
        "full covariance, for up to about 1000 variables",
        "Hansen 2016",
        dims=(2, 1000),
        batch="4 + 3 log d",
        cost="n d² + d³ / 10",
        traits=("ranks", "ill-conditioned", "noise"),
    ),
    Method(
        "bipop-cma",
        "zoo.methods.restarts:BIPOPCMAES",
        "cma, restarted with large and small populations in turn",
        "Hansen 2009",
        dims=(1, 1000),
        batch="4 + 3 log d and more",
        cost="n d² + d³ / 10",
        traits=("global", "restarts", "ill-conditioned", "noise"),
    ),
    Method(
        "ipop-cma",
        "zoo.methods.restarts:IPOPCMAES",
        "cma, restarted with twice the population each time",
        "Auger and Hansen 2005",
        dims=(1, 1000),
        batch="4 + 3 log d and more",
        cost="n d² + d³ / 10",
        traits=("global", "restarts", "ill-conditioned", "noise"),
    ),
    Method(
        "lq-cma",
        "zoo.methods.lq_cma:LQCMA",
        "cma that evaluates a few candidates of a step and trusts a quadratic model with the rest",
        "Hansen 2019",
        dims=(1, 40),
        batch="1 to 4 + 3 log d",
        cost="d⁶ / 4",
        traits=("model", "ill-conditioned"),
    ),
    Method(
        "lm-ma-es",
        "zoo.methods.lm_ma_es:LMMAES",
        "cma with a few vectors for a covariance, for thousands to millions of variables",
        "Loshchilov et al. 2019",
        dims=(100, _MANY),
        batch="4 + 3 log d",
        cost="n d log d",
        traits=("ranks", "ill-conditioned", "noise"),
    ),
    Method(
        "sep-cma",
        "zoo.methods.sep_cma_es:SepCMAES",
        "diagonal covariance, for many variables",
        "Ros and Hansen 2008",
        dims=(2, 100_000),
        batch="4 + 3 log d",
        cost="n d",
        traits=("ranks", "separable", "noise"),
    ),
    Method(
        "xnes",
        "zoo.methods.xnes:XNES",
        "natural gradient on mean and full covariance",
        "Glasmachers et al. 2010",
        dims=(1, 300),
        batch="4 + 3 log d",
        cost="n d² + d³",
        traits=("ranks", "ill-conditioned", "noise"),
    ),
    Method(
        "snes",
        "zoo.methods.snes:SNES",
        "natural gradient on mean and deviations, for very many variables",
        "Schaul et al. 2011",
        dims=(1, _MANY),
        batch="4 + 3 log d",
        cost="n d",
        traits=("ranks", "separable", "noise"),
    ),
    Method(
        "pgpe",
        "zoo.methods.pgpe:PGPE",
        "mirrored pairs, momentum and a limit on speed, for very many variables",
        "Sehnke et al. 2010",
        dims=(1, _MANY),
        batch="4 + 3 log d",
        cost="n d",
        traits=("ranks", "separable", "noise"),
    ),
    Method(
        "openai-es",
        "zoo.methods.openai_es:OpenAIES",
        "mirrored pairs of fixed width and Adam, for very many variables",
        "Salimans et al. 2017",
        dims=(1, _MANY),
        batch="4 + 3 log d",
        cost="n d",
        traits=("local", "ranks", "noise"),
    ),
    Method(
        "pycma",
        "zoo.methods.pycma:PyCMA",
        "the `cma` package, as a trusted second opinion",
        "Hansen 2016",
        dims=(2, 300),
        batch="4 + 3 log d",
        cost="n d² + d³ / 10",
        traits=("ranks", "ill-conditioned", "noise"),
    ),
    Method(
        "zo-sgd",
        "zoo.methods.aliases:ZOSGD",
        "descent along random-vector gradients",
        "Ghadimi and Lan 2013",
        dims=(1, _MANY),
        batch="16 and 2 in turn",
        cost="n d",
        traits=("local",),
    ),
    Method(
        "zo-adam",
        "zoo.methods.aliases:ZOAdam",
        "Adam on random-vector gradients",
        "Kingma and Ba 2015",
        dims=(1, _MANY),
        batch="16 and 2 in turn",
        cost="n d",
        traits=("local",),
    ),
    Method(
        "zo-adamm",
        "zoo.methods.aliases:ZOAdaMM",
        "Adam whose second moments never fall, on random-vector gradients",
        "Chen et al. 2019",
        dims=(1, _MANY),
        batch="16 and 2 in turn",
        cost="n d",
        traits=("local",),
    ),
    Method(
        "zo-sign",
        "zoo.methods.aliases:ZOSign",
        "descent along signs of gradients",
        "Liu et al. 2019",
        dims=(1, _MANY),
        batch="16 and 2 in turn",
        cost="n d",
        traits=("local",),
    ),
    Method(
        "spsa",
        "zoo.methods.aliases:SPSA",
        "two evaluations a step",
        "Spall 1992",
        dims=(1, _MANY),
        batch="2",
        cost="d",
        traits=("local", "noise"),
    ),
    Method(
        "coordinate-descent",
        "zoo.methods.aliases:CoordinateDescent",
        "descent along coordinate-wise gradients",
        "Chen et al. 2024",
        dims=(1, 10_000),
        batch="2 d and 2 in turn",
        cost="n d",
        traits=("local",),
    ),
    Method(
        "hizoo",
        "zoo.methods.aliases:DiagonalNewton",
        "descent along gradients divided by a diagonal Hessian, for variables of unlike scales",
        "Zhao et al. 2025",
        dims=(1, 1000),
        batch="2 d + 1 and 2 in turn",
        cost="d²",
        traits=("local", "separable"),
    ),
    Method(
        "random-descent",
        "zoo.methods.aliases:RandomDescent",
        "descent along orthonormal random directions",
        "Nesterov and Spokoiny 2017",
        dims=(1, _MANY),
        batch="16 and 2 in turn",
        cost="n d",
        traits=("local",),
    ),
    Method(
        "de",
        "zoo.methods.de:DE",
        "differential evolution that adapts itself, for many valleys",
        "Tanabe and Fukunaga 2014",
        dims=(1, 1000),
        batch="budget^.5 / 2 down to 4",
        cost="n d",
        traits=("global", "ranks"),
    ),
    Method(
        "gp",
        "zoo.methods.gp:GP",
        "Bayesian optimization, for some hundred evaluations at most",
        "Jones et al. 1998",
        dims=(1, 20),
        batch="1, or batch_size",
        cost="n³",
        traits=("global", "model"),
        extra="gp",
    ),
    Method(
        "pso",
        "zoo.methods.pso:PSO",
        "particle swarm, for many valleys and little structure",
        "Clerc and Kennedy 2002",
        dims=(1, 1000),
        batch="10 + 2 d^.5",
        cost="n d",
        traits=("global", "ranks"),
    ),
    Method(
        "cbo-pso",
        "zoo.consensus.particle_swarm:ConsensusPSO",
        "a swarm with inertia and memory, drawn to a consensus point",
        "Grassi and Pareschi 2021",
        dims=(1, 1000),
        batch="40",
        cost="n d",
        traits=("global", "separable"),
    ),
    Method(
        "cbo",
        "zoo.consensus.cbo:CBO",
        "particles about a consensus point, for many valleys along the coordinates",
        "Carrillo et al. 2021",
        dims=(1, _MANY),
        batch="20",
        cost="n d",
        traits=("global", "ranks", "separable"),
    ),
    Method(
        "cbo-curvature",
        "zoo.consensus.curvature:CurvatureCBO",
        "`cbo` along axes that are measured, for many valleys of smooth functions, however they are turned",
        dims=(1, 300),
        batch="20 or d²/2",
        cost="n d + d²",
        traits=("global",),
    ),
    Method(
        "cbo-textbook",
        "zoo.consensus.textbook:TextbookCBO",
        "consensus-based optimization as published, for study and for many particles",
        "Pinnau et al. 2017",
        dims=(1, _MANY),
        batch="16",
        cost="n d",
        traits=("global", "separable"),
    ),
    Method(
        "ch",
        "zoo.consensus.hopping:ConsensusHopping",
        "consensus hopping: the weighted mean of a sample, for gradient-like steps over small hills",
        "Riedl et al. 2023",
        dims=(1, _MANY),
        batch="50",
        cost="n d",
        traits=("local", "noise"),
    ),
    Method(
        "cbo-adam",
        "zoo.consensus.adam:AdamCBO",
        "particles that move to the consensus point by Adam's rule, in noise that fades",
        "Chen et al. 2022",
        dims=(1, 1000),
        batch="5 d",
        cost="n d",
        traits=("global",),
    ),
    Method(
        "cbs",
        "zoo.consensus.sampling:CBS",
        "noise in the shape of the swarm; also samples exp(-f)",
        "Carrillo et al. 2022",
        dims=(1, 100),
        batch="10 d",
        cost="n d²",
        traits=("global", "ill-conditioned"),
    ),
    Method(
        "cbo-frozen",
        "zoo.consensus.freezing:FrozenCBO",
        "consensus held still over intervals solved exactly, and a diffusion that does not vanish",
        "Fornasier et al. 2026",
        dims=(1, 1000),
        batch="5 d",
        cost="n d",
        traits=("global",),
    ),
    Method(
        "lbfgs",
        "zoo.methods.lbfgs:LBFGS",
        "quasi-Newton on differences, several step lengths at once",
        "Liu and Nocedal 1989",
        dims=(1, 1000),
        batch="d, then 1 or 3, in turn",
        cost="n d",
        traits=("local", "ill-conditioned"),
    ),
    Method(
        "nelder-mead",
        "zoo.methods.scipy:NelderMead",
        "the downhill simplex, scipy's",
        "Nelder and Mead 1965",
        dims=(1, 20),
        batch="d + 1, then 1",
        cost="d²",
        traits=("local", "ranks"),
    ),
    Method(
        "powell",
        "zoo.methods.scipy:Powell",
        "line searches along conjugate directions, scipy's",
        "Powell 1964",
        dims=(1, 50),
        batch="1",
        cost="d",
        traits=("local", "separable"),
    ),
    Method(
        "cobyqa",
        "zoo.methods.scipy:COBYQA",
        "quadratic models in a trust region, scipy's",
        "Ragonneau 2022",
        dims=(1, 50),
        batch="1",
        cost="d³",
        traits=("local", "ill-conditioned", "model"),
    ),
    Method(
        "l-bfgs-b",
        "zoo.methods.scipy:LBFGSB",
        "quasi-Newton on differences, scipy's",
        "Byrd et al. 1995",
        dims=(1, 1000),
        batch="d + 1",
        cost="d²",
        traits=("local", "ill-conditioned"),
    ),
    Method(
        "bfgs",
        "zoo.methods.scipy:BFGS",
        "quasi-Newton with a whole matrix on differences, scipy's",
        "Nocedal and Wright 2006",
        dims=(1, 300),
        batch="d + 1",
        cost="d²",
        traits=("local", "ill-conditioned"),
    ),
    Method(
        "scipy-de",
        "zoo.methods.scipy:DifferentialEvolution",
        "differential evolution, scipy's",
        "Storn and Price 1997",
        dims=(1, 50),
        batch="15 d",
        cost="n d",
        traits=("global",),
    ),
    Method(
        "dual-annealing",
        "zoo.methods.scipy:DualAnnealing",
        "annealing with local searches, scipy's",
        "Xiang et al. 1997",
        dims=(1, 100),
        batch="1, and d + 1 in local searches",
        cost="d²",
        traits=("global", "restarts"),
    ),
    Method(
        "direct",
        "zoo.methods.scipy:Direct",
        "divides the box, scipy's",
        "Jones et al. 1993",
        dims=(1, 10),
        batch="1",
        cost="d",
        traits=("global",),
    ),
    Method(
        "nsga2",
        "zoo.methods.nsga2:NSGA2",
        "genetic algorithm for several objectives",
        "Deb et al. 2002",
        dims=(1, 1000),
        batch="100",
        cost="n d + n² per objective",
        traits=("global", "objectives"),
    ),
    Method(
        "cbo-polarized",
        "zoo.consensus.polarized:PolarizedCBO",
        "particles that agree with those near them, for several minima at once",
        "Bungert et al. 2024",
        dims=(1, 20),
        batch="200",
        cost="n² d",
        traits=("global", "minima"),
    ),
    Method(
        "cbo-pareto",
        "zoo.consensus.pareto:ParetoCBO",
        "a consensus point for each compromise between several objectives",
        "Borghi et al. 2023",
        dims=(1, 1000),
        batch="40",
        cost="n² d + n³",
        traits=("global", "objectives"),
    ),
    Method(
        "cbo-manifold",
        "zoo.consensus.manifold_cbo:ManifoldCBO",
        "consensus on a sphere, or among orthonormal columns",
        "Fornasier et al. 2021",
        dims=(2, 1000),
        batch="20",
        cost="n d",
        traits=("global",),
    ),
    Method(
        "cbo-mirror",
        "zoo.consensus.mirror:MirrorCBO",
        "consensus in a dual space, for simplices, balls, boxes and sparse points",
        "Bungert et al. 2025",
        dims=(1, 1000),
        batch="20",
        cost="n d",
        traits=("global", "separable"),
    ),
    Method(
        "cbo-penalty",
        "zoo.consensus.penalty:PenaltyCBO",
        "consensus by exact penalties for constraints, which adapt themselves",
        "Borghi et al. 2023",
        dims=(1, 1000),
        batch="40",
        cost="n d",
        traits=("global", "constraints"),
    ),
    Method(
        "random",
        "zoo.methods.random_search:RandomSearch",
        "no method at all, to compare with",
        dims=(1, _MANY),
        batch="64",
        cost="n d",
        traits=("global", "ranks"),
    ),
)

_ALIASES = {"auto": "cma"}
_MIXED = "de"  # "auto" where variables are discrete: benchmarks/mixed_constrained.py compares the candidates


@functools.cache
def list_methods() -> dict[str, Method]:
    """Return all methods by name, those of other distributions behind our own."""
    known = {method.name: method for method in _OWN}
    for entry in importlib.metadata.entry_points(group="gradfree.methods"):
        known.setdefault(entry.name, Method(entry.name, entry.value, f"from {entry.value.partition(':')[0]}"))
    return known


@functools.cache
def _defaults(factory: Any) -> dict[str, Any]:
    return {name: p.default for name, p in inspect.signature(factory).parameters.items()}


def find(name: str, *, mixed: bool = False) -> Method:
    """Return a method by name; "auto" stands for the one that we would take.

    Args:
        name: As users write it.
        mixed: Whether there are integers or categories.

    Raises:
        ValueError: There is none of that name; the nearest is suggested.
    """
    known = list_methods()
    name = _MIXED if mixed and name == "auto" else _ALIASES.get(name, name)
    if name not in known:
        raise ValueError(
            f"unknown method {name!r}.{hint(name, known)} Valid: {listed(sorted([*known, *_ALIASES]))}."
        )
    return known[name]
