"""DeepZero as a method: pure, exact in its counts, and the formula it says it is."""

import dataclasses
import itertools
import pickle

import numpy as np
import pytest
import torch

from zoo.core.bounds import Bounds
from zoo.core.rng import Key
from zoo.core.state import digest, freeze, thaw
from zoo.core.types import Evaluations
from zoo.nn.deepzero import DeepZero
from zoo.nn.masks import Layers, Masks
from zoo.nn.pruning import Grasp
from zoo.updates.schedules import Constant, Cosine, Warmup

DIM = 60
LAYERS = Layers(("first", "second"), (0, 35), (30, 55), DIM)  # 30 and 20 weights, 10 other parameters
CURVES = np.linspace(0.5, 2.0, DIM)
START = np.cos(np.arange(DIM))


def bowl(rows):
    rows = np.asarray(rows, np.float64)
    return (CURVES * rows**2).sum(1) / 2 + rows.sum(1)


def told(method, state, fail=()):
    """Return the state after a step of the bowl, some rows of which fail."""
    values = bowl(method.ask(state).rows(0, len(method.ask(state))))
    values[list(fail)] = np.nan
    return method.tell(state, Evaluations(values))


METHODS = {
    "sparse": DeepZero(LAYERS, sparsity=0.8, pruning=Grasp(16), redraw=3),
    "scored by coordinates": DeepZero(LAYERS, sparsity=0.5, pruning=Grasp(None), steps=12),
    "dense": DeepZero(LAYERS, sparsity=0.0),
    "central": DeepZero(LAYERS, sparsity=0.5, stencil="central", pruning=None),
    "no layers": DeepZero(sparsity=0.5, pruning=None),
}
all_methods = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)


@all_methods
@pytest.mark.parametrize("kind", ["numpy", "torch"])
def test_ask_is_idempotent_and_tell_is_pure(method, kind):
    x0 = START if kind == "numpy" else torch.from_numpy(START).float()
    state = method.init(x0, key=Key(0))
    for _ in range(6):
        before = digest(state)
        first, again = method.ask(state), method.ask(state)
        rows = first.rows(0, len(first))
        assert type(rows) is type(x0)
        assert rows.dtype == x0.dtype
        assert np.array_equal(rows, again.rows(0, len(again)))
        values = bowl(rows)
        after = method.tell(state, Evaluations(values))
        assert digest(state) == before
        assert digest(method.tell(state, Evaluations(values))) == digest(after)
        assert digest(thaw(*freeze(after))) == digest(after)
        rows[:] = 0  # which are the caller's own
        assert digest(after) == digest(method.tell(state, Evaluations(values)))
        state = after
    recommended = method.recommend(state)
    assert recommended.shape == x0.shape
    assert recommended.dtype == x0.dtype


