"""Training as a run: how good it becomes, what it counts, says and refuses."""

import json
import math
import os
import signal
import threading
import warnings

import numpy as np
import pytest
import torch
from torch import nn

import zoo
from zoo.core.errors import EvaluationError, RunDirectoryError, ZooWarning
from zoo.core.rng import Key
from zoo.estimators.finite_difference import FiniteDifference
from zoo.methods.descent import Descent
from zoo.nn.batches import Batches
from zoo.nn.deepzero import DeepZero
from zoo.nn.evaluate import accuracy
from zoo.nn.initialize import initialized
from zoo.nn.losses import cross_entropy, squared_error
from zoo.nn.models.mlp import mlp
from zoo.nn.pruning import Grasp
from zoo.nn.training import train
from zoo.report.single import write_report
from zoo.run.digest import digest_of_run
from zoo.updates.momentum import Momentum


def generated(noise=1.2):
    """Return ten classes about centres in 64 dimensions, half of them folded by a sine, 2000 to train on."""
    key = Key(0)
    centres = key.fold("centres").normal(0, 10, 64)

    def part(name):
        labels = key.fold(name, "labels").integers(0, 1, 2000, high=10)[0]
        inputs = centres[labels] + noise * key.fold(name, "noise").normal(0, 2000, 64)
        inputs[:, 32:] = np.sin(2 * inputs[:, 32:])
        return torch.from_numpy(inputs).float(), torch.from_numpy(labels)

    return part("train"), part("test")


def network():
    return mlp((64, 5, 10), key=Key(0), activation=nn.Tanh)


def first_order(data, test, steps, learning_rate):
    """Return the accuracy after training by backpropagation, all else being the same."""
    model = network()
    schedule = DeepZero(steps=steps, learning_rate=learning_rate).schedule
    batches = Batches(*data, 128, key=Key(0).fold("batches"))
    optimizer = torch.optim.SGD(model.parameters(), lr=learning_rate, momentum=0.9, weight_decay=5e-4)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = schedule.value(step)
        inputs, targets = batches.at(step)
        optimizer.zero_grad()
        cross_entropy(model(inputs), targets).mean().backward()
        optimizer.step()
    return accuracy(model, *test)


def test_coordinate_wise_it_does_as_well_as_backpropagation():
    data, test = generated()
    steps = 25
    method = DeepZero(sparsity=0.0, learning_rate=0.2)
    done = train(network(), cross_entropy, data, batch_size=128, steps=steps, test=test, method=method, rng=0)
    exact = first_order(data, test, steps, 0.2)
    assert abs(done.test - exact) <= 0.02
    assert exact > 0.5
    assert done.queries == steps * (385 + 1)


def test_a_tenth_of_the_coordinates_learns():
    data, test = generated()
    options = {"sparsity": 0.9, "learning_rate": 0.3, "pruning": Grasp(64)}
    done = train(network(), cross_entropy, data, batch_size=128, steps=150, test=test, options=options, rng=0)
    assert done.test >= 0.1 + 0.2
    active = round(0.1 * (64 * 5 + 5 * 10)) + 15
    assert done.queries == 2 * 65 + 150 * (active + 1)
    assert done.history["queries"][-1] == done.queries


def examples(n=40):
    inputs = torch.from_numpy(Key(1).normal(0, n, 6)).float()
    return inputs, inputs[:, :3].argmax(1)


def small(norm=False):
    def build():
        normalised = [nn.BatchNorm1d(8)] if norm else []
        return nn.Sequential(nn.Linear(6, 8), *normalised, nn.Tanh(), nn.Linear(8, 3))

    return initialized(build, Key(0))


SMALL = DeepZero(sparsity=0.5, learning_rate=0.3, pruning=Grasp(8))


