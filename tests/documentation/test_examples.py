"""Every file in `examples/` runs with a small budget, and reaches what it is there to show."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest
import sklearn.svm  # noqa: F401 - here, since importing it moves the generator of `random`

from tests.architecture.test_imports import ROOT


def best_of(curves: dict[str, np.ndarray]) -> str:
    """Return the method that found the least value, in the median of its seeds."""
    return min(curves, key=lambda method: float(np.median(curves[method][:, -1])))


def excess(found: Any, queries: float = np.inf) -> float:
    """Return how far a federation is above the least F of its task when it has asked so many queries."""
    values = found.history["value"][found.history["queries"] <= queries]
    return float(values[-1] - (-0.025 + 0.1 / len(found.x)))


def gain(shown: dict[str, np.ndarray]) -> float:
    """Return by how much less beams of the front bend than plain ones of their mass, as a logarithm."""
    mass, deflection = np.log(shown["plain"]).T
    front = np.log(shown["front"])
    inside = (front[:, 0] > mass.min()) & (front[:, 0] < mass.max())
    return float((np.interp(front[inside, 0], mass, deflection) - front[inside, 1]).min())


# For each example, what its `main` is called with, and what has to be true of what it returns.
OUTCOMES: dict[str, tuple[dict[str, Any], Callable[[Any], bool]]] = {
    "black_box_defence": (
        {"steps": 50, "copies": 200},
        lambda shown: (
            # A few queries more look at whether the closure is deterministic.
            0 <= shown["ways"]["random vectors"]["queries"] - shown["ways"]["coordinates"]["queries"] <= 5
            and all(
                (way["shares"][radii, 0] > shown["ways"]["no denoiser"]["shares"][radii, 0] + 0.02).all()
                for way, radii in (
                    (shown["ways"]["coordinates"], [0, 25]),
                    (shown["ways"]["backward passes"], [0, 25]),
                    (shown["ways"]["random vectors"], [0]),
                )
            )
        ),
    ),
    "cma_in_a_valley": ({}, lambda shown: abs(shown["x"] - 1).max() < 1e-4),
    "digits_without_gradients": (
        {"evaluations": 30_000},
        lambda shown: all(found["right"] > 0.7 for found in shown.values()),
    ),
    "evolve_cartpole": (
        {"budget": 1200, "seeds": 2},
        lambda shown: (
            (shown["scores"]["deep-ga"] > 475).all()
            and (shown["scores"]["random"] > 400).all()
            and shown["once"].mean() > shown["again"].mean() + 50
        ),
    ),
    "evolve_frostbite": (
        {"population": 4, "generations": 2, "max_steps": 20},
        lambda shown: (
            shown["found"].generations == 2
            and shown["found"].num_failed == 0
            and shown["bytes"][0] < 40 < 4_000_000 < shown["bytes"][1]
            and len(shown["moments"]) == 12
        ),
    ),
    "evolve_half_cheetah": (
        {"budget": 650},
        lambda found: (
            found.history["median"][-2] > found.history["median"][0] + 20
            and found.normalizer.deviation.max() > 10 * found.normalizer.deviation.min()
        ),
    ),
    "evolve_lunar_lander": (
        {"budget": 700},
        lambda shown: (
            shown["history"]["median"][-2] > shown["history"]["median"][0] + 100
            and all(len(paths) == 5 for paths in shown["paths"].values())
        ),
    ),
    "evolve_maze": (
        {"budget": 3000, "seeds": (4,)},
        lambda shown: (
            shown["novelty-ga"][0]["distance"] < 10
            and shown["novelty-ga"][0]["episodes"] == len(shown["novelty-ga"][0]["ends"]) == 2750
            and 38 < shown["deep-ga"][0]["distance"] < 60
        ),
    ),
    "federate_a_network": (
        {"rounds": 12},
        lambda shown: (
            shown["decomfl", 16].up == shown["decomfl", 64].up == 12 * 5 * 400
            and all(
                found.history["accuracy"][-1] > found.history["accuracy"][0] + 0.1 for found in shown.values()
            )
        ),
    ),
    "federate_attack": (
        {"images": 4},
        lambda shown: (
            all(run.value < 0 and run.best < 0 for runs in shown.values() for run in runs)
            and sum(run.queries for run in shown["fzoos"])
            < sum(run.queries for run in shown["fedzo, 20 directions"]) / 2
        ),
    ),
    "federate_quadratic": (
        {"rounds": 6, "dim": 100},
        lambda shown: (
            excess(shown["fzoos"]) < excess(shown["fedzo"], shown["fzoos"].queries) / 3
            and excess(shown["fzoos"]) < excess(shown["scaffold-2"], shown["fzoos"].queries) / 3
            and shown["fzoos, published"].hidden == 2 * 5 * 6
            and shown["fzoos, published"].up > 20 * shown["fzoos"].up
        ),
    ),
    "federate_your_own": (
        {"rounds": 6},
        lambda shown: (
            all(found.history["value"][0] > found.value + 0.5 for found in shown.values())
            and shown["for six of eight"].clock < shown["for everybody"].clock / 2
            and shown["for six of eight"].faults["late"] > 2
            and shown["for six of eight"].clients["answered"][5] < 3
        ),
    ),
    "fine_tune_in_the_memory_of_inference": (
        {"steps": 60},
        lambda shown: (
            shown["equal"]
            and shown["after"] > shown["before"] + 0.1
            and shown["curve"][-1] == shown["after"]
            and shown["bytes"] <= 44 * 60 + 1024
            # In units of the largest of the four weights, 16 MB; Adam needs twelve.
            and not shown["memory"]["a step of forward passes"] > 1.5 * 16 + 8
        ),
    ),
    "gradient_is_all_you_need": (
        {"runs": 20, "starts": 10},
        lambda shown: (
            shown["angles"]["hop, 3000 points"].max() > 0.98
            and shown["angles"]["swarm, 300 particles"].max() > 0.85
            and shown["arrived"]["hopping, s = 0.7"] >= 0.85
            and shown["arrived"]["consensus-based"] >= 0.9
            and shown["arrived"]["hopping, s = 0.4"] == shown["arrived"]["gradient descent"] == 0
        ),
    ),
    "honest_values": (
        {"budget": 600, "seeds": 5},
        lambda shown: (
            (shown["noise=False"][:, 1] < shown["noise=False"][:, 0] - 1).all()
            and (
                abs(shown["noise=True"][:, 1] - shown["noise=True"][:, 0]) < 5 * shown["noise=True"][:, 2]
            ).all()
        ),
    ),
    "laboratory": (
        {"budget": 60},
        lambda shown: shown["equal"] and shown["days"] > 1 and shown["result"].num_failed == 1,
    ),
    "light_and_stiff": (
        {},
        lambda shown: len(shown["front"]) > 100 and gain(shown) > 0,
    ),
    "methods_compared": (
        {"budget": 1500, "seeds": 3},
        lambda shown: (
            best_of(shown["one curved valley"]) == "lbfgs" and best_of(shown["thousands of valleys"]) == "de"
        ),
    ),
    "mixed_variables": (
        {"budget": 1000},
        lambda shown: (
            shown["found"].x["seasons"] == "multiplied" and shown["found"].fun < shown["chance"].fun
        ),
    ),
    "swarm_on_a_contour": (
        {},
        lambda shown: shown["result"].fun < 0.05 and len(shown["film"].particles) == 251,
    ),
    "several_minima": (
        {},
        lambda shown: (
            [len(found["fun"]) for found in shown.values()] == [4, 6]
            and shown["Himmelblau's function"]["fun"].max() < 1e-2
            and np.abs(np.diff(shown["the six-hump camel"]["fun"])[::2]).max() < 1e-3
        ),
    ),
    "robust_direction": (
        {"budget": 2500, "seeds": 2},
        lambda shown: (
            (shown["distances"][:5] < 10).all()  # with up to 10 percent of outliers
            and (shown["squares"][4:] > 80).all()  # from 10 percent on
        ),
    ),
    "solver_in_the_loop": (
        {"queries": 80_000, "steps": 300},
        lambda shown: bool((np.diff([errors.mean() for errors in shown["errors"].values()]) < 0).all()),
    ),
    "train_a_network": (
        {"steps": 60},
        lambda shown: (
            shown["curves"]["a tenth of the coordinates"]["right"][-1] > 0.9
            and shown["curves"]["10 random vectors"]["right"][-1] > 0.7
            and shown["curves"]["backward passes"]["right"][-1] > 0.9
        ),
    ),
    "tune_svm": (
        {"budget": 60, "use_ray": False},
        lambda shown: shown["equal"] and shown["lost"] == 0 and shown["fun"] < shown["before"],
    ),
    "unreliable_simulator": (
        {"budget": 60},
        lambda result: result.fun < 5 and result.num_failed and result.account["quarantined"],
    ),
}


def load(path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Import an example as a script's neighbours would."""
    monkeypatch.syspath_prepend(str(path.parent))
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, path.stem, module)
    spec.loader.exec_module(module)
    return module


