"""Gradients of a function from its values."""

import dataclasses
import tracemalloc

import numpy as np
import pytest
import torch

from federated.surrogate.gaussian_process import MEANS, GaussianProcess, Memory
from federated.surrogate.kernels import KERNELS, kernel
from federated.surrogate.window import Window
from zoo.core.rng import Key
from zoo.core.state import digest, freeze, thaw


def bowl(points):
    return ((points - 0.3) ** 2).sum(-1) + np.sin(3 * points[..., 0])


def window_of(count, dim, capacity=1000, function=bowl, key=0):
    points = Key(key).uniform(0, count, dim)
    return Window.empty(dim, capacity).add(points, function(points))


def on_torch(window, dtype=torch.float64, device="cpu"):
    points = torch.from_numpy(window.points.copy()).to(device, dtype)
    return Window.empty(window.dim, window.capacity, like=points).add(points, window.values)


def log_density(values, covariance):
    """Return the logarithm of the density of a normal distribution of mean 0."""
    _, logarithm = np.linalg.slogdet(2 * np.pi * covariance)
    return -(values @ np.linalg.solve(covariance, values) + logarithm) / 2


def dense(process, fit, points, x):
    """Return the covariance of all derivatives at x, by matrices of the size of the dimension."""
    chosen, length = kernel(process.kernel), fit.length_scale
    delta = x - points
    square = ((points[:, None] - points) ** 2).sum(2)
    matrix = chosen.value(square, length) + fit.noise * np.eye(len(points))
    cross = -chosen.slope((delta**2).sum(1), length)[:, None] * delta
    return chosen.prior(length) * np.eye(len(x)) - cross.T @ np.linalg.solve(matrix, cross)


@pytest.mark.parametrize("name", KERNELS)
def test_the_gradient_is_that_of_the_mean_by_differences(name):
    fit, _ = GaussianProcess(kernel=name).fit(window_of(60, 20), np.full(20, 0.5))
    x, h = Key(1).uniform(0, 1, 20)[0], 1e-5
    differences = (fit.value(x + h * np.eye(20)) - fit.value(x - h * np.eye(20))) / (2 * h)
    found = fit.gradient(x)
    assert np.linalg.norm(found - differences) < 1e-6 * np.linalg.norm(differences)


@pytest.mark.parametrize("name", KERNELS)
def test_the_gradient_is_that_of_autograd(name):
    window = window_of(60, 20)
    fit, _ = GaussianProcess(kernel=name).fit(window, np.full(20, 0.5))
    points, values = torch.from_numpy(window.points), torch.from_numpy(window.values)
    x = torch.from_numpy(Key(1).uniform(0, 1, 20)[0]).requires_grad_()

    def correlation(square):
        if name == "rbf":
            return torch.exp(-square / (2 * fit.length_scale**2))
        u = (5 * square).sqrt() / fit.length_scale
        return (1 + u + u**2 / 3) * torch.exp(-u)

    square = ((points[:, None] - points) ** 2).sum(2)
    low, high = values.min(), values.max()
    weights = torch.linalg.solve(correlation(square) + 1e-6 * torch.eye(60), (values - low) / (high - low))
    mean = low + (high - low) * correlation(((x - points) ** 2).sum(1)) @ weights
    (wanted,) = torch.autograd.grad(mean, x)
    np.testing.assert_allclose(fit.value(x.detach().numpy()), float(mean.detach()), rtol=1e-9)
    found = fit.gradient(x.detach().numpy())
    assert np.linalg.norm(found - wanted.numpy()) < 1e-9 * float(wanted.norm())


