"""Consensus in a dual space, and the maps from there."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from zoo.consensus import mirror
from zoo.consensus.mirror import MirrorCBO, MirrorState
from zoo.consensus.mirror_maps import Ball, Box, ElasticNet, Hyperplane, Mirror, Nonnegative, Simplex
from zoo.core.bounds import Bounds
from zoo.core.rng import Key
from zoo.core.state import digest
from zoo.core.types import Evaluations, Known

DIM = 5
RNG = np.random.default_rng(0)
WALLS = Bounds(np.array([-1.0, 2.0, -np.inf, -np.inf, 3.0]), np.array([1.0, np.inf, 3.0, np.inf, 3.0]))
MAPS: dict[str, Mirror] = {
    "simplex": Simplex(2.0),
    "nonnegative": Nonnegative(np.arange(1.0, DIM + 1)),
    "box": Box(WALLS, np.array([1.0, 2.0, 3.0, 4.0, 5.0])),
    "free": Box(None, np.ones(DIM)),
    "ball": Ball(2.0),
    "elastic-net": ElasticNet(0.5),
    "hyperplane": Hyperplane(-1.0),
}


def is_allowed(name: str, x: Any) -> bool:
    """Return whether points, shape (..., dim), are in the set of a map above."""
    return bool({
        "simplex": (x >= 0).all() and abs(x.sum(-1) - 2).max() < 1e-14,
        "nonnegative": (x >= 0).all(),
        "box": (x >= WALLS.lower).all() and (x <= WALLS.upper).all(),
        "free": True,
        "ball": (np.linalg.norm(x, axis=-1) <= 2 * (1 + 1e-15)).all(),
        "elastic-net": True,
        "hyperplane": abs(x.sum(-1) + 1).max() < 1e-13,
    }[name])  # fmt: skip


@pytest.mark.parametrize("name", MAPS)
@pytest.mark.parametrize("size", [0.1, 10.0, 1e6])
def test_images_are_allowed(name: str, size: float) -> None:
    x = MAPS[name].to_primal(size * RNG.standard_normal((200, DIM)))
    assert np.isfinite(x).all()
    if name == "hyperplane" and size > 100:
        assert abs(x.sum(-1) + 1).max() < 1e-15 * size * DIM
    else:
        assert is_allowed(name, x)


@pytest.mark.parametrize("name", MAPS)
def test_there_and_back(name: str) -> None:
    # Exact on what is allowed, but for coordinates that have no room.
    x = MAPS[name].to_primal(RNG.standard_normal((200, DIM)))
    again = MAPS[name].to_primal(MAPS[name].to_dual(x))
    np.testing.assert_allclose(again, x, rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("name", ["nonnegative", "box", "free"])
def test_back_and_there(name: str) -> None:
    y = RNG.standard_normal((200, DIM))
    again = MAPS[name].to_dual(MAPS[name].to_primal(y))
    moves = np.arange(DIM) != 4 if name == "box" else np.arange(DIM) >= 0
    np.testing.assert_allclose(again[:, moves], y[:, moves], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", MAPS)
def test_maps_are_monotone(name: str) -> None:
    # As gradients of convex functions are: (x - x') . (y - y') >= 0, and >= |x - x'|^2 where phi is at
    # least |x|^2 / 2 but for something convex.
    y, other = 3 * RNG.standard_normal((2, 500, DIM))
    x, image = MAPS[name].to_primal(y), MAPS[name].to_primal(other)
    product, square = ((x - image) * (y - other)).sum(1), ((x - image) ** 2).sum(1)
    assert (product >= -1e-12).all()
    if name != "nonnegative":  # its curvature is unit / x, at least 1 for no more than a unit
        assert (product >= square - 1e-12).all()


def test_maps_have_their_formulas() -> None:
    np.testing.assert_allclose(
        MAPS["simplex"].to_primal(np.log(np.arange(1.0, 6)) * 2), np.arange(1, 6) * 2 / 15
    )
    np.testing.assert_allclose(MAPS["nonnegative"].to_primal(np.zeros(DIM)), np.arange(1, 6), rtol=1e-15)
    x = np.array([0.6, 2.5, 2.5, 7.0, 3.0])
    # Gradients of -log(1 - u^2) / 2 and of w^2 / 2 - log(w).
    dual = [0.6 / (1 - 0.36), 2 + 2 * (0.25 - 4), 3 - 3 * (1 / 6 - 6), 7.0]
    np.testing.assert_allclose(MAPS["box"].to_dual(x)[:4], dual, rtol=1e-14)
    assert ElasticNet(0.5).to_primal(np.array([-2.0, -0.5, 0.3, 1.5])).tolist() == [-1.5, 0.0, 0.0, 1.0]
    assert Ball(2.0).to_primal(np.array([0.0, -3.0])).tolist() == [0.0, -2.0]


def test_far_ends_are_numbers() -> None:
    x = np.array([[-np.inf, 0.0], [np.inf, 0.0], [1e300, -1e300]])
    box = Box(Bounds(np.zeros(2), np.array([1.0, np.inf])), np.ones(2))
    assert np.isfinite(box.to_primal(x[2])).all()
    assert box.to_primal(x[0])[0] == 0
    for name in ("simplex", "nonnegative", "box"):
        ends = {
            "simplex": np.array([0.0, 0, 0, 0, 2]),
            "nonnegative": np.zeros(DIM),
            "box": WALLS.lower.clip(-9),
        }
        dual = MAPS[name].to_dual(ends[name])
        assert np.isfinite(dual).all()
        np.testing.assert_allclose(MAPS[name].to_primal(dual), ends[name], atol=1e-8)


def test_nothing_begins_at_an_end() -> None:
    box = Box(Bounds(np.array([0.0, 0, -np.inf]), np.array([2.0, np.inf, 3])), np.array([1.0, 2.0, 5.0]))
    np.testing.assert_allclose(box.inner(np.array([0.0, 0.0, 3.0])), [0.01, 0.02, 2.95], rtol=1e-14)
    np.testing.assert_allclose(box.inner(np.array([2.0, 9.0, -9.0])), [1.99, 9.0, -9.0], rtol=1e-14)
    assert Simplex(2.0).inner(np.array([2.0, 0.0, 0.0, 0.0])).tolist() == [2.0, 0.05, 0.05, 0.05]
    assert Nonnegative(np.array([1.0, 3.0])).inner(np.array([-1.0, 0.0])).tolist() == [0.1, 0.1 * 3.0]
    for name, ours in MAPS.items():  # what is well inside begins where it is
        x = ours.to_primal(RNG.standard_normal((50, DIM)))
        assert ours.inner(x).tobytes() == x.tobytes(), name


def run(method: MirrorCBO, fun: Any, x0: Any, steps: int, keys: int = 8, **more: Any) -> MirrorState:
    state = method.init_many(np.asarray(x0, float), keys=[Key(seed) for seed in range(keys)], **more)
    for _ in range(steps):
        candidates = method.ask(state)
        rows = candidates.rows(0, len(candidates))
        assert rows.tobytes() == state.swarm.points.reshape(rows.shape).tobytes()
        state = method.tell(state, Evaluations(fun(rows)))
    return state


def distance_to(target: Any) -> Any:
    return lambda x: ((x - target) ** 2).sum(-1)


CUBE = Bounds(-np.ones(DIM), np.ones(DIM))
SOLVED = {
    "simplex, inside": ({"mirror": "simplex"}, [0.1, 0.2, 0.3, 0.35, 0.05], {}, [0.1, 0.2, 0.3, 0.35, 0.05]),
    "simplex, a face": ({"mirror": "simplex"}, [0.7, 0.3, -0.2, -1.0, 0.0], {}, [0.7, 0.3, 0.0, 0.0, 0.0]),
    "simplex, a vertex": ({"mirror": "simplex"}, [0.0, 3.0, 0.0, 0.0, 0.0], {}, [0.0, 1.0, 0.0, 0.0, 0.0]),
    "nonnegative": ({"mirror": "nonnegative"}, [3.0, 0.5, -1.0, 0.01, -9.0], {}, [3.0, 0.5, 0.0, 0.01, 0.0]),
    "ball": ({"mirror": "ball", "radius": 1.0}, [3.0, 4.0, 0.0, 0.0, 0.0], {}, [0.6, 0.8, 0.0, 0.0, 0.0]),
    "hyperplane": ({"mirror": "hyperplane"}, [5.0, 1.0, 0.0, 0.0, 0.0], {}, [4.0, 0.0, -1.0, -1.0, -1.0]),
    "box, inside": ({}, [0.3, -0.2, 0.0, 0.9, 0.1], {"bounds": CUBE}, [0.3, -0.2, 0.0, 0.9, 0.1]),
    "box, walls": ({}, [2.0, -0.2, -3.0, 0.9, 0.1], {"bounds": CUBE}, [1.0, -0.2, -1.0, 0.9, 0.1]),
    "no box": ({}, [30.0, -2.0, 0.5, 0.0, 1.0], {}, [30.0, -2.0, 0.5, 0.0, 1.0]),
}  # fmt: skip


@pytest.mark.parametrize("name", SOLVED)
def test_finds_the_nearest_point_of_its_set(name: str) -> None:
    options, target, more, nearest = SOLVED[name]
    method = MirrorCBO(num_particles=30, **options)
    state = run(method, distance_to(np.array(target)), np.full(DIM, 0.2), 200, **more)
    found = method.recommend_many(state)
    # Of eight swarms most find it; walls and ends are approached from inside.
    close = abs(found - nearest).max(1) < 0.02
    assert close.sum() >= 7, abs(found - nearest).max(1)


BOX = Bounds(np.zeros(DIM), np.ones(DIM))
ENDS: dict[str, Any] = {
    "one wall": ({}, {"bounds": Bounds(np.zeros(DIM), np.full(DIM, np.inf))}, np.zeros(DIM), 0.1),
    "two walls": ({}, {"bounds": BOX}, np.zeros(DIM), 0.02),
    "known": ({}, {"bounds": BOX, "known": [0.0, 0.2, 0.2, 0.2, 0.2]}, np.full(DIM, 0.9), 0.2),
    "nonnegative": ({"mirror": "nonnegative"}, {}, np.array([1.0, 0, 2, 0, -1]), 1.0),
    "nonnegative, known": ({"mirror": "nonnegative"}, {"known": [0.0, 0, 1, 1, 1]}, np.full(DIM, 9.0), 1.0),
    "simplex": ({"mirror": "simplex"}, {}, np.eye(DIM)[0], 1 / DIM),
    "simplex, known": ({"mirror": "simplex"}, {"known": [0.0, 0, 0.4, 0.3, 0.3]}, np.eye(DIM)[0], 1 / DIM),
}  # fmt: skip


@pytest.mark.parametrize("name", ENDS)
def test_gets_away_from_ends(name: str) -> None:
    options, more, x0, target = ENDS[name]
    if "known" in more:  # better than the others, so that all go there
        more = {**more, "known": Known(np.array([more["known"]]), np.zeros(1))}
    method = MirrorCBO(**options)
    state = run(method, distance_to(target), x0, 150, **more)
    close = abs(method.recommend_many(state) - target).max(1) < 1e-3
    assert close.sum() >= 7, abs(method.recommend_many(state) - target).max(1)


@pytest.mark.parametrize("distance", ["primal", "dual"])
@pytest.mark.parametrize("noise", ["isotropic", "anisotropic"])
@pytest.mark.parametrize("name", ["simplex", "nonnegative", "ball", "elastic-net", "hyperplane"])
def test_candidates_and_recommendations_are_allowed(name: str, noise: str, distance: str) -> None:
    method = MirrorCBO(mirror=name, noise=noise, distance=distance, num_particles=10)
    x0 = np.full(DIM, 0.4)
    state = method.init(x0, key=Key(0))
    checks: dict[str, Any] = {
        "simplex": lambda x: (x >= 0).all() and abs(x.sum(-1) - 2).max() < 1e-14,
        "nonnegative": lambda x: (x >= 0).all(),
        "ball": lambda x: (np.linalg.norm(x, axis=-1) <= np.linalg.norm(x0) * (1 + 1e-15)).all(),
        "elastic-net": lambda x: True,
        "hyperplane": lambda x: abs(x.sum(-1) - 2).max() < 1e-11,
    }
    for _ in range(30):
        rows = method.ask(state).rows(0, 10)
        assert np.isfinite(rows).all()
        assert checks[name](rows)
        state = method.tell(state, Evaluations(rows[:, 0] - rows[:, 1] + rows[:, 2] ** 2))
        assert checks[name](method.recommend(state)[None])


@pytest.mark.parametrize(("distance", "noise"), [("primal", "isotropic"), ("dual", "anisotropic")])
def test_a_step_is_what_the_formula_says(distance: str, noise: str, monkeypatch: pytest.MonkeyPatch) -> None:
    xi = np.random.default_rng(1).standard_normal((1, 4, DIM))
    monkeypatch.setattr(mirror.noise, "normal", lambda *_: xi.copy())
    method = MirrorCBO(
        mirror="simplex",
        num_particles=4,
        drift=0.8,
        dt=0.25,
        sigma=0.6,
        distance=distance,
        noise=noise,
        alpha=2.0,
    )
    state = method.init(np.full(DIM, 0.2), key=Key(0))
    x, y, values = state.swarm.points[0], state.dual[0], np.array([1.0, 0.5, np.nan, 0.7])
    weights = np.where(np.isnan(values), 0, np.exp(-2 * np.nan_to_num(values)))
    c = weights @ x / weights.sum()
    v = x - c if distance == "primal" else y - np.log(c)
    size = np.linalg.norm(v, axis=1)[:, None] if noise == "isotropic" else v
    wanted = y - 0.2 * v + 0.6 * 0.5 * size * xi[0]
    after = method.tell(state, Evaluations(values))
    np.testing.assert_allclose(after.dual[0], wanted, rtol=0, atol=1e-13)
    np.testing.assert_allclose(
        after.swarm.points[0], np.exp(wanted) / np.exp(wanted).sum(1)[:, None], atol=1e-14
    )
    np.testing.assert_allclose(method.recommend(after), c, atol=1e-15)


def test_sparse_solutions_of_underdetermined_equations_are_found() -> None:
    rng = np.random.default_rng(3)
    matrix, sparse = rng.standard_normal((10, 20)), np.zeros(20)
    sparse[[4, 13]] = 2.0, -2.0
    right = matrix @ sparse

    def residual(x: Any) -> Any:
        return ((x @ matrix.T - right) ** 2).sum(-1)

    def recovered(name: str) -> Any:
        method = MirrorCBO(mirror=name, num_particles=200)
        found = method.recommend_many(run(method, residual, np.zeros(20), 100))
        return abs(found - sparse).max(1) < 0.05

    assert recovered("elastic-net").sum() >= 6
    assert recovered("box").sum() == 0  # no map at all: it ends at some solution, of which there are many


def test_primal_distances_stall_at_the_ends() -> None:
    target = np.array([0.1, 0.2, 0.3, 0.35, 0.05])
    gaps = {}
    for distance in ("primal", "dual"):
        method = MirrorCBO(mirror="simplex", distance=distance)
        state = run(method, distance_to(target), np.full(DIM, 0.2), 200)
        gaps[distance] = float(np.median(distance_to(target)(method.recommend_many(state))))
    assert gaps["dual"] < 1e-8
    assert gaps["primal"] > 1e-4


def test_where_it_starts() -> None:
    x0 = np.array([0.25, 0.75])
    simplex = MirrorCBO(mirror="simplex")
    np.testing.assert_allclose(simplex.recommend(simplex.init(x0, key=Key(0))), x0, rtol=1e-15)
    assert simplex.init(3 * x0, key=Key(0)).size == 3
    outside = simplex.recommend(simplex.init(np.array([-1.0, 2.0]), key=Key(0)))
    np.testing.assert_allclose(outside, np.array([0.05, 2]) / 2.05, rtol=1e-14)
    assert MirrorCBO(mirror="ball").init(np.array([3.0, 4.0]), key=Key(0)).size == 5
    assert MirrorCBO(mirror="ball").init(np.zeros(2), key=Key(0)).size == 1
    net = MirrorCBO(mirror="elastic-net")
    assert (net.recommend(net.init(x0, key=Key(0))) == x0).all()


def test_known_points_are_particles() -> None:
    known = Known(np.array([[0.5, 0.5], [0.1, 0.9]]), np.array([2.0, 1.0]))
    method = MirrorCBO(mirror="simplex", num_particles=4)
    state = method.init_many(np.array([0.25, 0.75]), keys=[Key(0), Key(1)], known=known)
    for points in state.swarm.points:
        np.testing.assert_allclose(points[:3], [[0.1, 0.9], [0.5, 0.5], [0.25, 0.75]], rtol=1e-12)
    few = replace(method, num_particles=1).init(np.array([0.25, 0.75]), key=Key(0), known=known)
    np.testing.assert_allclose(few.swarm.points[0], [[0.1, 0.9]], rtol=1e-12)


def test_stops_once_the_furthest_coordinate_is_close() -> None:
    method, dim = MirrorCBO(num_particles=100, tolx=1e-3), 50
    scale = np.linspace(0.5, 2, dim)
    state = method.init(np.ones(dim), key=Key(0), scale=scale)
    while not (message := method.finished(state)):
        widest = abs(state.swarm.points - state.swarm.consensus[:, None]).max((0, 1))
        assert state.swarm.step % 10 or not state.swarm.step or (widest > 1e-3 * scale).any()
        state = method.tell(state, Evaluations((method.ask(state).rows(0, 100) ** 2).sum(1)))
    assert message.startswith("tolx: all particles are within 0.001")
    assert (abs(state.swarm.points - state.swarm.consensus[:, None]).max((0, 1)) <= 1e-3 * scale).all()


def test_stops_where_numbers_end() -> None:
    method, x0 = MirrorCBO(), np.array([1e6, -1e6, 1e6], np.float32)
    state = method.init(x0, key=Key(0))
    while not (message := method.finished(state)):
        spread = abs(state.swarm.points - state.swarm.consensus[:, None]).max()
        state = method.tell(state, Evaluations(((method.ask(state).rows(0, 20) - x0) ** 2).sum(1)))
    assert message.startswith("tolx: all particles are within 1e-12 of the scale")
    assert 1e-6 < spread < 10


ON_SETS = {
    "simplex": ([[1.0, 0.0], [0.3, 0.7 + 1e-8]], [[0.0, 0.0], [1.5, -0.5]]),
    "nonnegative": ([[0.0, 0.0], [9e9, 1.0]], [[1.0, -1e-3], [-1.0, -1.0]]),
    "ball": ([[0.0, 0.0], [0.6, 0.8]], [[0.61, 0.81], [-9.0, 0.0]]),
    "hyperplane": ([[0.0, 1.0], [1e9 + 1, -1e9]], [[0.0, 0.0], [1.0, 1e-3]]),
}


@pytest.mark.parametrize("name", ON_SETS)
@pytest.mark.parametrize("value", [None, 0.1])
def test_known_points_off_the_set_are_refused(name: str, value: Any) -> None:
    import zoo

    sizes = {"ball": {"radius": 1.0}, "nonnegative": {}}
    options = {"mirror": name, **sizes.get(name, {"total": 1.0})}
    seen = []

    def fun(x: Any) -> float:
        seen.append(x)
        return float((x**2).sum())

    def minimize(*known: Any) -> Any:
        return zoo.minimize(
            fun, [0.5, 0.5], method="cbo-mirror", known=(known, [value] * len(known)), budget=30, rng=0,
            options=options,
        )  # fmt: skip

    good, bad = ON_SETS[name]
    for point in bad:
        with pytest.raises(ValueError, match=r"`known` must hold points .*, got one in row 1 that"):
            minimize(good[0], point)
    assert not seen
    assert minimize(*good).nfev > 0


def test_swarms_are_the_same_together_and_alone() -> None:
    method, x0 = MirrorCBO(mirror="simplex", num_particles=7), np.array([0.2, 0.3, 0.5])
    together = run(method, lambda x: x[:, 0] - x[:, 1] ** 2, x0, 12, keys=3)
    for seed in range(3):
        alone = method.init(x0, key=Key(seed))
        for _ in range(12):
            rows = method.ask(alone).rows(0, 7)
            alone = method.tell(alone, Evaluations(rows[:, 0] - rows[:, 1] ** 2))
        assert alone.dual.tobytes() == together.dual[seed].tobytes()


@pytest.mark.parametrize("name", MAPS)
def test_torch_does_the_same(name: str) -> None:
    torch = pytest.importorskip("torch")
    y = RNG.standard_normal((20, DIM))
    ours = MAPS[name]
    theirs = ours
    if isinstance(ours, Nonnegative):
        theirs = Nonnegative(torch.from_numpy(ours.unit))
    if isinstance(ours, Box):
        theirs = Box(None if name == "free" else WALLS, torch.from_numpy(ours.scale))
    x = theirs.to_primal(torch.from_numpy(y))
    np.testing.assert_allclose(x, ours.to_primal(y), rtol=1e-13)
    np.testing.assert_allclose(theirs.to_dual(x), ours.to_dual(np.asarray(x)), rtol=1e-12)
    if name != "free":
        bounds = WALLS if name == "box" else None
        method = MirrorCBO(mirror=name)
        state = method.init(torch.full((DIM,), 0.5, dtype=torch.float64), key=Key(0), bounds=bounds)
        state = method.tell(state, Evaluations(np.arange(20.0)))
        assert method.recommend(state).dtype == torch.float64
        assert np.isfinite(np.asarray(state.dual)).all()


def test_options_change_what_is_done() -> None:
    x0 = np.array([0.2, 0.3, 0.5])

    def after(**options: Any) -> str:
        method = MirrorCBO(**{"num_particles": 6, **options})
        return digest(run(method, lambda x: x[:, 0] ** 2 + x[:, 1], x0, 3, keys=1))

    changes: list[dict[str, Any]] = [
        {}, {"num_particles": 7}, {"drift": 0.5}, {"sigma": 0.1}, {"dt": 0.3}, {"alpha": 1.0},
        {"noise": "isotropic"}, {"mirror": "simplex"}, {"mirror": "simplex", "total": 2.0},
        {"mirror": "simplex", "distance": "primal"}, {"mirror": "hyperplane"},
        {"mirror": "hyperplane", "total": 0.0}, {"mirror": "ball"}, {"mirror": "ball", "radius": 0.5},
        {"mirror": "elastic-net"}, {"mirror": "elastic-net", "threshold": 0.1}, {"mirror": "nonnegative"},
    ]  # fmt: skip
    assert len({after(**change) for change in changes}) == len(changes)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mirror": "torus"}, "`mirror` must be one of"),
        ({"total": 1.0}, "`total` must be None"),
        ({"mirror": "simplex", "radius": 1.0}, "`radius` must be None"),
        ({"mirror": "simplex", "total": -1.0}, "`total` must be a finite number above 0"),
        ({"mirror": "hyperplane", "total": math.inf}, "`total` must be finite"),
        ({"mirror": "ball", "threshold": 1.0}, "`threshold` must be None"),
        ({"sigma": -1.0}, "`sigma` must be finite and at least 0"),
        ({"distance": "both"}, "`distance` must be one of"),
        ({"dt": 2.0}, "`drift` \\* dt must be below 2"),
    ],
)
def test_wrong_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MirrorCBO(**options)


def test_wrong_starts() -> None:
    with pytest.raises(ValueError, match="`x0` must have a sum above 0"):
        MirrorCBO(mirror="simplex").init(np.array([1.0, -1.0]), key=Key(0))
    with pytest.raises(ValueError, match="`bounds` must be None with 'ball'"):
        MirrorCBO(mirror="ball").init(np.ones(2), key=Key(0), bounds=Bounds(np.zeros(2), np.ones(2)))


def test_no_model_takes_candidates_off_the_simplex() -> None:
    import zoo

    seen = []

    def fun(x: Any) -> float:
        seen.append(x.copy())
        return float(((x - [1.0, 0.0, 0.0]) ** 2).sum())

    result = zoo.minimize(
        fun, np.full(3, 1 / 3), constraints=lambda x: 0.5 - x[0], method="cbo-mirror", budget=600, rng=0,
        options={"mirror": "simplex"},
    )  # fmt: skip
    assert (np.array(seen) >= 0).all()
    assert abs(np.sum(seen, 1) - 1).max() < 1e-14
    assert result.maxcv == 0
    np.testing.assert_allclose(result.x, [0.5, 0.25, 0.25], atol=0.05)
    assert not MirrorCBO().keeps_to_set


def test_noise_with_which_swarms_fly_apart_is_refused() -> None:
    with pytest.raises(ValueError, match="fly apart"):
        MirrorCBO(sigma=2.5)
    with pytest.raises(ValueError, match="in 20 variables makes the swarm fly apart"):
        MirrorCBO(sigma=1.5, noise="isotropic").init(np.zeros(20), key=Key(0))