def test_every_example_has_an_outcome() -> None:
    assert sorted(path.stem for path in (ROOT / "examples").glob("*.py")) == sorted(OUTCOMES)


@pytest.mark.slow
@pytest.mark.parametrize("name", OUTCOMES)
def test_example(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = load(ROOT / "examples" / f"{name}.py", monkeypatch)
    monkeypatch.chdir(tmp_path)
    arguments, reached = OUTCOMES[name]
    assert module.__doc__, "the example does not say what it shows"
    shown = module.main(**arguments)
    assert reached(shown), shown
    for draw in [function for name, function in vars(module).items() if name in ("draw", "draw_steps")]:
        figure = draw(shown)
        assert all(axes.has_data() for axes in figure.axes)
        plt.close(figure)


@pytest.mark.slow
def test_training_example_learns_cifar_from_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]:
        images = np.arange(2 * 3073, dtype=np.uint8).reshape(2, 3073)
        images[:, 0] = 0, 9
        images.tofile(tmp_path / f"{name}.bin")
    module = load(ROOT / "examples" / "train_a_network.py", monkeypatch)
    shown = module.main(steps=1, folder=str(tmp_path))
    assert tuple(shown["images"].shape) == (2, 3, 32, 32)
    assert [curve["steps"] for curve in shown["curves"].values()] == [1, 3, 1]