@pytest.mark.parametrize("incremental", [False, True], ids=["new", "updated"])
@pytest.mark.parametrize("name", KERNELS)
def test_the_uncertainty_is_the_trace_of_the_covariance(name, incremental):
    window = window_of(40, 12)
    process = GaussianProcess(kernel=name, length_scale=1.5)
    fit, memory = process.fit(window, np.full(12, 0.5))
    if incremental:
        window = window.add(Key(3).uniform(0, 3, 12), [1.0, 2.0, 3.0])
        fit, _ = process.fit(window, np.full(12, 0.4), memory, fit)
    candidates = np.concatenate([Key(1).uniform(0, 5, 12), window.points[:1]])
    found = fit.uncertainty(candidates)
    for row, x in enumerate(candidates):
        covariance = dense(process, fit, window.points, x)
        assert found[row] == pytest.approx(np.trace(covariance), rel=1e-10)
        assert np.linalg.eigvalsh(covariance).min() > -1e-8
    assert ((found >= 0) & (found <= fit.prior)).all()
    far = fit.uncertainty(np.full((1, 12), 1e6))
    assert far[0] == pytest.approx(fit.prior, rel=1e-12)


def test_of_many_points_come_the_gradients_of_each():
    fit, _ = GaussianProcess().fit(window_of(30, 5), np.full(5, 0.5))
    points = Key(1).uniform(0, 4, 5)
    many, values = fit.gradient(points), fit.value(points)
    for row, x in enumerate(points):
        np.testing.assert_allclose(many[row], fit.gradient(x), rtol=1e-9, atol=1e-9)
        assert values[row] == pytest.approx(fit.value(x), rel=1e-12)


def test_with_enough_points_the_gradient_is_that_of_the_function():
    x = np.full(10, 0.4)
    points = x + 0.05 * Key(0).normal(0, 60, 10)
    fit, _ = GaussianProcess(noise=1e-8).fit(Window.empty(10, 100).add(points, bowl(points)), x)
    wanted = 2 * (x - 0.3)
    wanted[0] += 3 * np.cos(3 * x[0])
    assert np.linalg.norm(fit.gradient(x) - wanted) < 0.1 * np.linalg.norm(wanted)


def test_far_from_the_origin_it_is_as_exact_as_near():
    near = window_of(60, 5)
    far = Window.empty(5, 100).add(near.points + 2.0**20, near.values)
    x = np.full(5, 0.5)
    process = GaussianProcess()
    one, other = process.fit(near, x)[0], process.fit(far, x + 2.0**20)[0]
    np.testing.assert_allclose(other.gradient(x + 2.0**20), one.gradient(x), rtol=1e-6)


def test_only_the_nearest_points_count():
    window, x = window_of(50, 3), np.full(3, 0.5)
    chosen = window.nearest(x, 20)
    fewer = Window.empty(3, 20).add(window.points[chosen], window.values[chosen])
    fit, _ = GaussianProcess(nearest=20).fit(window, x)
    assert len(fit) == 20
    np.testing.assert_allclose(fit.gradient(x), GaussianProcess().fit(fewer, x)[0].gradient(x), rtol=1e-9)


@pytest.mark.parametrize("name", KERNELS)
def test_the_length_is_the_likeliest_of_all_half_powers_of_two(name):
    window, x = window_of(40, 6), np.full(6, 0.5)
    fit, memory = GaussianProcess(kernel=name).fit(window, x)
    of = {
        step: GaussianProcess(kernel=name, length_scale=2 ** (step / 2)).fit(window, x)[0].likelihood
        for step in range(-8, 25)
    }
    assert memory.step == max(of, key=of.__getitem__)
    assert fit.length_scale == 2 ** (memory.step / 2)
    assert fit.likelihood == of[memory.step]
    assert (memory.fits, memory.points) == (1, 40)


def test_the_likelihood_is_that_of_a_normal_distribution():
    window = window_of(15, 3)
    fit, _ = GaussianProcess(length_scale=0.8, noise=0.01).fit(window, window.points[0])
    square = ((window.points[:, None] - window.points) ** 2).sum(2)
    matrix = kernel("matern").value(square, 0.8) + 0.01 * np.eye(15)
    target = (window.values - window.values.min()) / np.ptp(window.values)
    assert fit.likelihood == pytest.approx(log_density(target, matrix), rel=1e-10)


