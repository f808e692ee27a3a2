"""Random Fourier features."""

import numpy as np
import pytest
import torch

from federated.surrogate import features as module
from federated.surrogate.features import FourierFeatures
from federated.surrogate.gaussian_process import GaussianProcess
from federated.surrogate.window import Window
from zoo.core.rng import Key

KINDS = {"gaussian": {}, "orthogonal": {"orthogonal": True}, "structured": {"structured": True}}
kinds = pytest.mark.parametrize("kind", KINDS)


def near(count, dim, within=0.1, key=1):
    """Return points within a distance of each other, about."""
    return 0.5 + within * Key(key).normal(0, count, dim) / np.sqrt(2 * dim)


def squares(points):
    gram = points @ points.T
    return np.maximum(np.diag(gram)[:, None] + np.diag(gram) - 2 * gram, 0)


def values_of(points):
    return ((points - 0.3) ** 2).sum(1) + np.sin(3 * points[:, 0])


def cosine(one, other):
    return one @ other / (np.linalg.norm(one) * np.linalg.norm(other))


@kinds
def test_the_error_of_the_kernel_falls_as_the_root_of_the_number_of_features(kind):
    points = near(60, 40, within=1.0)
    wanted, counts = np.exp(-squares(points) / 2), (100, 300, 1000, 3000, 10_000)
    errors = []
    for count in counts:
        found = [
            FourierFeatures(key=Key(key), dim=40, count=count, **KINDS[kind]).at(points) for key in range(4)
        ]
        errors.append(np.sqrt(np.mean([((table @ table.T - wanted) ** 2).mean() for table in found])))
    slope = np.polyfit(np.log(counts), np.log(errors), 1)[0]
    assert slope == pytest.approx(-0.5, abs=0.1)


@pytest.mark.parametrize("kind", ["orthogonal", "structured"])
def test_orthogonal_rows_are_nearer_to_the_kernel(kind):
    points = near(60, 64, within=1.0)
    wanted = np.exp(-squares(points) / 2)

    def error(**arguments):
        found = [FourierFeatures(key=Key(key), dim=64, count=640, **arguments).at(points) for key in range(8)]
        return np.mean([((table @ table.T - wanted) ** 2).mean() for table in found])

    assert error(**KINDS[kind]) < 0.8 * error()


@kinds
def test_with_more_features_the_gradient_nears_that_of_the_process(kind):
    points = near(100, 300)
    window = Window.empty(300, 100).add(points, values_of(points))
    process = GaussianProcess(kernel="rbf", length_scale=1.0, noise=1e-3)
    x = points[0] + 0.01
    wanted, cosines = process.fit(window, x)[0].gradient(x), []
    for count in (1000, 3000, 10_000):
        features = FourierFeatures(key=Key(0), dim=300, count=count, **KINDS[kind])
        weights = features.fit(points, values_of(points), 1e-3)
        cosines.append(cosine(features.gradient(weights, x), wanted))
    assert cosines == sorted(cosines)
    assert cosines[-1] > 0.96


@kinds
def test_the_gradient_is_that_of_the_function(kind):
    features = FourierFeatures(key=Key(0), dim=11, count=50, length_scale=0.7, **KINDS[kind])
    weights, x, h = Key(1).normal(0, 1, 50)[0], Key(2).uniform(0, 1, 11)[0], 1e-5
    differences = features.value(weights, x + h * np.eye(11)) - features.value(weights, x - h * np.eye(11))
    np.testing.assert_allclose(features.gradient(weights, x), differences / (2 * h), rtol=1e-6, atol=1e-8)


@kinds
def test_the_gradient_of_a_difference_is_the_difference_of_gradients(kind):
    features = FourierFeatures(key=Key(0), dim=20, count=2000, **KINDS[kind])
    own, all_ = (features.fit(near(30, 20, key=key), values_of(near(30, 20, key=key))) for key in (1, 2))
    x = near(1, 20, key=3)[0]
    wanted = features.gradient(all_, x) - features.gradient(own, x)
    assert np.linalg.norm(features.gradient(all_ - own, x) - wanted) < 1e-12 * np.linalg.norm(wanted)
    assert features.gradient(own - own, x).tolist() == [0.0] * 20


