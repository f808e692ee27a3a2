"""Integers and categories in `zoo.minimize`: what functions are given, and what comes back."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import zoo
from tests.cases import CASES, Case
from zoo.core.command import Command
from zoo.problems.mixed import PROBLEMS
from zoo.registry import find

SPACE = zoo.Space(
    {
        "lr": zoo.Float(1e-5, 1.0, log=True),
        "layers": zoo.Integer(1, 8),
        "act": zoo.Categorical(["relu", "tanh", "gelu"]),
        "bias": zoo.Categorical([True, False]),
    }
)
X0 = {"lr": 0.1, "layers": 2, "act": "tanh", "bias": False}


def loss(x: Any, shift: float = 0.0) -> float:
    return (
        (math.log10(x["lr"]) + 2) ** 2
        + (x["layers"] - 5) ** 2
        + (x["act"] != "gelu")
        + 0.5 * x["bias"]
        + shift
    )


def losses(x: Any) -> Any:
    return (
        (np.log10(x["lr"]) + 2) ** 2
        + (x["layers"] - 5) ** 2
        + (x["act"] != "gelu")
        + 0.5 * x["bias"].astype(float)
    )


class Losses(zoo.Objective):
    """The same as an objective of its own."""

    def __call__(self, x: Any, *, key: zoo.Key) -> Any:
        return losses(x)


def minimize(fun: Any = loss, x0: Any = None, **more: Any) -> Any:
    return zoo.minimize(fun, x0, **{"space": SPACE, "budget": 300, "rng": 0, **more})


def test_finds_the_best_point() -> None:
    result = minimize(budget=600)
    assert result.fun < 1e-6
    assert result.x == result.x_best
    assert {**result.x, "lr": 0.01} == {"lr": 0.01, "layers": 5, "act": "gelu", "bias": False}
    assert result.x["lr"] == pytest.approx(0.01, rel=0.01)


def test_functions_are_given_python_values() -> None:
    seen: list[Any] = []

    def fun(x: Any) -> float:
        seen.append(x)
        return loss(x)

    minimize(fun, budget=100)
    assert len(seen) == 100
    for point in seen:
        assert type(point) is dict
        assert [type(value) for value in point.values()] == [float, int, str, bool]
        assert SPACE.decode(SPACE.encode(point)) == point
    assert len({id(point) for point in seen}) == 100  # the function's own, to write to


def test_functions_of_many_points_are_given_arrays() -> None:
    seen: list[Any] = []

    def fun(x: Any) -> Any:
        seen.append(x)
        return losses(x)

    result = minimize(fun, vectorized=True)
    assert result.x == minimize().x
    assert list(seen[0]) == list(X0)
    assert [array.dtype.kind for array in seen[0].values()] == ["f", "i", "O", "O"]


def test_objectives_commands_and_names() -> None:
    result = minimize()
    assert minimize(Losses()).x == result.x
    assert minimize("tests.zoo.test_space_facade:loss").x == result.x
    assert minimize("tests.zoo.test_space_facade:losses", vectorized=True).x == result.x
    assert minimize("tests.zoo.test_space_facade:Losses()").x == result.x
    assert minimize(loss, args=(3.0,)).fun == result.fun + 3
    program = """
import math, sys
for line in sys.stdin:
    lr, layers, act, bias = line.split()
    value = (math.log10(float(lr)) + 2) ** 2 + (int(layers) - 5) ** 2
    print(value + (act != "gelu") + .5 * (bias == "True"), flush=True)