def test_a_mean_that_is_fitted_is_the_likeliest():
    window = window_of(15, 3)
    process = GaussianProcess(length_scale=0.8, noise=0.01, mean="fitted")
    fit, _ = process.fit(window, window.points[0])
    plain, _ = dataclasses.replace(process, mean="zero").fit(window, window.points[0])
    square = ((window.points[:, None] - window.points) ** 2).sum(2)
    matrix = kernel("matern").value(square, 0.8) + 0.01 * np.eye(15)
    design = np.linalg.solve(matrix, np.ones(15))
    mean = design @ window.values / design.sum()
    assert fit.value(np.full(3, 1e6)) == pytest.approx(mean, rel=1e-10)
    assert plain.value(np.full(3, 1e6)) == window.values.min()
    x = np.full(3, 0.4)
    delta = window.points - x
    slopes = kernel("matern").slope((delta**2).sum(1), 0.8)
    wanted = (slopes * np.linalg.solve(matrix, window.values - mean)) @ delta
    np.testing.assert_allclose(fit.gradient(x), wanted, rtol=1e-9)
    assert fit.likelihood > plain.likelihood
    np.testing.assert_array_equal(fit.uncertainty(x[None]), plain.uncertainty(x[None]))


@pytest.mark.parametrize("mean", MEANS)
def test_a_variance_that_is_fitted_is_the_likeliest(mean):
    window, x = window_of(15, 3), np.full(3, 0.4)
    process = GaussianProcess(length_scale=0.8, noise=0.01, mean=mean, variance="fitted")
    fit, plain = process.fit(window, x)[0], dataclasses.replace(process, variance="unit").fit(window, x)[0]
    square = ((window.points[:, None] - window.points) ** 2).sum(2)
    matrix = kernel("matern").value(square, 0.8) + 0.01 * np.eye(15)
    target = (window.values - window.values.min()) / np.ptp(window.values)
    if mean == "fitted":
        design = np.linalg.solve(matrix, np.ones(15))
        target = target - design @ target / design.sum()
    variance = target @ np.linalg.solve(matrix, target) / 15

    def likelihood(of):
        return log_density(target, of * matrix)

    assert fit.likelihood == pytest.approx(likelihood(variance), rel=1e-10)
    assert fit.likelihood > max(likelihood(1.01 * variance), likelihood(0.99 * variance), plain.likelihood)
    assert fit.scale == pytest.approx(np.ptp(window.values) * np.sqrt(variance), rel=1e-12)
    np.testing.assert_allclose(fit.gradient(x), plain.gradient(x), rtol=1e-12)
    np.testing.assert_allclose(fit.value(window.points), plain.value(window.points), rtol=1e-12)
    np.testing.assert_array_equal(fit.uncertainty(x[None]), plain.uncertainty(x[None]))


def test_noise_that_is_fitted_follows_that_of_the_values():
    points = Key(0).uniform(0, 80, 2)
    clean = points.sum(1)
    noisy = clean + 0.2 * Key(1).normal(0, 1, 80)[0]
    process = GaussianProcess(noise=None)
    quiet, _ = process.fit(Window.empty(2, 100).add(points, clean), points[0])
    loud, memory = process.fit(Window.empty(2, 100).add(points, noisy), points[0])
    assert quiet.noise <= 1e-6
    assert loud.noise == memory.noise == 1e-2
    assert np.abs(loud.gradient(np.full(2, 0.5)) - 1).max() < 0.5


def test_noise_of_few_points_is_not_fitted():
    points = Key(0).uniform(0, 20, 2)
    noisy = 3.0 * Key(1).normal(0, 20, 1)[:, 0]
    found = [
        GaussianProcess(noise=None).fit(Window.empty(2, 100).add(points[:n], noisy[:n]), points[0])[1].noise
        for n in (19, 20)
    ]
    assert found == [1e-6, 1e-2]