@kinds
def test_the_weights_are_the_solution_in_the_space_of_features(kind):
    features = FourierFeatures(key=Key(0), dim=5, count=40, **KINDS[kind])
    points = Key(1).uniform(0, 12, 5)
    table, values = features.at(points), values_of(points)
    target = (values - values.min()) / np.ptp(values)
    primal = np.linalg.solve(table.T @ table + 0.01 * np.eye(40), table.T @ target) * np.ptp(values)
    found = features.solve(points, values, 0.01)
    np.testing.assert_allclose(found.weights, primal, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(features.value(found.weights, points), table @ primal, rtol=1e-9)
    assert found.noise == 0.01


@pytest.mark.parametrize("kind", ["gaussian", "orthogonal"])
def test_the_uncertainty_is_an_estimate_of_the_trace(kind):
    features = FourierFeatures(key=Key(0), dim=6, count=30, **KINDS[kind])
    points, x = Key(1).uniform(0, 10, 6), np.full(6, 0.4)
    fit = features.solve(points, values_of(points), 0.01)
    table = features.at(points)
    slopes = np.stack([features.gradient(row, x) for row in np.eye(30)])
    inverse = np.linalg.inv(table.T @ table / 0.01 + np.eye(30))
    wanted = np.trace(slopes.T @ inverse @ slopes)
    assert fit.uncertainty(x, probes=4000) == pytest.approx(wanted, rel=0.02)
    assert 0 <= fit.uncertainty(x) < (slopes**2).sum()


def test_the_uncertainty_of_structured_features_is_near_that_of_the_process():
    points = near(50, 64, within=1.0)
    fit = FourierFeatures(key=Key(0), dim=64, structured=True).solve(points, values_of(points), 1e-3)
    process = GaussianProcess(kernel="rbf", length_scale=1.0, noise=1e-3)
    exact, _ = process.fit(Window.empty(64, 50).add(points, values_of(points)), points[0])
    assert fit.uncertainty(points[0]) == pytest.approx(exact.uncertainty(points[:1])[0], rel=0.05)


def test_rows_are_orthogonal_in_blocks_and_as_long_as_drawn_ones():
    features = FourierFeatures(key=Key(0), dim=8, count=20, length_scale=0.5, orthogonal=True)
    rows = np.concatenate([part for _, part in features._rows(module._double(np.zeros(0)))])
    plain = FourierFeatures(key=Key(0), dim=8, count=20, length_scale=0.5)
    drawn = np.concatenate([part for _, part in plain._rows(module._double(np.zeros(0)))])
    lengths = np.linalg.norm(drawn, axis=1)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), lengths, rtol=1e-13)
    for start in (0, 8, 16):
        block = rows[start : start + 8] / lengths[start : start + 8, None]
        np.testing.assert_allclose(block @ block.T, np.eye(len(block)), atol=1e-13)


def test_structured_rows_are_orthogonal():
    features = FourierFeatures(key=Key(0), dim=16, count=32, length_scale=2.0, structured=True)
    products = [part for _, part, _ in features._products(np.eye(16), module._double(np.zeros(0)))]
    for block in products:
        np.testing.assert_allclose(block.T @ block, np.eye(16) * 16 / 4, atol=1e-12)
    assert len(products) == 2
    assert (products[0] != products[1]).any()


@kinds
def test_fewer_features_are_a_part_of_more(kind):
    points = near(4, 10)
    few, many = (FourierFeatures(key=Key(0), dim=10, count=count, **KINDS[kind]) for count in (13, 29))
    np.testing.assert_allclose(
        few.at(points) / np.sqrt(2 / 13), many.at(points)[:, :13] / np.sqrt(2 / 29), atol=1e-13
    )


@kinds
def test_frequencies_that_are_drawn_anew_are_those_that_are_kept(kind, monkeypatch):
    features = FourierFeatures(key=Key(7), dim=30, count=100, **KINDS[kind])
    points, weights = near(5, 30), Key(1).normal(0, 1, 100)[0]
    table, gradient = features.at(points), features.gradient(weights, points[0])
    for name, number in (("_CACHED", 0), ("_BLOCK", 200), ("_NUMBERS", 64)):
        monkeypatch.setattr(module, name, number)
    np.testing.assert_allclose(features.at(points), table, atol=1e-12)
    np.testing.assert_allclose(features.gradient(weights, points[0]), gradient, rtol=1e-10, atol=1e-12)


