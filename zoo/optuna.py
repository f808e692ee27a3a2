"""Our methods as a sampler of optuna's studies; needs the extra `optuna`."""

from __future__ import annotations

import hashlib
import json
import math
import secrets
import threading
from collections.abc import Mapping, Sequence
from typing import Any

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.samplers import BaseSampler, RandomSampler
from optuna.search_space import IntersectionSearchSpace
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from zoo.arguments import as_method
from zoo.core.space import Categorical, Float, Integer, Space, Variable
from zoo.core.validation import check_count
from zoo.registry import find
from zoo.session import Session

_RUN, _ID, _KNOWN, _SEED = "zoo:run", "zoo:id", "zoo:known", "zoo:seed"
_ENDLESS = 10**9  # evaluations, where nobody says how many there will be


class ZooSampler(BaseSampler):
    """Suggest parameters by a method of this library.

    The method searches the parameters that all finished trials have in common, as optuna's own relative
    samplers do; others are drawn at random, and so are all of them until the first trial has finished, unless
    `search_space` says beforehand what there will be. Integers, steps, logarithmic scales and categories are
    those of `zoo.Space`. Trials that finished before the method began are known to it from the start.

    Methods go step by step: while all points of a step are being tried (`n_jobs`, several processes), further
    trials are drawn at random. Failed and pruned trials count as failed evaluations.

    Everything that decides the method's next point stands in the study's storage: a study that is loaded in
    another process, with a sampler of the same arguments, goes on where it was. Without `seed`, the storage
    keeps one.

    Args:
        method: A name from `zoo.list_methods()`.
        options: Its options.
        seed: Seed of method and random trials.
        budget: How many trials there will be, for methods that plan with it.
        search_space: Distributions by name, for the method to begin with the first trial.

    Raises:
        TypeError: An argument has the wrong type, or an option is unknown.
        ValueError: There is no such method, or it takes several objectives; or a parameter has more than 2^40
            values (which without `search_space` is found out during the study).

    Example:
        >>> import optuna
        >>> optuna.logging.set_verbosity(optuna.logging.WARNING)
        >>> study = optuna.create_study(sampler=ZooSampler("cma", seed=0))
        >>> study.optimize(lambda trial: trial.suggest_float("x", -5, 5) ** 2, n_trials=60)
        >>> study.best_value < 1e-3
        True
    """

    def __init__(
        self,
        method: str = "auto",
        *,
        options: Mapping[str, Any] | None = None,
        seed: int | None = None,
        budget: int | None = None,
        search_space: Mapping[str, BaseDistribution] | None = None,
    ) -> None:
        self._options = dict(options or {})
        self._method = as_method(method, self._options)
        if "objectives" in find(self._method).traits:
            raise ValueError(f"`method` must be one for a single objective, got {method!r}.")
        self._seed = None if seed is None else check_count("seed", seed, minimum=0)
        self._budget = None if budget is None else check_count("budget", budget)
        self._given = None if search_space is None else _searchable(search_space)
        if self._given:
            _space(self._given)  # which is refused here rather than by the first trial
        self._common = IntersectionSearchSpace()
        self._random = RandomSampler(None if seed is None else seed % 2**32)
        self._lock = threading.RLock()
        self._searches: dict[tuple[int, str], _Search] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_lock": None, "_searches": {}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock = threading.RLock()

    def reseed_rng(self) -> None:
        """Let a copy of this sampler draw its random trials differently; the method's points stay."""
        self._random.reseed_rng()

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Return the parameters that the method searches."""
        if self._given is not None:
            return dict(self._given)
        return _searchable(self._common.calculate(study))

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Return the values of these parameters for a trial, none if the method has no point to give."""
        if len(study.directions) > 1:
            raise ValueError("`ZooSampler` is for studies with one objective.")
        if not search_space:
            return {}
        with self._lock:
            trials = study.get_trials(deepcopy=False)
            search = self._search(study, trial, trials, search_space)
            number = search.take(trials)
            if number is None:
                return {}
            attributes: dict[str, Any] = {_RUN: search.name, _ID: number}
            if search.begins:
                attributes[_KNOWN], search.begins = search.known, False
            for name, value in attributes.items():
                study._storage.set_trial_system_attr(trial._trial_id, name, value)
            return search.parameters(number)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Return a random value of one parameter."""
        return self._random.sample_independent(study, trial, param_name, param_distribution)

    def _search(
        self,
        study: Study,
        trial: FrozenTrial,
        trials: Sequence[FrozenTrial],
        search_space: Mapping[str, BaseDistribution],
    ) -> _Search:
        seed = self._seed_of(study)
        described = [[name, repr(search_space[name])] for name in sorted(search_space)]
        content = [self._method, repr(sorted(self._options.items())), seed, self._budget, described]
        name = hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]
        place = (study._study_id, name)
        if place not in self._searches:
            first = next((t for t in _of(trials, name) if _KNOWN in t.system_attrs), None)
            if first is not None:
                known = [t for t in trials if t.number in first.system_attrs[_KNOWN]]
            else:
                finished = [t for t in trials if t.state == TrialState.COMPLETE and _has(t, search_space)]
                known = [t for t in finished if t.value is not None and math.isfinite(t.value)]
            self._searches[place] = _Search(
                name,
                search_space,
                known,
                study.direction == StudyDirection.MAXIMIZE,
                method=self._method,
                options=self._options,
                rng=seed,
                budget=self._budget or _ENDLESS,
            )
            self._searches[place].begins = first is None
        return self._searches[place]

    def _seed_of(self, study: Study) -> int:
        if self._seed is not None:
            return self._seed
        attributes = study._storage.get_study_system_attrs(study._study_id)
        if _SEED not in attributes:
            study._storage.set_study_system_attr(study._study_id, _SEED, secrets.randbits(32))
            attributes = study._storage.get_study_system_attrs(study._study_id)
        return int(attributes[_SEED])


class _Search:
    """A session over the parameters of a study, and which trials have its points."""

    def __init__(
        self,
        name: str,
        distributions: Mapping[str, BaseDistribution],
        known: Sequence[FrozenTrial],
        maximize: bool,
        **session: Any,
    ) -> None:
        self.name, self.known, self.begins = name, [trial.number for trial in known], False
        self._distributions, self._sign = dict(distributions), -1.0 if maximize else 1.0
        space = _space(distributions)
        points = [
            {key: _to_ours(trial.params[key], distribution) for key, distribution in distributions.items()}
            for trial in known
        ]
        values = [self._sign * float(trial.value or 0.0) for trial in known]
        self._session = Session(space=space, known=(points, values) if points else None, **session)
        self._points: dict[int, Any] = {}  # of the step under way, by id

    def take(self, trials: Sequence[FrozenTrial]) -> int | None:
        """Tell what has finished; return the id of a point that no trial has, None if there is none."""
        here = {int(trial.system_attrs[_ID]): trial for trial in reversed(_of(trials, self.name))}
        while True:
            self._points |= {trial.id: trial.x for trial in self._session.ask(_ENDLESS)}
            ready = [n for n in self._points if n in here and here[n].state.is_finished()]
            if not ready:
                break
            self._session.tell({number: self._value(here[number]) for number in ready})
            for number in ready:
                del self._points[number]
        return min((number for number in self._points if number not in here), default=None)

    def parameters(self, number: int) -> dict[str, Any]:
        """Return a point as optuna knows it."""
        point = self._points[number]
        return {
            key: _to_optuna(point[key], distribution) for key, distribution in self._distributions.items()
        }

    def _value(self, trial: FrozenTrial) -> float:
        if trial.state != TrialState.COMPLETE or trial.value is None:
            return math.nan
        return self._sign * trial.value


def _of(trials: Sequence[FrozenTrial], name: str) -> list[FrozenTrial]:
    return [trial for trial in trials if trial.system_attrs.get(_RUN) == name]


def _has(trial: FrozenTrial, search_space: Mapping[str, BaseDistribution]) -> bool:
    return all(
        name in trial.params and distribution._contains(distribution.to_internal_repr(trial.params[name]))
        for name, distribution in search_space.items()
    )


def _searchable(search_space: Mapping[str, BaseDistribution]) -> dict[str, BaseDistribution]:
    """Return the parameters with more than one value, by name in order."""
    found: dict[str, BaseDistribution] = {}
    for name in sorted(search_space):
        distribution = search_space[name]
        if not isinstance(distribution, (FloatDistribution, IntDistribution, CategoricalDistribution)):
            raise TypeError(f"`search_space` must hold optuna's distributions, got {distribution!r}.")
        if not distribution.single():
            found[name] = distribution
    return found


def _space(distributions: Mapping[str, BaseDistribution]) -> Space:
    variables = {}
    for name, distribution in distributions.items():
        try:
            variables[name] = _variable(distribution)
        except ValueError as error:
            raise ValueError(
                f"the parameter {name!r}, {distribution!r}, cannot be searched: {error}"
            ) from None
    return Space(variables)


def _variable(distribution: BaseDistribution) -> Variable:
    if isinstance(distribution, CategoricalDistribution):
        return Categorical(list(range(len(distribution.choices))))
    assert isinstance(distribution, (FloatDistribution, IntDistribution))
    steps = _steps(distribution)
    if steps is not None:
        return Integer(0, round((steps.high - steps.low) / steps.step))
    if isinstance(distribution, IntDistribution):
        return Integer(distribution.low, distribution.high, log=distribution.log)
    return Float(distribution.low, distribution.high, log=distribution.log)


def _to_ours(value: Any, distribution: BaseDistribution) -> Any:
    """Return a value of optuna's as one of the variable: categories and steps by their number."""
    if isinstance(distribution, CategoricalDistribution):
        return int(distribution.to_internal_repr(value))
    steps = _steps(distribution)
    return value if steps is None else round((value - steps.low) / steps.step)


def _to_optuna(value: Any, distribution: BaseDistribution) -> Any:
    if isinstance(distribution, CategoricalDistribution):
        return distribution.to_external_repr(float(value))
    steps = _steps(distribution)
    if steps is None:
        return value
    number = min(steps.low + value * steps.step, steps.high)
    return int(number) if isinstance(distribution, IntDistribution) else float(number)


def _steps(distribution: Any) -> Any:
    """Return a distribution if its values are counted by steps, which are not those of integers."""
    if isinstance(distribution, IntDistribution):
        return None if distribution.log or distribution.step == 1 else distribution
    return None if distribution.step is None else distribution