def trajectory(process, rounds, resumed=(), torch_points=False):
    """Return what comes of rounds of a search, of which some begin with what was written down."""
    dim = 6
    x = np.full(dim, 0.9)
    window, memory = Window.empty(dim, 90), Memory()
    if torch_points:
        x = torch.from_numpy(x)
        window = Window.empty(dim, 90, like=x)
    for turn in range(rounds):
        if turn in resumed:
            window, memory, x = thaw(*freeze((window, memory, x)))
        fit = None
        for step in range(4):
            shift = Key(5).normal(10 * (4 * turn + step), 10 * (4 * turn + step) + 10, dim, like=x)
            points = x + 0.05 * shift
            window = window.add(points, bowl(np.asarray(points)), x)
            fit, memory = process.fit(window, x, memory, fit)
            x = x - 0.01 * fit.gradient(x) + 1e-6 * fit.uncertainty(x[None])
    return window, memory, x


@pytest.mark.parametrize("torch_points", [False, True], ids=["numpy", "torch"])
@pytest.mark.parametrize("nearest", [60, 1000])
def test_a_search_resumed_without_factors_gives_the_same_bytes(nearest, torch_points):
    process = GaussianProcess(nearest=nearest, search_every=7, adjust_every=3, noise=None, mean="fitted")
    through = trajectory(process, 8, torch_points=torch_points)
    for resumed in ((3,), (2, 5, 6), range(8)):
        assert digest(trajectory(process, 8, resumed, torch_points)) == digest(through)


def test_a_fit_from_the_one_before_is_that_of_a_new_one():
    process = GaussianProcess(nearest=60, length_scale=1.0)
    window, x, fit, updates = window_of(60, 8), np.full(8, 0.5), None, 0
    for step in range(40):
        fit, _ = process.fit(window, x, None, fit)
        new, _ = process.fit(window, x)
        updates += bool((fit.gradient(x) != new.gradient(x)).any())  # they differ in the last digits
        np.testing.assert_allclose(fit.gradient(x), new.gradient(x), rtol=1e-6, atol=1e-8)
        np.testing.assert_allclose(fit.uncertainty(x[None]), new.uncertainty(x[None]), rtol=1e-8)
        assert fit.likelihood == pytest.approx(new.likelihood, rel=1e-9)
        points = x + 0.3 * Key(9).normal(3 * step, 3 * step + 3, 8)
        window = window.add(points, bowl(points), x)
    assert updates > 30


def test_the_fit_before_is_of_no_use_with_another_length_or_other_points():
    window, x = window_of(30, 4), np.full(4, 0.5)
    before, _ = GaussianProcess(length_scale=1.0).fit(window, x)
    other = window_of(30, 4, key=7)
    other = dataclasses.replace(other, serials=other.serials + 100)
    for process, points in (
        (GaussianProcess(length_scale=2.0), window),
        (GaussianProcess(length_scale=1.0, kernel="rbf"), window),
        (GaussianProcess(length_scale=1.0, noise=1e-4), window),
        (GaussianProcess(length_scale=1.0), other),
    ):
        found, _ = process.fit(points, x, None, before)
        np.testing.assert_array_equal(found.gradient(x), process.fit(points, x)[0].gradient(x))


GPU = pytest.param("cuda", marks=pytest.mark.gpu)


@pytest.mark.parametrize("device", ["cpu", GPU])
@pytest.mark.parametrize("how", ["plain", "fitted"])
@pytest.mark.parametrize("name", KERNELS)
def test_torch_finds_what_numpy_does(name, how, device):
    window, x = window_of(60, 20), np.full(20, 0.5)
    process = GaussianProcess(kernel=name)
    if how == "fitted":
        process = GaussianProcess(kernel=name, noise=None, mean="fitted", variance="fitted")
    one, memory = process.fit(window, x)
    other, same = process.fit(on_torch(window, device=device), torch.from_numpy(x).to(device))
    assert digest(memory) == digest(same)
    found = other.gradient(torch.from_numpy(x).to(device))
    assert (found.dtype, found.shape, found.device.type) == (torch.float64, (20,), device)
    np.testing.assert_allclose(found.cpu().numpy(), one.gradient(x), rtol=1e-6, atol=1e-8)
    points = Key(1).uniform(0, 5, 20)
    given = torch.from_numpy(points).to(device)
    np.testing.assert_allclose(other.value(given).cpu().numpy(), one.value(points), rtol=1e-8)
    np.testing.assert_allclose(other.uncertainty(given).cpu().numpy(), one.uncertainty(points), rtol=1e-7)


