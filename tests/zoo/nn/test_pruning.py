"""ZO-GraSP against scores from autograd."""

from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import nn

from zoo.core.objective import as_objective
from zoo.core.rng import Key
from zoo.core.types import Evaluations
from zoo.nn.batches import Batches
from zoo.nn.losses import cross_entropy
from zoo.nn.masks import Layers, Masks
from zoo.nn.models.mlp import mlp
from zoo.nn.network_loss import NetworkLoss
from zoo.nn.pruning import Grasp, correlation, prune, zo_grasp


class Problem(NamedTuple):
    """The loss of a network with 181 parameters, those, and their exact scores."""

    objective: NetworkLoss
    x: torch.Tensor
    exact: torch.Tensor


@pytest.fixture(scope="module")
def problem():
    model = mlp((16, 8, 5), key=Key(1), activation=nn.Tanh).double()
    inputs = torch.from_numpy(Key(9).normal(0, 128, 16))
    targets = inputs[:, :5].argmax(1)
    parameters = list(model.parameters())
    loss = cross_entropy(model(inputs), targets).mean()
    flat = torch.cat([g.reshape(-1) for g in torch.autograd.grad(loss, parameters, create_graph=True)])
    products = torch.autograd.grad((flat * flat.detach()).sum(), parameters)
    objective = NetworkLoss(model, cross_entropy, Batches(inputs, targets, 128, key=Key(2)))
    x = objective.parameters.flat()
    return Problem(objective, x, -x * torch.cat([product.reshape(-1) for product in products]))


def test_shared_directions_tell_the_scores(problem):
    objective, x, exact = problem
    assert len(x) == 181
    found = zo_grasp(objective, x, Grasp(2000), key=Key(0))
    assert correlation(found.scores, exact) > 0.9
    assert found.queries == 2 * 2001


def test_other_directions_for_the_second_estimate_tell_nothing(problem):
    """What the published code does: the difference of two estimates is then their noise, divided by h."""
    objective, x, exact = problem
    grasp, first = Grasp(2000), None
    estimates = []
    for key in (Key(10), Key(11)):
        candidates = grasp.ask(x, first, key)
        reply = objective.evaluate_units(candidates, objective.units(candidates), key=Key(0), step=0)
        first, valid = grasp.estimate(x, first, Evaluations(reply.values), key)
        assert valid == 2000
        estimates.append(first)
    assert abs(correlation(grasp.scores(x, *estimates), exact)) < 0.4


def test_coordinates_tell_the_scores_but_for_differences(problem):
    objective, x, exact = problem
    found = zo_grasp(objective, x, Grasp(None, smoothing=1e-4), key=Key(0))
    assert correlation(found.scores, exact) > 0.999
    assert torch.allclose(found.scores, exact, rtol=0.01, atol=1e-3 * float(exact.abs().max()))
    assert found.queries == 2 * (len(x) + 1)


def test_layers_lose_what_the_ranks_of_all_say():
    layers = Layers(("a", "b", "c"), (0, 4, 9), (3, 9, 13), 14)
    scores = np.array([9.0, -8.0, 1.0, 99.0, 0.5, 0.4, -0.3, 0.2, 7.0, 3.0, -2.0, 2.5, 0.1, 99.0])
    # The six largest in magnitude of twelve, whatever the parameters between layers score.
    assert prune(scores, layers, 0.5, "magnitude", Key(0)).kept == (2, 1, 3)
    # The six lowest.
    assert prune(scores, layers, 0.5, "largest", Key(0)).kept == (1, 3, 2)
    for sparsity in (0.0, 0.25, 0.9):
        assert sum(prune(scores, layers, sparsity, "magnitude", Key(0)).kept) == round((1 - sparsity) * 12)
    with pytest.raises(ValueError, match="this excludes everything"):
        prune(scores, layers, 0.99, "magnitude", Key(0))


def test_equal_scores_are_shared_out_at_random():
    layers = Layers(("a", "b"), (0, 500), (500, 1000), 1000)
    kept = prune(np.zeros(1000), layers, 0.8, "magnitude", Key(0)).kept
    assert sum(kept) == 200
    assert all(70 <= count <= 130 for count in kept)  # four deviations of 6.4 about 100


def test_a_network_keeps_the_sparsity_and_its_layers_differ(problem):
    objective, _, exact = problem
    layers = Layers.of(objective.network())
    masks = prune(exact, layers, 0.8, "magnitude", Key(0))
    assert sum(masks.kept) == round(0.2 * layers.num_weights)
    assert masks.kept != Masks.uniform(layers, 0.8).kept


@pytest.mark.parametrize(
    ("make", "error", "says"),
    [
        (lambda: Grasp(0), ValueError, "`num_directions` must be at least 1, got 0"),
        (lambda: Grasp(smoothing=0.0), ValueError, "`smoothing` must be a finite number above 0"),
        (lambda: Grasp(rule="magnitudes"), ValueError, "`rule` must be one of .* Did you mean 'magnitude'"),
        (
            lambda: prune(np.array([1.0, np.nan]), Layers.whole(2), 0.5, "largest", Key(0)),
            ValueError,
            "`scores` must be finite, got 1 that are not",
        ),
        (
            lambda: zo_grasp(as_objective(lambda x: np.nan), np.ones(3), Grasp(2), key=Key(0)),
            ValueError,
            "`objective` must have finite values near `x`, got none",
        ),
    ],
)
def test_bad_input(make, error, says):
    with pytest.raises(error, match=says):
        make()