def test_what_comes_of_it_is_in_the_model_and_the_history():
    model, told = small(), []
    done = train(
        model,
        cross_entropy,
        examples(),
        batch_size=10,
        epochs=2,
        method=SMALL,
        test=examples(),
        callback=told.append,
        rng=0,
    )
    assert done.model is model
    assert torch.equal(torch.cat([p.detach().reshape(-1) for p in model.parameters()]), done.x)
    assert done.steps == 8
    assert done.test == accuracy(model, *examples())
    assert done.history["step"].tolist() == [0, 0, 1, 2, 3, 4, 5, 6, 7, 8]
    assert done.history["queries"].tolist()[:3] == [9, 18, 18 + 36 + 11 + 1]  # half of 72 weights, 11 biases
    assert np.isfinite(done.history["test"]).tolist() == [*[False] * 5, True, *[False] * 3, True]
    assert done.history["test"][-1] == done.test
    assert [one.step for one in told] == done.history["step"].tolist()
    assert told[-1].loss == done.loss == done.history["loss"][-1]
    assert torch.equal(told[-1].x, done.x)
    assert (done.message, done.success) == ("all 8 steps are done", True)


def test_the_same_seed_has_the_same_bytes_and_another_has_others():
    runs = [
        train(small(), cross_entropy, examples(), steps=3, method=SMALL, rng=rng).x.numpy().tobytes()
        for rng in (0, 0, 1)
    ]
    assert runs[0] == runs[1] != runs[2]


def drawn():
    """Return a network that is drawn from the global generators, and begins with a layer that stays so."""
    model = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3))
    model[0].requires_grad_(False)
    return model


def test_a_network_that_a_function_draws_is_the_same_in_every_process():
    arguments = {"batch_size": 10, "steps": 2, "method": DeepZero(sparsity=0.0)}
    runs = [
        train(f"{__name__}:drawn()", cross_entropy, examples(), rng=rng, workers=workers, **arguments)
        for rng, workers in ((0, 1), (0, 2), (1, 1))
    ]
    assert runs[0].history["loss"].tolist() == runs[1].history["loss"].tolist()
    assert torch.equal(runs[0].x, runs[1].x)
    assert torch.equal(runs[0].model[0].weight, runs[1].model[0].weight)
    assert not torch.equal(runs[0].model[0].weight, runs[2].model[0].weight)


def test_another_mode_is_another_training(tmp_path):
    arguments = {"steps": 2, "batch_size": 10, "method": SMALL, "rng": 0, "out": tmp_path / "run"}
    train(small(norm=True), cross_entropy, examples(), **arguments)
    with pytest.raises(RunDirectoryError, match="with other modules in training mode"):
        train(small(norm=True).eval(), cross_entropy, examples(), **arguments)


def test_running_statistics_are_those_of_the_trained_network():
    model = small(norm=True)
    done = train(
        model, cross_entropy, examples(), batch_size=20, steps=4, method=SMALL, test=examples(), rng=0
    )
    inputs = examples()[0]
    hidden = model[0](inputs)  # two batches hold all examples
    assert torch.allclose(model[1].running_mean, hidden.mean(0), atol=1e-5)
    assert torch.allclose(model[1].running_var, hidden.var(0), rtol=0.05)
    assert done.test == accuracy(model, *examples())
    assert model.training


@pytest.mark.parametrize("batch_size", [20, 1])
def test_running_statistics_that_were_trained_with_stay(batch_size):
    model = small(norm=True)
    model(examples()[0] + 3)
    model.eval()
    kept = {name: buffer.clone() for name, buffer in model.named_buffers()}
    options = {"sparsity": 0.0, "learning_rate": 1e-9}
    done = train(
        model,
        cross_entropy,
        examples(),
        batch_size=batch_size,
        steps=2,
        options=options,
        rng=0,
        test=examples(),
    )
    assert all(torch.equal(buffer, kept[name]) for name, buffer in model.named_buffers())
    assert done.test == accuracy(model, *examples())


def test_random_vectors_and_any_method_train_it_too():
    estimator = FiniteDifference("rademacher", 10, smoothing=1e-3, stencil="central")
    method = Descent(estimator, update=Momentum(0.5), learning_rate=0.05)
    done = train(small(), cross_entropy, examples(), steps=30, method=method, rng=0)
    assert done.queries == 30 * 20
    assert done.history["loss"][-5:].mean() < done.history["loss"][:5].mean() - 0.1
    named = train(
        small(), cross_entropy, examples(), method="sep-cma", options={"sigma": 0.1}, budget=300, rng=0
    )
    assert named.queries <= 300
    assert "budget" in named.message