def test_single_precision_is_solved_in_double():
    window, x = window_of(60, 20), np.full(20, 0.5)
    rounded = window.points.astype(np.float32)
    single = Window.empty(20, 100, like=rounded).add(rounded, window.values)
    double = Window.empty(20, 100).add(rounded.astype(np.float64), window.values)
    wanted = GaussianProcess().fit(double, x)[0].gradient(x)
    found = GaussianProcess().fit(single, x.astype(np.float32))[0].gradient(x.astype(np.float32))
    tensor = torch.from_numpy(x).float()
    other = GaussianProcess().fit(on_torch(double, torch.float32), tensor)[0].gradient(tensor)
    assert (found.dtype, other.dtype) == (np.float32, torch.float32)
    np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(other.numpy(), wanted, rtol=1e-6, atol=1e-6)


def test_in_many_dimensions_the_points_are_worked_on_in_parts():
    # One and a half times as many numbers as a fit keeps a copy of.
    dim, count = 350_000, 9
    points = Key(0).uniform(0, count, dim)
    window = Window.empty(dim, 20).add(points, points.mean(1))
    process, x = GaussianProcess(length_scale=300.0), points[0]
    tracemalloc.start()
    try:
        fit, memory = process.fit(window, x)
        fit.gradient(x)
        assert tracemalloc.get_traced_memory()[1] < points.nbytes / 2
    finally:
        tracemalloc.stop()
    centred = points - x
    gram = centred @ centred.T
    square = np.diag(gram)[:, None] + np.diag(gram) - 2 * gram
    matrix = kernel("matern").value(square.clip(0), 300.0) + 1e-6 * np.eye(count)
    target = (window.values - window.values.min()) / np.ptp(window.values)
    weights = np.linalg.solve(matrix, target) * kernel("matern").slope(np.diag(gram).copy(), 300.0)
    wanted = np.ptp(window.values) * weights @ centred
    np.testing.assert_allclose(fit.gradient(x), wanted, rtol=1e-6, atol=1e-12)
    more, _ = process.fit(window.add(x[None] + 0.5, [1.0]), x, memory, fit)
    assert len(more) == 10


@pytest.mark.parametrize("given", [np.zeros((0, 3)), np.ones((1, 3))], ids=["none", "one"])
@pytest.mark.parametrize("kind", ["numpy", "torch"])
def test_of_no_point_and_of_one_nothing_is_known(given, kind):
    x = np.zeros(3)
    window = Window.empty(3, 10).add(given, np.full(len(given), 5.0))
    if kind == "torch":
        x, window = torch.from_numpy(x), on_torch(window)
    fit, memory = GaussianProcess().fit(window, x)
    assert digest(memory) == digest(Memory())
    assert fit.gradient(x).tolist() == [0.0, 0.0, 0.0]
    assert float(fit.value(x)) == 5.0 * len(given)
    assert 0 <= float(fit.uncertainty(x[None])[0]) <= fit.prior == 5.0
    grown, _ = GaussianProcess().fit(window.add(x[None] + 2, [1.0]), x, memory, fit)
    assert len(grown) == len(given) + 1


def test_equal_values_have_no_gradient_and_leave_the_length_as_it_was():
    window = window_of(20, 4, function=lambda points: np.full(len(points), 2.5))
    _, memory = GaussianProcess().fit(window_of(20, 4), np.zeros(4))
    fit, after = GaussianProcess().fit(window, np.zeros(4), memory)
    assert fit.gradient(np.zeros(4)).tolist() == [0.0] * 4
    assert fit.value(np.zeros(4)) == 2.5
    assert fit.length_scale == 2 ** (memory.step / 2)
    assert digest(after) == digest(memory)


def test_in_one_dimension():
    points = np.linspace(0, 1, 15)[:, None]
    fit, _ = GaussianProcess().fit(Window.empty(1, 20).add(points, points[:, 0] ** 3), np.array([0.5]))
    assert fit.gradient(np.array([0.5])) == pytest.approx([0.75], rel=1e-2)


