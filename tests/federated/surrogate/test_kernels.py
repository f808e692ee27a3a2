"""Kernels and what their derivatives need."""

import numpy as np
import pytest
import torch

from federated.surrogate.kernels import KERNELS, kernel
from zoo.core.rng import Key


def matern(square, length):
    u = (5 * square).sqrt() / length
    return (1 + u + u**2 / 3) * torch.exp(-u)


def rbf(square, length):
    return torch.exp(-square / (2 * length**2))


PLAIN = {"matern": matern, "rbf": rbf}


@pytest.mark.parametrize("name", KERNELS)
def test_slope_and_curvature_are_those_of_autograd(name):
    chosen, length = kernel(name), 0.7
    x, other = (torch.from_numpy(row).requires_grad_() for row in Key(0).normal(0, 2, 5))
    value = PLAIN[name](((x - other) ** 2).sum(), length)
    (first,) = torch.autograd.grad(value, x, create_graph=True)
    second = torch.stack([torch.autograd.grad(part, other, retain_graph=True)[0] for part in first])
    delta = (x - other).detach().numpy()
    square = np.array([delta @ delta])
    assert chosen.value(square, length)[0] == pytest.approx(float(value.detach()), rel=1e-14)
    c, h = chosen.slope(square, length)[0], chosen.curvature(square, length)[0]
    np.testing.assert_allclose(first.detach().numpy(), -c * delta, rtol=1e-13, atol=0)
    np.testing.assert_allclose(
        second.numpy(), c * np.eye(5) - h * np.outer(delta, delta), rtol=1e-12, atol=1e-13
    )


@pytest.mark.parametrize("name", KERNELS)
def test_at_distance_nought_a_kernel_is_1_and_its_slope_the_prior(name):
    nought = np.zeros(1)
    assert kernel(name).value(nought, 0.3) == 1.0
    assert kernel(name).slope(nought, 0.3) == pytest.approx(kernel(name).prior(0.3), rel=1e-15)


def test_what_a_kernel_is_given_stays_as_it_is():
    given = np.array([[0.0, 2.0], [2.0, 0.0]])
    for name in KERNELS:
        for function in (kernel(name).value, kernel(name).slope, kernel(name).curvature):
            function(given, 1.0)
    assert given.tolist() == [[0.0, 2.0], [2.0, 0.0]]


def test_an_unknown_kernel_is_refused():
    with pytest.raises(ValueError, match=r"`kernel` must be one of .* Did you mean 'matern'\?"):
        kernel("Matern")