"""
    argv = [sys.executable, "-c", program]
    assert minimize(argv, budget=40).x == minimize(Command(argv), budget=40).x == minimize(budget=40).x
    with pytest.raises(ValueError, match="choices without blanks, where a program reads them, got 'a b'"):
        minimize(argv, space=zoo.Space([zoo.Categorical(["a b", "c"])]))


def test_points_without_names_are_tuples() -> None:
    space = zoo.Space([zoo.Float(-5, 5), zoo.Integer(-5, 5)])
    result = zoo.minimize(
        lambda x: (x[0] - 1) ** 2 + (x[1] + 2) ** 2, [3.0, 3], space=space, budget=300, rng=0
    )
    assert type(result.x) is tuple
    assert type(result.x[1]) is int
    assert result.x[1] == -2
    assert result.x[0] == pytest.approx(1, abs=1e-3)


def test_the_search_starts_at_x0() -> None:
    seen: list[Any] = []

    def fun(x: Any) -> float:
        seen.append(x)
        return loss(x)

    minimize(fun, X0, method="random", budget=5)
    minimize(fun, method="random", budget=5)
    assert seen[0] == X0
    assert seen[5] == SPACE.decode(SPACE.x0)


def test_known_points_are_points_of_the_space() -> None:
    seen: list[Any] = []

    def fun(x: Any) -> float:
        seen.append(x)
        return loss(x)

    best = {"lr": 0.01, "layers": 5, "act": "gelu", "bias": False}
    told = minimize(fun, known=([X0, best], [loss(X0), 0.0]), budget=40)
    assert told.x == best
    assert told.fun == 0
    assert told.nfev == 40
    seen.clear()
    asked = minimize(fun, known=([X0, best], None), budget=40)
    assert seen[:2] == [X0, best]
    assert asked.x == best


def test_constraints_and_objectives_are_given_points() -> None:
    few = minimize(budget=600, constraints=lambda x: 3 - x["layers"])
    assert few.x["layers"] == 3
    assert few.maxcv == 0
    several = minimize(lambda x: [x["lr"], float(x["layers"])], method="nsga2", budget=200)
    assert {type(x) for x in several.front.x} == {dict}
    assert [x["layers"] for x in several.front.x] == several.front.fun[:, 1].tolist()


def test_callbacks_are_given_points() -> None:
    plain: list[Any] = []
    named: list[Any] = []
    minimize(callback=lambda x: plain.append(x))

    def callback(intermediate_result: Any) -> None:
        named.append(intermediate_result.x)

    result = minimize(callback=callback)
    assert plain == named
    assert named[-1] == result.x
    assert all(type(x) is dict for x in named)


def test_integers_and_categories_have_a_method_of_their_own() -> None:
    continuous = zoo.Space([zoo.Float(-1, 1), zoo.Float(1e-3, 1, log=True)])
    square = zoo.minimize(lambda x: x[0] ** 2 + x[1], space=continuous, budget=60, rng=0)
    assert square.method == find("auto").name
    assert minimize(budget=60).method == find("auto", mixed=True).name
    assert minimize(budget=60, method="cma").method == "cma"


def test_workers_and_pauses_change_nothing(tmp_path: Path) -> None:
    alone = minimize("tests.zoo.test_space_facade:loss")
    out = tmp_path / "run"

    def stop(intermediate_result: Any) -> None:
        if intermediate_result.nfev > 100:
            raise StopIteration

    stopped = minimize("tests.zoo.test_space_facade:loss", workers=2, out=out, callback=stop)
    assert stopped.nfev < alone.nfev
    resumed = zoo.resume(out)
    assert resumed.x == alone.x
    assert resumed.fun == alone.fun
    assert resumed.nfev == alone.nfev
    written = json.loads((out / "result.json").read_text())
    assert written["x"] == written["x_best"] == alone.x
    config = json.loads((out / "config.json").read_text())
    assert zoo.Space.read(config["space"]) == SPACE
    assert zoo.resume(out).x == alone.x
    assert minimize("tests.zoo.test_space_facade:loss", out=out).x == alone.x
    shown = subprocess.run(
        [sys.executable, "-c", "from zoo.cli.app import main; main()", "resume", str(out)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(shown.stdout)["x"] == alone.x


def test_another_space_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "run"
    minimize(out=out, budget=50)
    for other in (
        zoo.Space(
            {**dict(zip(SPACE.names or (), SPACE.variables, strict=True)), "layers": zoo.Integer(1, 9)}
        ),
        zoo.Space({**dict(zip(SPACE.names or (), SPACE.variables, strict=True)), "lr": zoo.Float(1e-5, 1.0)}),
    ):
        with pytest.raises(zoo.RunDirectoryError, match="'space'"):
            minimize(out=out, budget=50, space=other)
    with pytest.raises(zoo.RunDirectoryError, match="'space'"):
        zoo.minimize(loss, bounds=[(0, 1)] * SPACE.dim, budget=50, rng=0, out=out)


@pytest.mark.parametrize(
    ("more", "error", "message"),
    [
        (
            {"space": {"a": zoo.Float(0, 1)}},
            TypeError,
            "`space` must be a zoo.Space, got .*: give it zoo.Space",
        ),
        ({"bounds": [(0, 1)]}, ValueError, "`bounds` cannot be given along with `space`"),
        ({"scale": 0.1}, ValueError, "`scale` cannot be given along with `space`"),
        (
            {"x0": {"lr": 0.1}},
            ValueError,
            "`x0` must be a point of `space`: .* must have a value for 'layers'",
        ),
        (
            {"x0": {**X0, "layers": 9}},
            ValueError,
            "`x0` must be a point of `space`: 'layers' must be an integer",
        ),
        ({"x0": [0.1, 2, "tanh", False]}, TypeError, "`x0` must be a point of `space`: .* is a dictionary"),
        ({"known": [X0]}, ValueError, "`known` must be .points, values.: a list of points of `space`"),
        ({"known": ([{**X0, "act": "x"}], [1.0])}, ValueError, "`known` must be a point of `space`: 'act'"),
        ({"known": ([X0], [1.0, 2.0])}, ValueError, "`known` must be .points, values."),
        ({"known": ([], [])}, ValueError, "`known` must be .points, values."),
    ],
)
def test_refuses(more: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        minimize(**more)


def test_errors_of_the_function_are_its_own() -> None:
    with pytest.raises(zoo.EvaluationError, match="KeyError: 'width'") as caught:
        minimize(lambda x: x["width"])
    assert "space.py" not in str(caught.value)


@pytest.mark.filterwarnings("ignore:the objective did not change:zoo.core.errors.ZooWarning")
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.method)
def test_every_method_takes_a_mixed_space(case: Case) -> None:
    problem = PROBLEMS["ackley"]
    seen: list[Any] = []

    def fun(x: Any) -> float:
        seen.append(problem.space.encode(x))  # which refuses what lies outside
        return problem.fun(x)

    if "objectives" in find(case.method).traits:
        pytest.skip("takes several objectives")
    if "manifold" in case.traits:
        with pytest.raises(ValueError, match="manifold"):  # a space is a box
            zoo.minimize(fun, space=problem.space, method=case.method, budget=120)
        return
    result = zoo.minimize(
        fun, space=problem.space, method=case.method, budget=120, rng=0, options=dict(case.options)
    )
    assert len(seen) == result.nfev <= 120
    assert result.fun == problem.fun(result.x) == min(problem.fun(problem.space.decode(row)) for row in seen)
