"""Consensus on the sphere and among orthonormal matrices."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from zoo.consensus import manifold_cbo
from zoo.consensus.manifold_cbo import ManifoldCBO, ManifoldState
from zoo.consensus.manifolds import Manifold, Sphere, Stiefel
from zoo.core.bounds import Bounds
from zoo.core.rng import Key
from zoo.core.state import digest
from zoo.core.types import Evaluations, Known

RNG = np.random.default_rng(0)
DIM = 6
SURFACES = {"sphere": Sphere(1.0), "large": Sphere(2.0), "stiefel": Stiefel(2), "square": Stiefel(3)}
OPTIONS: dict[str, dict[str, Any]] = {
    "sphere": {},
    "large": {"radius": 2.0},
    "stiefel": {"manifold": "stiefel", "num_columns": 2},
    "square": {"manifold": "stiefel", "num_columns": 3},
}
SIZE = {"sphere": DIM, "large": DIM, "stiefel": DIM, "square": 9}


def off(surface: Manifold, x: Any) -> float:
    """Return how far points, shape (..., dim), are from a surface."""
    if isinstance(surface, Sphere):
        return float(abs(np.linalg.norm(x, axis=-1) / surface.radius - 1).max())
    matrices = x.reshape(*x.shape[:-1], -1, surface.num_columns)
    return float(abs(matrices.swapaxes(-1, -2) @ matrices - np.eye(surface.num_columns)).max())


def run(method: ManifoldCBO, fun: Any, x0: Any, steps: int, keys: int = 8, **more: Any) -> ManifoldState:
    """Return the state of some swarms after some steps, all of which stay on the manifold."""
    state = method.init_many(np.asarray(x0, float), keys=[Key(seed) for seed in range(keys)], **more)
    surface = method._surface(state.radius)
    for _ in range(steps):
        candidates = method.ask(state)
        rows = candidates.rows(0, len(candidates))
        assert off(surface, rows) < 1e-12
        state = method.tell(state, Evaluations(fun(rows)))
        assert off(surface, method.recommend_many(state)) < 1e-12
    return state


@pytest.mark.parametrize("name", SURFACES)
@pytest.mark.parametrize("size", [1e-300, 1.0, 1e150])
def test_the_nearest_point_is_on_the_surface_and_stays_there(name: str, size: float) -> None:
    surface = SURFACES[name]
    x = surface.nearest(size * RNG.standard_normal((50, SIZE[name])))
    assert off(surface, x) < 1e-14
    assert abs(surface.nearest(x) - x).max() < 1e-14
    assert x[0] in surface
    assert 1.001 * x[0] not in surface


def test_the_nearest_point_is_nearest() -> None:
    for name, surface in SURFACES.items():
        x = RNG.standard_normal(SIZE[name])
        others = surface.nearest(RNG.standard_normal((2000, SIZE[name])))
        near = surface.nearest(surface.nearest(x) + 0.1 * RNG.standard_normal((2000, SIZE[name])))
        distance = np.linalg.norm(surface.nearest(x) - x)
        assert (np.linalg.norm(np.concatenate([others, near]) - x, axis=1) >= distance - 1e-14).all()


def test_what_has_no_nearest_point_gets_one() -> None:
    assert Sphere(3.0).nearest(np.zeros((1, 2))).tolist() == [[3.0, 0.0]]
    assert off(Stiefel(2), Stiefel(2).nearest(np.zeros(DIM))) < 1e-15
    assert off(Stiefel(2), Stiefel(2).nearest(np.array([1.0, 1.0, 0.0, 0.0, 0.0, 0.0]))) < 1e-15


@pytest.mark.parametrize("name", SURFACES)
def test_tangent_vectors_leave_the_surface_at_second_order(name: str) -> None:
    surface = SURFACES[name]
    x = surface.nearest(RNG.standard_normal((50, SIZE[name])))
    t = surface.tangent(x, RNG.standard_normal(x.shape))
    np.testing.assert_allclose(surface.tangent(x, t), t, rtol=0, atol=1e-14)
    first, second = (off(surface, x + step * t) for step in (1e-3, 1e-4))
    assert first / second == pytest.approx(100, rel=0.02)


def mean_step(method: ManifoldCBO, x: Any, c: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return the exact mean of a step from x with the consensus point at c, up to fifth moments of the noise.

    Noise takes the values +-sqrt(dim) e_k, each as often as the others: its first three moments are those of
    normal numbers.
    """
    dim = len(x)
    corners = math.sqrt(dim) * np.concatenate([np.eye(dim), -np.eye(dim), np.zeros((1, dim))])
    monkeypatch.setattr(manifold_cbo.noise, "normal", lambda *_: corners[None].copy())
    method = replace(method, num_particles=len(corners))
    state = method.init(x, key=Key(0))
    points = np.concatenate([np.tile(x, (2 * dim, 1)), c[None]])[None]
    state = replace(state, swarm=replace(state.swarm, points=points))
    after = method.tell(state, Evaluations(np.append(np.ones(2 * dim), 0.0)))
    return after.swarm.points[0, :-1].mean(0)