@all_methods
def test_rows_do_not_depend_on_the_slice(method):
    state = method.init(START, key=Key(1))
    for _ in range(4):
        candidates = pickle.loads(pickle.dumps(method.ask(state)))
        whole = candidates.rows(0, len(candidates))
        cuts = [0, 1, 2, len(candidates) // 2, len(candidates) - 1, len(candidates)]
        for start, stop in itertools.pairwise(cuts):
            assert np.array_equal(candidates.rows(start, stop), whole[start:stop])
        state = told(method, state)


def test_queries_are_those_of_the_coordinates_and_of_the_scores():
    method = METHODS["sparse"]
    state = method.init(START, key=Key(0))
    counts = []
    for _ in range(5):
        counts.append(len(method.ask(state)))
        state = told(method, state)
    assert counts == [17, 17, 21, 21, 21]  # a fifth of 50 weights, 10 other parameters, and the base
    assert state.step == 3
    assert sum(state.kept) == 10
    dense, central = METHODS["dense"], METHODS["central"]
    assert len(dense.ask(dense.init(START, key=Key(0)))) == DIM + 1
    assert len(central.ask(central.init(START, key=Key(0)))) == 2 * (25 + 10)
    scored = METHODS["scored by coordinates"]
    assert len(scored.ask(scored.init(START, key=Key(0)))) == DIM + 1


def test_a_step_is_the_formula():
    method = DeepZero(
        LAYERS, sparsity=0.5, pruning=None, redraw=2, smoothing=0.25, learning_rate=0.1, weight_decay=0.01
    )
    state = method.init(START, key=Key(4))
    x, velocity = START.copy(), np.zeros(DIM)
    masks = Masks.uniform(LAYERS, 0.5)
    for step in range(6):
        state = told(method, state)
        mask = masks.mask(Key(4).fold("masks"), step // 2)
        # Forward differences of a quadratic are off by half of h times its curvature.
        gradient = np.where(mask, CURVES * x + 1 + 0.125 * CURVES, 0.0)
        velocity = 0.9 * velocity + gradient + 0.01 * x
        x = x - 0.1 * velocity
        assert np.allclose(state.x, x, rtol=0, atol=1e-12)
    assert state.num_valid == state.asked == 35


def test_central_differences_of_a_quadratic_are_exact():
    method = dataclasses.replace(METHODS["central"], smoothing=0.5, momentum=0.0, weight_decay=0.0)
    state = method.init(START, key=Key(0))
    mask = Masks.uniform(LAYERS, 0.5).mask(Key(0).fold("masks"), 0)
    after = told(method, state)
    assert np.allclose(after.x, START - 0.1 * np.where(mask, CURVES * START + 1, 0.0), rtol=0, atol=1e-12)


@pytest.mark.parametrize(("momentum", "weight_decay"), [(0.0, 0.0), (0.9, 0.0), (0.0, 0.1)])
def test_what_is_masked_stays_only_without_momentum_and_weight_decay(momentum, weight_decay):
    method = DeepZero(
        LAYERS, sparsity=0.8, pruning=None, redraw=1, momentum=momentum, weight_decay=weight_decay
    )
    state = method.init(START, key=Key(2))
    masks = Masks.uniform(LAYERS, 0.8)
    state = told(method, state)
    mask = masks.mask(Key(2).fold("masks"), 1)
    assert (mask != masks.mask(Key(2).fold("masks"), 0)).any()
    after = told(method, state)
    still = (after.x == state.x)[~mask]
    if momentum or weight_decay:
        assert not still.all()
    else:
        assert still.all()
    assert (after.x != state.x)[mask].all()


def test_a_mask_lasts_as_long_as_is_said():
    method = METHODS["sparse"]
    state = told(method, told(method, method.init(START, key=Key(0))))
    seen = []
    for _ in range(7):
        seen.append(tuple(method.ask(state).indices.tolist()))
        state = told(method, state)
    assert seen[0] == seen[1] == seen[2] != seen[3] == seen[4] == seen[5] != seen[6]


def test_failed_evaluations_drop_their_coordinates():
    method = DeepZero(LAYERS, sparsity=0.0, momentum=0.0, weight_decay=0.0)
    state = method.init(START, key=Key(0))
    whole, part = told(method, state), told(method, state, fail=[1, 8])
    assert part.num_valid == DIM - 2
    assert part.x[0] == START[0] != whole.x[0]
    assert part.x[7] == START[7]
    assert np.array_equal(np.delete(part.x, [0, 7]), np.delete(whole.x, [0, 7]))
    central = dataclasses.replace(method, stencil="central")
    part = told(central, central.init(START, key=Key(0)), fail=[3, DIM + 3, DIM + 5])
    assert part.num_valid == DIM - 2
    assert (part.x == START).nonzero()[0].tolist() == [3, 5]


def test_without_any_value_nothing_moves_and_it_ends():
    method = DeepZero(LAYERS, sparsity=0.0)
    first = told(method, method.init(START, key=Key(0)))
    state = told(method, first, fail=[0])  # the base, without which no difference is known
    assert np.array_equal(state.x, first.x)
    assert np.array_equal(state.velocity, first.velocity)
    assert (state.step, state.num_valid, state.lost) == (2, 0, 1)
    assert told(method, state).lost == 0
    for _ in range(8):
        assert method.finished(state) is None
        state = told(method, state, fail=range(DIM + 1))
    state = told(method, state, fail=range(DIM + 1))
    assert method.finished(state) == "the loss was no number in 10 steps in a row"


def test_scores_that_fail_leave_all_layers_equally_sparse():
    method = METHODS["sparse"]
    state = method.init(START, key=Key(0))
    assert told(method, state, fail=range(17)).kept == (6, 4)
    state = told(method, state)
    assert state.kept is None
    assert told(method, state, fail=range(17)).kept == (6, 4)
    assert told(method, state).kept != (6, 4)


def test_warm_up_and_cosine_follow_from_the_steps():
    method = DeepZero(LAYERS, steps=50, learning_rate=0.4, pruning=None)
    assert method.schedule == Warmup(3, Cosine(0.4, 47))
    assert DeepZero(LAYERS, learning_rate=0.4).schedule == Constant(0.4)
    given = Warmup(2, 0.3)
    assert DeepZero(LAYERS, steps=50, learning_rate=given).schedule is given
    state = method.init(START, key=Key(0))
    for step in range(50):
        assert method.finished(state) is None
        state = told(method, state)
        assert method.diagnostics(state)["learning_rate"] == method.schedule.value(step)
    assert method.finished(state) == "all 50 steps are done"


def test_it_converges():
    method = DeepZero(LAYERS, sparsity=0.8, redraw=1, weight_decay=0.0, smoothing=1e-6, steps=300)
    state = method.init(START, key=Key(0))
    while method.finished(state) is None:
        state = told(method, state)
    assert bowl(method.recommend(state)[None])[0] - bowl(-1 / CURVES[None])[0] < 1e-3


@pytest.mark.parametrize(
    ("make", "error", "says"),
    [
        (lambda: DeepZero(sparsity=1.0), ValueError, "`sparsity` must be at least 0 and below 1, got 1.0"),
        (lambda: DeepZero(sparsity=-0.5), ValueError, "`sparsity` must be at least 0 and below 1, got -0.5"),
        (lambda: DeepZero(LAYERS, sparsity=0.999), ValueError, "this excludes everything"),
        (lambda: DeepZero(layers=3), TypeError, "`layers` must be a Layers"),
        (lambda: DeepZero(steps=0), ValueError, "`steps` must be at least 1"),
        (lambda: DeepZero(learning_rate="auto"), TypeError, "`learning_rate` must be a number, got 'auto'"),
        (lambda: DeepZero(learning_rate=0.0), ValueError, "`learning_rate` must be .* above 0"),
        (lambda: DeepZero(learning_rate=0.0, steps=3), ValueError, "`learning_rate` must be .* above 0"),
        (lambda: DeepZero(momentum=1.0), ValueError, "`momentum` must be at least 0 and below 1"),
        (lambda: DeepZero(weight_decay=-1.0), ValueError, "`weight_decay` must be .* at least 0, got -1.0"),
        (lambda: DeepZero(redraw=0), ValueError, "`redraw` must be at least 1"),
        (lambda: DeepZero(smoothing=0.0), ValueError, "`smoothing` must be a finite number above 0"),
        (lambda: DeepZero(stencil="both"), ValueError, "`stencil` must be one of 'forward', 'central'"),
        (lambda: DeepZero(pruning="grasp"), TypeError, "`pruning` must be a Grasp or None, got 'grasp'"),
        (lambda: METHODS["sparse"].init(np.ones(9), key=Key(0)), ValueError, "`x0` must have 60 parameters"),
        (
            lambda: METHODS["no layers"].init(START, key=Key(0), bounds=Bounds(START - 1, START + 1)),
            ValueError,
            "`bounds` must be None",
        ),
        (
            lambda: METHODS["dense"].tell(METHODS["dense"].init(START, key=Key(0)), Evaluations(np.ones(3))),
            ValueError,
            "`evaluations` must have 61 values, got 3",
        ),
    ],
)
def test_bad_input(make, error, says):
    with pytest.raises(error, match=says):
        make()
