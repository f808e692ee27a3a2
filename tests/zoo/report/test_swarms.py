"""Swarms on a contour: what is recorded of a run, the still and the film."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import zoo
from zoo.problems import canyon, sphere
from zoo.report.swarms import SwarmFilm, animate_swarm, draw_contour, draw_swarm


@pytest.fixture(scope="module")
def film() -> SwarmFilm:
    film = SwarmFilm()
    options = {"num_particles": 20}
    zoo.minimize(
        canyon, [8.0, 8.0], method="ch", budget=200, rng=0, vectorized=True, callback=film, options=options
    )
    return film


def test_a_run_is_recorded(film: SwarmFilm) -> None:
    assert [points.shape for points in film.particles] == [(20, 2)] * 9 + [(19, 2)] * 2
    assert len(film.consensus) == 11
    assert film.consensus[0].tolist() == [8.0, 8.0]
    method = zoo.list_methods()["ch"].build({"num_particles": 20})
    state = method.init(np.array([8.0, 8.0]), key=zoo.Key(0), budget=40)
    own = SwarmFilm()
    own.record(method, state)
    y = method.ask(state).rows(0, 20)
    assert (own.particles[0] == y).all()
    own.record(method, method.tell(state, zoo.Evaluations(canyon(y))))
    assert (own.consensus[1] == method.recommend(method.tell(state, zoo.Evaluations(canyon(y))))).all()


@pytest.mark.parametrize("method", ["pso", "cma", "cbo-textbook", "cbs", "cbo-polarized"])
def test_any_method_is(method: str) -> None:
    film = SwarmFilm()
    result = zoo.minimize(sphere, [1.0, 2.0], method=method, budget=100, rng=0, callback=film)
    assert result.nfev == 100
    assert len(film.particles) == result.nit + 1
    assert np.isfinite(film.consensus).all()


def test_the_consensus_point_of_a_turned_swarm_is_among_its_particles() -> None:
    film = SwarmFilm()
    zoo.minimize(
        canyon, [8.0, 8.0], method="cbo-curvature", budget=600, rng=0, scale=0.5, vectorized=True,
        callback=film,
    )  # fmt: skip
    assert film.consensus[0].tolist() == [8.0, 8.0]
    turned = [(points, point) for points, point in zip(film.particles, film.consensus, strict=True)
              if len(points) == 20][2:]  # fmt: skip
    assert len(turned) > 20
    for points, point in turned:
        assert (point >= points.min(0) - 0.5).all()
        assert (point <= points.max(0) + 0.5).all()


def test_other_numbers_of_variables_are_refused() -> None:
    method = zoo.list_methods()["ch"].build()
    with pytest.raises(ValueError, match="`state` must be one of two variables, got 3"):
        SwarmFilm().record(method, method.init(np.ones(3), key=zoo.Key(0)))


def test_the_still(film: SwarmFilm) -> None:
    path = np.array(film.consensus[:5])
    figure = draw_swarm(canyon, film.particles[5], path, minimum=(0, 0), vectorized=True, title="step 5")
    axes = figure.axes[0]
    drawn = {line.get_label(): np.array(line.get_data()).T for line in axes.lines}
    assert (drawn["particles"] == film.particles[5]).all()
    assert (drawn["its path"] == path).all()
    assert (drawn["consensus point"] == path[-1:]).all()
    assert drawn["minimum"].tolist() == [[0, 0]]
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    assert ((path > [left, bottom]) & (path < [right, top])).all()
    for wrong in (np.ones((2, 3)), np.ones(2), np.array([[np.nan, 1.0]])):
        with pytest.raises(ValueError, match="`particles` must be finite points of shape"):
            draw_swarm(canyon, wrong, path)
    assert draw_swarm(canyon, path, path, box=((0, 1), (0, 2)), axes=axes) is figure
    assert axes.get_xlim() == (0, 1)


def test_a_contour_of_a_constant_of_nothing_or_of_one_point_at_a_time() -> None:
    from matplotlib.figure import Figure

    figure = Figure()
    flat, single, failed = figure.subplots(1, 3)
    draw_contour(failed, lambda x: np.nan, ((0, 1), (0, 2)))
    assert not failed.collections
    assert failed.get_ylim() == (0, 2)
    draw_contour(flat, lambda x: 1.0, ((0, 1), (0, 1)))
    assert not flat.collections
    draw_contour(single, lambda x: float(x[0] - x[1] if x[0] < 0.5 else np.nan), ((0, 1), (0, 1)))
    assert single.collections


def test_the_film(film: SwarmFilm, tmp_path: Path) -> None:
    made = animate_swarm(canyon, film, tmp_path / "a.gif", vectorized=True, frames=4, fps=5, dpi=40)
    with Image.open(made) as picture:
        assert picture.n_frames == 4
        assert picture.info["duration"] == 200
        assert picture.size[0] == 184
    page = animate_swarm(canyon, film, tmp_path / "a.html", vectorized=True, frames=2, dpi=30)
    assert page.read_text().count("data:image/png;base64") >= 2
    assert [path.name for path in tmp_path.iterdir()] == ["a.gif", "a.html"] or len(
        list(tmp_path.iterdir())
    ) == 2


def test_films_that_cannot_be_made_are_refused(film: SwarmFilm, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"`path` must end in .gif or .html, got '.*mp4'"):
        animate_swarm(canyon, film, tmp_path / "a.mp4")
    with pytest.raises(ValueError, match="`film` must hold two states at least"):
        animate_swarm(canyon, SwarmFilm(), tmp_path / "a.gif")
    with pytest.raises(ValueError, match="`frames` must be at least 1"):
        animate_swarm(canyon, film, tmp_path / "a.gif", frames=0)