def correction(surface: Manifold, x: Any, c: Any, noise: str) -> Any:
    """Return what sigma^2 / 2 is multiplied by in the drift of the papers, or in what stands for it."""
    v, dim = x - c, len(x)
    size = float(v @ v)
    if noise == "isotropic":
        if isinstance(surface, Sphere):
            return -(dim - 1) * size * x / surface.radius**2
        k = surface.num_columns
        return -(2 * (dim // k) - k - 1) / 2 * size * x
    if isinstance(surface, Sphere):
        r = surface.radius
        return -(size + v**2 - 2 * float((v * x / r) @ (v * x / r))) * x / r**2
    # In the sense of Stratonovich: the derivative of each column of the noise along itself.
    total, h = np.zeros(dim), 1e-5
    for k in range(dim):
        axis = np.eye(dim)[k]
        b = surface.tangent(x, axis)
        total += v[k] ** 2 * (surface.tangent(x + h * b, axis) - surface.tangent(x - h * b, axis)) / (2 * h)
    return total


@pytest.mark.parametrize("noise", ["isotropic", "anisotropic"])
@pytest.mark.parametrize("name", SURFACES)
def test_the_mean_of_a_step_is_that_of_the_diffusion(
    name: str, noise: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    surface, sigma, drift = SURFACES[name], 0.7, 1.3
    x, c = surface.nearest(np.random.default_rng(1).standard_normal((2, SIZE[name])))
    wanted = drift * surface.tangent(x, c - x) + sigma**2 / 2 * correction(surface, x, c, noise)
    errors = []
    for dt in (4e-3, 2e-3, 1e-3):
        method = ManifoldCBO(drift=drift, sigma=sigma, dt=dt, noise=noise, **OPTIONS[name])
        errors.append((mean_step(method, x, c, monkeypatch) - x) / dt - wanted)
    # First order in dt: what is left over of the mean velocity halves with dt, and is small.
    sizes = [float(np.linalg.norm(error)) for error in errors]
    assert sizes[0] / sizes[1] == pytest.approx(2, rel=0.05)
    assert sizes[1] / sizes[2] == pytest.approx(2, rel=0.05)
    assert sizes[2] < 0.02 * float(np.linalg.norm(wanted))


def eigenproblem(dim: int) -> tuple[Any, Any]:
    """Return a symmetric matrix with eigenvalues 1, ..., dim, and its eigenvectors in columns."""
    vectors = np.linalg.qr(np.random.default_rng(3).standard_normal((dim, dim)))[0]
    return (vectors * np.arange(1.0, dim + 1)) @ vectors.T, vectors


@pytest.mark.parametrize("noise", ["isotropic", "anisotropic"])
def test_rayleigh_quotients_are_minimised(noise: str) -> None:
    matrix, vectors = eigenproblem(10)

    def quotient(x: Any) -> Any:
        return ((x @ matrix) * x).sum(-1)

    method = ManifoldCBO(num_particles=40, noise=noise)
    state = run(method, quotient, np.full(10, 10**-0.5), 200)
    found = method.recommend_many(state)
    assert (abs(quotient(found) - 1) < 1e-2).all()
    assert (abs(found @ vectors[:, 0]) > 0.995).all()


def test_the_subspace_of_the_least_eigenvalues_is_found() -> None:
    matrix, vectors = eigenproblem(6)

    def trace(x: Any) -> Any:
        columns = x.reshape(-1, 6, 2)
        return np.einsum("rai,ab,rbi->r", columns, matrix, columns)

    method = ManifoldCBO(manifold="stiefel", num_columns=2, num_particles=40)
    state = run(method, trace, np.eye(6)[:, :2].ravel(), 200)
    found = method.recommend_many(state)
    assert (abs(trace(found) - 3) < 1e-2).all()
    spaces = found.reshape(-1, 6, 2) @ found.reshape(-1, 6, 2).swapaxes(1, 2)
    wanted = vectors[:, :2] @ vectors[:, :2].T
    assert (np.linalg.norm(spaces - wanted, 2, axis=(1, 2)) < 0.1).all()


def test_the_consensus_point_is_taken_to_the_surface() -> None:
    method = ManifoldCBO(num_particles=3, alpha=0.0, radius=2.0)
    state = method.init(np.array([2.0, 0.0]), key=Key(0))
    points = np.array([[[2.0, 0.0], [0.0, 2.0], [2.0, 0.0]]])
    state = replace(state, swarm=replace(state.swarm, points=points))
    after = method.tell(state, Evaluations(np.array([0.0, 5.0, np.nan])))
    np.testing.assert_allclose(method.recommend(after), [2**0.5, 2**0.5], atol=1e-15)
    assert method.diagnostics(after)["effective_sample_size"] == 2


def test_where_it_starts() -> None:
    x0 = np.array([3.0, 4.0])
    assert ManifoldCBO().init(x0, key=Key(0)).radius == 5
    assert (ManifoldCBO().recommend(ManifoldCBO().init(x0, key=Key(0))) == x0).all()
    moved = ManifoldCBO(radius=10.0)
    np.testing.assert_allclose(moved.recommend(moved.init(x0, key=Key(0))), 2 * x0, rtol=1e-15)
    assert moved.recommend(moved.init(np.zeros(2), key=Key(0))).tolist() == [10.0, 0.0]
    stiefel = ManifoldCBO(manifold="stiefel", num_columns=2)
    started = stiefel.recommend(stiefel.init(np.array([2.0, 0, 0, -3, 0, 0]), key=Key(0)))
    np.testing.assert_allclose(started, [1, 0, 0, -1, 0, 0], atol=1e-15)


@pytest.mark.parametrize("name", SURFACES)
def test_a_uniform_start_covers_the_surface(name: str) -> None:
    count, dim = 4000, SIZE[name]
    method = ManifoldCBO(num_particles=count, start="uniform", **OPTIONS[name])
    x0 = SURFACES[name].nearest(np.arange(1.0, dim + 1))
    points = method.init(x0, key=Key(1)).swarm.points[0]
    np.testing.assert_allclose(points[0], x0, atol=1e-15)
    rest, total = points[1:], float((x0**2).sum())
    # Means are 0 and second moments total / dim, in every direction; five deviations.
    moment = total / dim
    assert (abs(rest.mean(0)) < 5 * math.sqrt(moment / count)).all()
    assert (abs((rest**2).mean(0) - moment) < 5 * math.sqrt(2 * moment**2 / count)).all()


def test_known_points_are_particles() -> None:
    known = Known(np.array([[0.0, 1.0], [1.0 + 1e-7, 0.0]]), np.array([2.0, 1.0]))
    points = ManifoldCBO().init(np.array([0.6, 0.8]), key=Key(0), known=known).swarm.points[0]
    assert points[:2].tolist() == [[1.0, 0.0], [0.0, 1.0]]
    np.testing.assert_allclose(points[2], [0.6, 0.8], rtol=1e-15)


@pytest.mark.parametrize("value", [None, [0.1]])
def test_known_points_off_the_surface_are_refused(value: Any) -> None:
    import zoo

    def fun(x: Any) -> float:
        raise AssertionError("nothing is to be evaluated")

    def minimize(known: Any, x0: Any = None, **options: Any) -> None:
        values = None if value is None else value * len(known)
        zoo.minimize(fun, x0, method="cbo-manifold", known=(known, values), budget=9, rng=0, options=options)

    with pytest.raises(ValueError, match=r"`known` must hold points with \|x\| = 1, got one in row 0"):
        minimize([[3.0, 0.0, 4.0]], [1.0, 0.0, 0.0])
    with pytest.raises(ValueError, match=r"with \|x\| = 5, got one in row 1"):
        minimize([[3.0, 0.0, 4.0], [1.0, 0.0, 0.0]])
    with pytest.raises(ValueError, match="with orthonormal columns, got one in row 1"):
        minimize([[1.0, 0, 0, 1], [1.0, 0, 0, 1.1]], [1.0, 0, 0, 1], manifold="stiefel", num_columns=2)


def test_starts_far_out() -> None:
    x0 = np.full(3, 1e160)
    with pytest.raises(
        ValueError, match="`x0` must make a sphere of a radius from 1e-150 to 1e\\+150, got inf"
    ):
        ManifoldCBO().init(x0, key=Key(0))
    for radius in (1e-200, 1e200):
        with pytest.raises(ValueError, match="`radius` must make a sphere of a radius from"):
            ManifoldCBO(radius=radius).init(np.ones(3), key=Key(0))
    for method in (ManifoldCBO(radius=2.0), ManifoldCBO(radius=2.0, start="uniform")):
        state = method.init(x0, key=Key(0))
        np.testing.assert_allclose(method.recommend(state), 2 / math.sqrt(3), rtol=1e-15)
        assert off(Sphere(2.0), state.swarm.points) < 1e-14


def test_swarms_are_the_same_together_and_alone() -> None:
    x0 = np.array([1.0, -0.5, 2.0])
    for noise in ("isotropic", "anisotropic"):
        method = ManifoldCBO(num_particles=7, noise=noise)
        together = run(method, lambda x: x.sum(-1), x0, 12, keys=3)
        for seed in range(3):
            alone = method.init(x0, key=Key(seed))
            for _ in range(12):
                rows = method.ask(alone).rows(0, 7)
                alone = method.tell(alone, Evaluations(rows.sum(-1)))
            assert alone.swarm.points.tobytes() == together.swarm.points[seed].tobytes()
            assert method.recommend(alone).tobytes() == method.recommend_many(together)[seed].tobytes()


def test_a_swarm_that_fails_learns_nothing() -> None:
    method, x0 = ManifoldCBO(num_particles=5), np.array([1.0, -0.5, 2.0])
    state = run(method, lambda x: x[:, 0], x0, 3, keys=2)
    values = np.array([np.nan] * 5 + [1.0] * 5)
    after = method.tell(state, Evaluations(values))
    assert (after.swarm.consensus[0] == state.swarm.consensus[0]).all()
    assert (after.swarm.consensus[1] != state.swarm.consensus[1]).any()
    assert (after.swarm.points[0] != state.swarm.points[0]).any(), "the same points would fail again"
    assert off(Sphere(state.radius), after.swarm.points) < 1e-14


@pytest.mark.parametrize("name", SURFACES)
def test_torch_does_the_same(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")

    def normal(keys: Any, step: int, start: int, stop: int, count: int, dim: int, like: Any) -> Any:
        return like.asarray(np.random.default_rng(step).standard_normal((1, count, dim)))

    monkeypatch.setattr(manifold_cbo.noise, "normal", normal)
    x0 = SURFACES[name].nearest(np.arange(1.0, SIZE[name] + 1))
    for noise in ("isotropic", "anisotropic"):
        method = ManifoldCBO(num_particles=6, noise=noise, start="uniform", **OPTIONS[name])
        ours, theirs = (method.init(x, key=Key(0)) for x in (x0, torch.from_numpy(x0)))
        for _ in range(5):
            points = np.asarray(theirs.swarm.points)
            np.testing.assert_allclose(points, ours.swarm.points, rtol=0, atol=1e-11)
            ours, theirs = (
                method.tell(state, Evaluations(np.asarray(state.swarm.points)[0].sum(1)))
                for state in (ours, theirs)
            )
        assert isinstance(method.recommend(theirs), torch.Tensor)


def test_it_ends_when_all_are_at_one_point() -> None:
    method, x0 = ManifoldCBO(num_particles=30), np.array([1.0, 0.0])
    state = run(method, lambda x: x[:, 1], x0, 400, keys=1)
    assert "tolx" in str(method.finished(state))
    assert replace(method, tolx=0.0).finished(state) is None
    np.testing.assert_allclose(method.recommend(state), [0.0, -1.0], atol=1e-6)


def test_options_change_what_is_done() -> None:
    base = ManifoldCBO(num_particles=6)
    others: dict[str, Any] = {
        "radius": 3.0, "num_particles": 7, "drift": 0.5, "sigma": 0.1, "dt": 0.3, "alpha": 1.0,
        "noise": "anisotropic", "start": "uniform",
    }  # fmt: skip
    x0 = np.array([1.0, -0.5, 2.0, 0.0])

    def after(method: ManifoldCBO) -> str:
        return digest(run(method, lambda x: x[:, 0] ** 2 + x[:, 1], x0, 3, keys=1))

    seen = {after(base), after(replace(base, manifold="stiefel", num_columns=2))}
    seen |= {after(replace(base, **{name: value})) for name, value in others.items()}
    assert len(seen) == 2 + len(others)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"manifold": "torus"}, "`manifold` must be one of"),
        ({"radius": 0.0}, "`radius` must be a finite number above 0"),
        ({"manifold": "stiefel", "radius": 1.0}, "`radius` must be None"),
        ({"num_columns": 2}, "`num_columns` must be 1 on a sphere"),
        ({"sigma": -1.0}, "`sigma` must be finite and at least 0"),
        ({"sigma": math.inf}, "`sigma` must be finite"),
        ({"alpha": -1.0}, "`alpha` must be at least 0"),
        ({"dt": 2.0}, "`drift` \\* dt must be below 2"),
    ],
)
def test_wrong_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ManifoldCBO(**options)


def test_wrong_starts() -> None:
    with pytest.raises(ValueError, match="`x0` must not be 0"):
        ManifoldCBO().init(np.zeros(3), key=Key(0))
    for count in (5, 2):
        with pytest.raises(ValueError, match="`x0` must hold a matrix of 2 columns"):
            ManifoldCBO(manifold="stiefel", num_columns=2).init(np.ones(count), key=Key(0))
    with pytest.raises(ValueError, match="`bounds` must be None"):
        ManifoldCBO().init(np.ones(2), key=Key(0), bounds=Bounds(np.zeros(2), np.ones(2)))


def test_no_model_takes_candidates_off_the_surface() -> None:
    import zoo

    seen = []

    def fun(x: Any) -> float:
        seen.append(x.copy())
        return float(x[0])

    result = zoo.minimize(
        fun, [0.0, 1.0, 0.0], constraints=lambda x: x[0] + 0.5, method="cbo-manifold", budget=600, rng=0
    )
    assert off(Sphere(1.0), np.array(seen)) < 1e-12
    assert result.maxcv == 0
    assert result.fun == pytest.approx(-0.5, abs=1e-3)