def test_frequencies_are_kept_once_they_are_drawn():
    sizes = (1024, 10_000)  # the variables of an image of 32 by 32 pixels, and the features of the paper
    assert 8 * sizes[0] * sizes[1] <= module._CACHED
    module._kept.cache_clear()
    features = FourierFeatures(key=Key(7), dim=30, count=100)
    for _ in range(3):
        features.gradient(np.ones(100), np.zeros(30))
    assert module._kept.cache_info()[:2] == (2, 1)


@kinds
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["double", "single"])
def test_torch_finds_what_numpy_does(kind, dtype):
    features = FourierFeatures(key=Key(0), dim=20, count=300, **KINDS[kind])
    points = torch.from_numpy(near(10, 20)).to(dtype)
    same = points.double().numpy()
    values = values_of(same)
    one, other = features.solve(same, values), features.solve(points, values)
    assert (other.weights.dtype, other.scale) == (torch.float64, one.scale)
    np.testing.assert_allclose(other.weights.numpy(), one.weights, rtol=1e-6, atol=1e-8)
    found = features.gradient(torch.from_numpy(one.weights), points[3])
    assert found.dtype == dtype
    loose = 1e-9 if dtype == torch.float64 else 1e-5
    np.testing.assert_allclose(found.numpy(), features.gradient(one.weights, same[3]), rtol=loose, atol=loose)
    np.testing.assert_allclose(
        other.uncertainty(points[3]).numpy(), one.uncertainty(same[3]), rtol=max(loose, 1e-7)
    )


def test_one_point_and_equal_values_make_a_function_without_slope():
    features = FourierFeatures(key=Key(0), dim=3, count=20)
    wide = np.array([-1.7e308, 0, 0, 0, 1.7e308])  # no number holds their range
    for points, values in (
        (np.ones((1, 3)), np.full(1, 4.0)),
        (near(5, 3), np.full(5, 4.0)),
        (near(5, 3), wide),
    ):
        fit = features.solve(points, values)
        assert fit.scale == 0.0
        assert fit.weights.tolist() == [0.0] * 20
        assert features.gradient(fit.weights, np.zeros(3)).tolist() == [0.0] * 3


def test_the_same_point_twice_gets_more_noise():
    points = np.concatenate([near(5, 3)] * 2)
    fit = FourierFeatures(key=Key(0), dim=3, count=200).solve(points, np.arange(10.0), 0.0)
    assert fit.noise >= 1e-6
    assert np.isfinite(fit.weights).all()


@pytest.mark.parametrize("kind", ["gaussian", "orthogonal"])
def test_in_one_dimension(kind):
    features = FourierFeatures(key=Key(0), dim=1, count=500, length_scale=0.3, **KINDS[kind])
    points = np.linspace(0, 1, 15)[:, None]
    weights = features.fit(points, points[:, 0] ** 2)
    assert features.gradient(weights, np.array([0.5])) == pytest.approx([1.0], rel=0.05)


@pytest.mark.parametrize(
    ("arguments", "error", "sentence"),
    [
        ({"key": 0}, TypeError, "`key` must be a Key, got 0"),
        ({"dim": 0}, ValueError, "`dim` must be at least 1, got 0"),
        ({"count": 1.5}, TypeError, "`count` must be an integer"),
        ({"length_scale": -1.0}, ValueError, "`length_scale` must be a finite number above 0"),
        ({"orthogonal": "yes"}, TypeError, "`orthogonal` must be True or False"),
        ({"structured": 1}, TypeError, "`structured` must be True or False"),
    ],
    ids=["key", "dim", "count", "length", "orthogonal", "structured"],
)
def test_bad_arguments_are_refused(arguments, error, sentence):
    with pytest.raises(error, match=sentence):
        FourierFeatures(**{"key": Key(0), "dim": 3, **arguments})


def test_bad_data_are_refused():
    features = FourierFeatures(key=Key(0), dim=3, count=10)
    with pytest.raises(ValueError, match=r"`points` must have the shape \(n, 3\)"):
        features.fit(np.zeros((2, 4)), [0.0, 1.0])
    with pytest.raises(ValueError, match="n of at least 1"):
        features.fit(np.zeros((0, 3)), [])
    with pytest.raises(ValueError, match="`noise` must be a finite number of at least 0"):
        features.fit(np.zeros((2, 3)), [0.0, 1.0], -1.0)