def test_any_measure_of_the_network_is_a_test():
    seen = []

    def largest(model):
        seen.append(model.training)
        return max(float(parameter.abs().max()) for parameter in model.parameters())

    done = train(small(), cross_entropy, examples(), steps=6, method=SMALL, test=largest, test_every=2, rng=0)
    assert done.test == float(done.x.abs().max()) == done.history["test"][-1]
    assert seen == [False] * 5  # once before the first step
    assert np.isfinite(done.history["test"]).sum() == 3


def test_a_run_is_kept_reported_and_has_a_digest(tmp_path):
    out = tmp_path / "run"
    done = train(
        small(),
        cross_entropy,
        examples(),
        batch_size=10,
        steps=6,
        method=SMALL,
        test=examples(),
        rng=0,
        out=out,
    )
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [line["nfev"] for line in lines] == done.history["queries"].tolist()
    assert [line["loss"] for line in lines] == done.history["loss"].tolist()
    assert lines[-1]["test"] == done.test
    assert all(line["best"] <= line["value"] <= line["loss"] for line in lines)
    assert lines[-1]["learning_rate"] == pytest.approx(SMALL.learning_rate * 0.0955, rel=1e-2)
    assert len(lines[-1]["density"]) == 2
    found = digest_of_run(out)
    assert found.counters == {"nit": 8, "nfev": done.queries, "num_failed": 0}
    page, *pictures = write_report(out)
    text = page.read_text()
    assert "cross_entropy of Sequential" in text
    assert "deepzero" in text
    assert "Loss of the last step" in text
    assert {"value_evaluations.png", "diagnostic_test.png"} <= {picture.name for picture in pictures}
    with pytest.raises(
        RunDirectoryError, match=r"holds the training of a network: call zoo\.nn\.train again"
    ):
        zoo.resume(out)


def test_without_a_seed_it_goes_on_with_the_one_it_began_with(tmp_path):
    def interrupt(step):
        if step.step == 2:
            os.kill(os.getpid(), signal.SIGINT)

    arguments = {"steps": 5, "batch_size": 10, "method": SMALL, "out": tmp_path / "run"}
    with pytest.raises(zoo.Interrupted, match=r"stopped by Ctrl-C; train\(\.\.\., out=.*goes on") as caught:
        train(small, cross_entropy, examples(), callback=interrupt, **arguments)
    assert caught.value.result.steps == 2
    assert not caught.value.result.success
    done = train(small, cross_entropy, examples(), **arguments)
    key = Key.parse(json.loads((tmp_path / "run" / "config.json").read_text())["key"])
    whole = train(small(), cross_entropy, examples(), rng=key, **{**arguments, "out": None})
    assert torch.equal(done.x, whole.x)
    flat = torch.cat([parameter.detach().reshape(-1) for parameter in done.model.parameters()])
    assert torch.equal(flat, done.x)  # of the network that the function made