@pytest.mark.parametrize("kind", ["numpy", "torch"])
def test_points_that_all_but_coincide_get_more_noise(kind):
    line = np.repeat(np.linspace(0, 1, 10), 4)[:, None] + np.tile([0, 1e-13, 2e-13, 3e-13], 10)[:, None]
    window, x = Window.empty(1, 40).add(line, line[:, 0]), np.array([0.5])
    if kind == "torch":
        window, x = on_torch(window), torch.from_numpy(x)
    for length in (1.0, None):
        fit, _ = GaussianProcess(noise=0.0, length_scale=length).fit(window, x)
        assert len(fit) == 40
        assert fit.noise >= 1e-6
        assert float(fit.gradient(x)[0]) == pytest.approx(1.0, rel=1e-3)


def test_values_whose_range_no_number_holds_have_no_gradient():
    window = window_of(10, 2, function=lambda points: 1.7e308 * np.sign(points[:, 0] - 0.5))
    fit, _ = GaussianProcess().fit(window, np.zeros(2))
    assert fit.gradient(np.zeros(2)).tolist() == [0.0, 0.0]


@pytest.mark.parametrize("size", [2.0**200, 2.0**1015, 2.0**-200, 2.0**-950])
def test_values_of_any_size_are_scaled(size):
    window, x = window_of(40, 6), np.full(6, 0.5)
    other = Window.empty(6, 100).add(window.points, window.values * size)
    wanted = GaussianProcess().fit(window, x)[0].gradient(x)
    np.testing.assert_array_equal(GaussianProcess().fit(other, x)[0].gradient(x), wanted * size)


def test_a_gradient_that_single_precision_has_no_room_for_is_infinite():
    window, x = window_of(40, 6), np.full(6, 0.5)
    huge = Window.empty(6, 100).add(window.points, window.values * 1e60)
    assert np.isinf(GaussianProcess().fit(huge, x)[0].gradient(x.astype(np.float32))).any()


def test_lengths_of_all_sizes_are_compared_when_it_is_time():
    process, x = GaussianProcess(nearest=200, search_every=4, adjust_every=2), np.full(3, 0.5)
    memory, seen = Memory(), []
    for _ in range(6):
        _, memory = process.fit(window_of(120, 3), x, memory)
        seen.append(memory.fits)
    assert seen == [1, 2, 3, 4, 1, 2]
    _, grown = process.fit(window_of(180, 3), x, memory)
    assert (grown.fits, grown.points) == (1, 180)
    lost = dataclasses.replace(memory, step=memory.step - 3, fits=2)
    _, found = process.fit(window_of(120, 3), x, lost)
    assert found.step == lost.step + 1  # one step at a time between
    _, found = process.fit(window_of(120, 3), x, dataclasses.replace(lost, fits=3))
    assert found.step == lost.step  # and none when it is not due


@pytest.mark.parametrize(
    ("arguments", "error", "sentence"),
    [
        ({"kernel": "materm"}, ValueError, "Did you mean 'matern'"),
        ({"mean": "fit"}, ValueError, "`mean` must be one of .* Did you mean 'fitted'"),
        ({"variance": "one"}, ValueError, "`variance` must be one of"),
        ({"noise": -1.0}, ValueError, "`noise` must be a finite number of at least 0, got -1.0"),
        ({"noise": "no"}, TypeError, "`noise` must be a number"),
        ({"nearest": 0}, ValueError, "`nearest` must be at least 1, got 0"),
        ({"length_scale": 0.0}, ValueError, "`length_scale` must be a finite number above 0"),
        ({"search_every": 2.5}, TypeError, "`search_every` must be an integer"),
    ],
    ids=["kernel", "mean", "variance", "noise", "text", "nearest", "length", "every"],
)
def test_bad_arguments_are_refused(arguments, error, sentence):
    with pytest.raises(error, match=sentence):
        GaussianProcess(**arguments)
