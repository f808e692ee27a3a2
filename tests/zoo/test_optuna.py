"""The sampler for optuna: its trials are the method's points, however often a study is loaded again."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

optuna = pytest.importorskip("optuna")

from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution  # noqa: E402
from optuna.trial import TrialState  # noqa: E402

import zoo  # noqa: E402
from zoo.optuna import ZooSampler  # noqa: E402

optuna.logging.set_verbosity(optuna.logging.ERROR)

DISTRIBUTIONS = {
    "x": FloatDistribution(-5, 5),
    "rate": FloatDistribution(1e-4, 1.0, log=True),
    "width": IntDistribution(1, 64, log=True),
    "depth": IntDistribution(2, 20, step=6),
    "share": FloatDistribution(0.0, 1.0, step=0.25),
    "kind": CategoricalDistribution(["a", None, 3]),
}


def loss(params):
    """Zero at x = 1, rate = .01, width = 8, depth = 8, share = .5, kind = a."""
    return float(
        (params["x"] - 1) ** 2
        + np.log10(params["rate"] / 0.01) ** 2
        + np.log2(params["width"] / 8) ** 2
        + (params["depth"] - 8) ** 2 / 36
        + (params["share"] - 0.5) ** 2
        + (params["kind"] != "a")
    )


def objective(trial):
    return loss(
        {
            "x": trial.suggest_float("x", -5, 5),
            "rate": trial.suggest_float("rate", 1e-4, 1.0, log=True),
            "width": trial.suggest_int("width", 1, 64, log=True),
            "depth": trial.suggest_int("depth", 2, 20, step=6),
            "share": trial.suggest_float("share", 0.0, 1.0, step=0.25),
            "kind": trial.suggest_categorical("kind", ["a", None, 3]),
        }
    )


def parameters(study):
    return [(trial.params, trial.value) for trial in study.get_trials()]


def kept(path):
    """Return a storage that another process would find again."""
    return optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(path / "study.log")))


def run(sampler, n_trials, fun=objective, **study):
    made = optuna.create_study(sampler=sampler, **study)
    made.optimize(fun, n_trials=n_trials)
    return made


def test_trials_are_the_points_of_the_method():
    space = zoo.Space({"x": zoo.Float(-5, 5), "y": zoo.Integer(0, 9)})
    seen = []

    def fun(point):
        seen.append(point)
        return (point["x"] - 1) ** 2 + (point["y"] - 4) ** 2

    zoo.minimize(fun, space=space, method="cma", budget=80, rng=3)
    given = {"x": FloatDistribution(-5, 5), "y": IntDistribution(0, 9)}
    study = run(
        ZooSampler("cma", seed=3, search_space=given, budget=80),
        60,
        lambda t: (t.suggest_float("x", -5, 5) - 1) ** 2 + (t.suggest_int("y", 0, 9) - 4) ** 2,
    )
    assert [params for params, _ in parameters(study)] == seen[:60]


@pytest.mark.parametrize("method", ["auto", "de", "random", "nelder-mead"])
def test_every_kind_of_parameter_is_searched(method):
    study = run(ZooSampler(method, seed=0), 60)
    assert {type(trial.params["width"]) for trial in study.trials} == {int}
    assert {trial.params["depth"] for trial in study.trials} <= {2, 8, 14, 20}
    assert {trial.params["share"] for trial in study.trials} <= {0.0, 0.25, 0.5, 0.75, 1.0}
    assert {trial.params["kind"] for trial in study.trials} <= {"a", None, 3}
    assert len({trial.params["x"] for trial in study.trials}) > 20


def test_it_beats_chance():
    ours = [run(ZooSampler(seed=seed), 150).best_value for seed in range(3)]
    chance = [run(optuna.samplers.RandomSampler(seed=seed), 150).best_value for seed in range(3)]
    assert np.median(ours) < np.median(chance) / 3


def test_a_seed_repeats_a_study_and_a_copy_goes_on_with_it():
    first, again = run(ZooSampler(seed=5), 40), run(ZooSampler(seed=5), 40)
    assert parameters(first) == parameters(again)
    assert parameters(first) != parameters(run(ZooSampler(seed=6), 40))
    sampler = ZooSampler(seed=5)
    study = run(sampler, 20)
    study.sampler = pickle.loads(pickle.dumps(sampler))
    study.optimize(objective, n_trials=20)
    assert parameters(study) == parameters(first)


@pytest.mark.parametrize("seed", [5, None])
def test_a_study_that_is_loaded_again_goes_on_where_it_was(tmp_path, seed):
    storage = kept(tmp_path)
    optuna.create_study(storage=storage, study_name="s")
    for _ in range(4):
        sampler = ZooSampler("cma", seed=seed, search_space=DISTRIBUTIONS)
        optuna.load_study(storage=kept(tmp_path), study_name="s", sampler=sampler).optimize(
            objective, n_trials=9
        )
    broken = optuna.load_study(storage=storage, study_name="s")
    found = parameters(broken)
    if seed is None:
        seed = int(broken._storage.get_study_system_attrs(broken._study_id)["zoo:seed"])
    assert found == parameters(run(ZooSampler("cma", seed=seed, search_space=DISTRIBUTIONS), 36))


def test_trials_before_the_method_are_known_to_it_and_stay_so(tmp_path):
    storage = kept(tmp_path)
    study = optuna.create_study(storage=storage, study_name="s", sampler=ZooSampler("cma", seed=1))
    for x in (0.9, 4.0, -3.0):
        params = {"x": x, "rate": 0.02, "width": 9, "depth": 8, "share": 0.5, "kind": "a"}
        made = optuna.trial.create_trial(params=params, distributions=DISTRIBUTIONS, value=loss(params))
        study.add_trial(made)
    study.optimize(objective, n_trials=12)
    assert study.trials[3].system_attrs["zoo:known"] == [0, 1, 2]
    first = np.array([trial.params["x"] for trial in study.trials[3:]])
    assert abs(np.median(first) - 0.9) < 1.5
    loaded = optuna.load_study(storage=kept(tmp_path), study_name="s", sampler=ZooSampler("cma", seed=1))
    loaded.optimize(objective, n_trials=10)
    assert len({trial.system_attrs["zoo:run"] for trial in loaded.trials[3:]}) == 1
    assert [trial.system_attrs["zoo:id"] for trial in loaded.trials[3:]] == list(range(22))


def test_maximizing_is_minimizing_the_negative():
    low = run(ZooSampler("cma", seed=0, search_space=DISTRIBUTIONS), 40)
    high = run(
        ZooSampler("cma", seed=0, search_space=DISTRIBUTIONS),
        40,
        lambda trial: -objective(trial),
        direction="maximize",
    )
    assert [t.params for t in low.trials] == [t.params for t in high.trials]


def test_failed_and_pruned_trials_do_no_harm():
    def fun(trial):
        value = objective(trial)
        if trial.number % 11 == 3:
            raise optuna.TrialPruned
        return float("nan") if trial.number % 11 == 5 else value

    study = run(ZooSampler("cma", seed=0), 150, fun)
    states = [trial.state for trial in study.trials]
    assert states.count(TrialState.PRUNED) > 10
    assert states.count(TrialState.FAIL) > 10
    assert study.best_value < 1


def test_several_threads_share_its_points():
    study = optuna.create_study(sampler=ZooSampler("cma", seed=0, search_space=DISTRIBUTIONS))
    study.optimize(objective, n_trials=60, n_jobs=3)
    numbers = [t.system_attrs["zoo:id"] for t in study.trials if "zoo:id" in t.system_attrs]
    assert len(numbers) == len(set(numbers)) >= 40
    assert sorted(numbers) == list(range(len(numbers)))


def test_parameters_that_not_all_trials_have_are_drawn_at_random():
    def fun(trial):
        kind = trial.suggest_categorical("kind", ["a", "b"])
        return trial.suggest_float(f"only_{kind}", -1, 1) ** 2 + trial.suggest_float("x", -5, 5) ** 2

    study = run(ZooSampler("cma", seed=0), 60, fun)
    assert all(set(trial.params) & {"only_a", "only_b"} for trial in study.trials)
    assert study.best_value < 1


def test_a_search_that_is_over_leaves_trials_to_chance():
    study = run(ZooSampler("cma", seed=0, budget=20, search_space=DISTRIBUTIONS), 50)
    numbers = [trial.system_attrs.get("zoo:id") for trial in study.trials]
    assert len([number for number in numbers if number is not None]) <= 20
    assert numbers[-1] is None


def test_what_is_refused():
    with pytest.raises(ValueError, match="unknown method 'cmaa'"):
        ZooSampler("cmaa")
    with pytest.raises(ValueError, match="single objective, got 'nsga2'"):
        ZooSampler("nsga2")
    with pytest.raises(TypeError, match="Did you mean 'sigma'"):
        ZooSampler("cma", options={"sigm": 1})
    with pytest.raises(TypeError, match="must hold optuna's distributions, got 3"):
        ZooSampler(search_space={"x": 3})
    study = optuna.create_study(directions=["minimize", "minimize"], sampler=ZooSampler())
    with pytest.raises(ValueError, match="studies with one objective"):
        study.optimize(lambda trial: (trial.suggest_float("x", 0, 1), 1.0), n_trials=3)


def test_values_survive_the_way_there_and_back():
    from zoo.optuna import _to_optuna, _to_ours

    values = {
        "depth": [2, 8, 14, 20],
        "share": [0.0, 0.25, 0.5, 0.75, 1.0],
        "kind": ["a", None, 3],
        "x": [0.1],
    }
    for name, several in values.items():
        for value in several:
            back = _to_optuna(_to_ours(value, DISTRIBUTIONS[name]), DISTRIBUTIONS[name])
            assert back == value
            assert type(back) is type(value)


def test_a_parameter_of_too_many_values_is_named():
    message = r"the parameter 'wide', .*, cannot be searched: .* 2\^40 values"
    wide, fine = IntDistribution(0, 2**50), FloatDistribution(0.0, 2.0**50, step=0.5)
    for distribution in (wide, fine):
        with pytest.raises(ValueError, match=message):
            ZooSampler(search_space={"x": FloatDistribution(0, 1), "wide": distribution})
    study = optuna.create_study(sampler=ZooSampler(seed=0))
    with pytest.raises(ValueError, match="the parameter 'wide'"):
        study.optimize(lambda trial: trial.suggest_int("wide", 0, 2**50), n_trials=3)