def test_what_cannot_be_sent_leaves_no_directory(tmp_path):
    lock = threading.Lock()

    def loss(outputs, targets):
        with lock:
            return cross_entropy(outputs, targets)

    with pytest.raises(TypeError, match="cannot be sent to workers"):
        train(small(), loss, examples(), steps=2, workers=2, method=SMALL, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_progress_can_be_watched():
    class Steps(zoo.Watcher):
        def __init__(self):
            self.seen = []

        def begin(self, run):
            self.seen.append(run.config["method"])

        def step(self, state, metrics):
            self.seen.append(metrics["nfev"])

    watcher = Steps()
    done = train(small(), cross_entropy, examples(), steps=2, method=SMALL, callback=[watcher], rng=0)
    assert watcher.seen == ["deepzero", *done.history["queries"].tolist()]


class Fails(nn.Module):
    """Raises, or returns what is no number, once a weight is above a limit."""

    def __init__(self, how):
        super().__init__()
        self.how, self.weight = how, nn.Parameter(torch.zeros(1))

    def forward(self, x):
        if float(self.weight.detach()) <= 0:
            return x + self.weight
        if self.how == "raise":
            raise RuntimeError("a weight is positive")
        return x * math.nan


@pytest.mark.parametrize("how", ["raise", "nan"])
def test_failed_evaluations_drop_their_coordinate(how):
    model = initialized(lambda: nn.Sequential(nn.Linear(6, 3)), Key(0)).append(Fails(how))
    method = DeepZero(sparsity=0.0, weight_decay=0.0)
    done = train(model, cross_entropy, examples(), steps=3, method=method, on_error="nan", rng=0)
    assert done.success
    assert done.num_failed >= 3
    assert float(model[1].weight.detach()) == 0.0  # its difference is never known
    assert done.history["loss"][-1] < done.history["loss"][0]


def test_an_exception_ends_the_run_and_says_what_there_is():
    model = initialized(lambda: nn.Sequential(nn.Linear(6, 3)), Key(0)).append(Fails("raise"))
    with pytest.raises(EvaluationError, match="a weight is positive") as caught:
        train(model, cross_entropy, examples(), steps=3, method=DeepZero(sparsity=0.0), rng=0)
    assert caught.value.result.steps == 0
    assert not caught.value.result.success


def test_a_test_is_tried_before_the_first_step():
    told, data = [], examples()
    for test in ((data[0][:, :3], data[1]), lambda model: model(data[0][:, :3])):
        with pytest.raises(RuntimeError, match="shapes"):
            train(small(), cross_entropy, data, steps=2, method=SMALL, test=test, callback=told.append, rng=0)
    assert not told


class Unsteady:
    """A test of a network that raises after some calls."""

    def __init__(self, calls):
        self._calls = calls

    def __call__(self, model):
        self._calls -= 1
        if self._calls < 0:
            raise OSError("no space left")
        return 1.0


@pytest.mark.parametrize(("calls", "steps"), [(2, 3), (4, 6)])
def test_what_came_of_it_outlives_a_test_that_raises(tmp_path, calls, steps):
    arguments = {"steps": 6, "batch_size": 10, "method": SMALL, "rng": 0, "test_every": 2}
    whole = train(small(), cross_entropy, examples(), **arguments)
    model, out = small(), tmp_path / "run"
    with pytest.raises(EvaluationError, match="`test` raised OSError: no space left") as caught:
        train(model, cross_entropy, examples(), test=Unsteady(calls), out=out, **arguments)
    result = caught.value.result
    assert (result.steps, result.success) == (steps, False)
    assert torch.equal(torch.cat([p.detach().reshape(-1) for p in model.parameters()]), result.x)
    done = train(small(), cross_entropy, examples(), test=Unsteady(99), out=out, **arguments)
    assert (done.success, done.test) == (True, 1.0)
    assert torch.equal(done.x, whole.x)


def test_what_came_of_it_outlives_statistics_that_cannot_be_found():
    inputs, targets = examples(21)
    batches = Batches(inputs, targets, 20, key=Key(0), drop_last=False)  # one is left over
    model = small(norm=True)
    with pytest.raises(EvaluationError, match="running statistics cannot be found out, ValueError") as caught:
        train(model, cross_entropy, batches, steps=1, method=SMALL, rng=0)
    result = caught.value.result
    assert (result.steps, result.success) == (1, False)
    assert torch.equal(torch.cat([p.detach().reshape(-1) for p in model.parameters()]), result.x)


@pytest.mark.parametrize(
    "given",
    [
        {"method": DeepZero(sparsity=0.0, steps=3)},
        {"method": "deepzero", "options": {"sparsity": 0.0, "steps": 3}},
    ],
)
def test_a_method_that_ends_by_itself_needs_no_number_of_steps(given):
    done = train(small(), cross_entropy, examples(), rng=0, **given)
    assert (done.steps, done.message) == (3, "all 3 steps are done")


def test_a_loss_that_stays_no_number_ends_it():
    def loss(outputs, targets):
        return cross_entropy(outputs, targets) + torch.where(
            targets.shape[0] > torch.tensor(2), math.nan, 0.0
        )

    done = train(small(), loss, examples(), steps=50, method=SMALL, rng=0)
    assert (done.steps, done.success) == (10, False)
    assert done.message == "the loss was no number in 10 steps in a row"
    assert math.isnan(done.loss)


def coordinates(smoothing):
    return DeepZero(sparsity=0.0, smoothing=smoothing)


def vectors(smoothing):
    return Descent(FiniteDifference("rademacher", 4, smoothing), learning_rate=0.01)


@pytest.mark.parametrize(
    ("method", "dtype", "smoothing", "advice"),
    [
        (coordinates, torch.float32, 1e-5, "take about 0.005"),
        (coordinates, torch.float64, 1e-14, "take about 2e-07"),
        (vectors, torch.bfloat16, 1e-3, "take about 0.02"),
    ],
)
def test_smoothing_lost_to_rounding_is_warned_of(method, dtype, smoothing, advice):
    model, (inputs, targets) = small().to(dtype), examples()
    method = method(smoothing)
    with pytest.warns(ZooWarning, match=f"`smoothing` is {smoothing:.3g}.* lost to the rounding.*{advice}"):
        train(model, cross_entropy, (inputs.to(dtype), targets), steps=1, method=method, rng=0)


@pytest.mark.parametrize(
    ("method", "dtype", "smoothing"),
    [
        (coordinates, torch.float32, 5e-3),
        (coordinates, torch.float64, 1e-6),
        (vectors, torch.float32, 1e-3),
        (vectors, torch.bfloat16, 0.05),
    ],
)
def test_smoothing_that_is_right_is_not(method, dtype, smoothing):
    model, (inputs, targets) = small().to(dtype), examples()
    with warnings.catch_warnings(action="error"):
        data = inputs.to(dtype), targets
        done = train(model, cross_entropy, data, steps=2, method=method(smoothing), rng=0)
    assert done.success
    assert all(parameter.dtype == dtype for parameter in model.parameters())


def test_half_precision_has_no_single_coordinates():
    model, (inputs, targets) = small().to(torch.bfloat16), examples()
    with pytest.raises(ValueError, match="`model` must be of single or double precision where single"):
        train(model, cross_entropy, (inputs.bfloat16(), targets), steps=1, method=SMALL, rng=0)


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        ({"steps": None}, ValueError, "`steps`, `epochs` or `budget` must be given"),
        ({"epochs": 3}, ValueError, "`epochs` and `steps` must not both be given, got 3 and 2"),
        ({"steps": 0}, ValueError, "`steps` must be at least 1"),
        ({"data": examples()[0]}, TypeError, r"`data` must be \(inputs, targets\) or have a method"),
        (
            {"data": Batches(*examples(), 10, key=Key(0)), "batch_size": 10},
            ValueError,
            "`batch_size` and `augment` must be left out",
        ),
        ({"batch_size": 100}, ValueError, "`batch_size` must be at most 40"),
        ({"method": "deepzer"}, ValueError, "deepzer"),
        ({"method": DeepZero}, TypeError, "is a class: call it"),
        ({"method": 3}, TypeError, "`method` must be a name or a method"),
        (
            {"method": SMALL, "options": {}},
            ValueError,
            "`options` must be left out where `method` is no name",
        ),
        ({"options": {"sparsity": 1.5}}, ValueError, "`sparsity` must be at least 0 and below 1, got 1.5"),
        ({"options": {"sparsity": 0.999}}, ValueError, "this excludes everything"),
        ({"batch_size": 0}, ValueError, "`batch_size` must be at least 1, got 0"),
        (
            {"test": (examples()[0], examples()[1][:3])},
            ValueError,
            r"`test\[1\]` must be as many as `test\[0\]`, 40, got 3",
        ),
        ({"test": (examples()[0].numpy(), examples()[1])}, TypeError, r"`test\[0\]` must be a tensor"),
        ({"test": lambda model: None}, TypeError, "`test` must return a number, got None"),
        ({"test": 3}, TypeError, r"`test` must be \(inputs, labels\) or a function"),
        ({"test_every": 0}, ValueError, "`test_every` must be at least 1"),
        ({"callback": 3}, TypeError, "`callback` must be a function"),
        ({"on_error": "ignore"}, ValueError, "`on_error` must be one of 'raise', 'nan'"),
        ({"seconds": -1}, ValueError, "`seconds` must be a finite number above 0"),
        ({"loss": nn.functional.cross_entropy}, ValueError, "one number for each example"),
        ({"loss": squared_error}, (ValueError, RuntimeError), "must match|per example|each example"),
        ({"workers": 0}, ValueError, "`workers` must be at least 1"),
        ({"rng": -1}, ValueError, "`rng` must be at least 0"),
    ],
)
def test_bad_input(change, error, says):
    given = {"data": examples(), "loss": cross_entropy, "steps": 2, **change}
    loss, data = given.pop("loss"), given.pop("data")
    with pytest.raises(error, match=says):
        train(small(), loss, data, **given)
