"""FedZO: local steps along differences of values."""

from __future__ import annotations

from dataclasses import dataclass

from federated.algorithms.local_descent import Averaging, DescentClient, DescentServer, ZerothOrder


@dataclass(frozen=True)
class FedZO(ZerothOrder[DescentServer, DescentClient], Averaging):
    """Local steps along differences of values, and the mean of where they end; nothing is corrected.

        g_i(x) = dim / q sum_j (f_i(x + mu u_j) - f_i(x)) / mu u_j,    u_j perpendicular, of length 1
        x_i <- x_i - learning_rate update(g_i(x_i)),                   num_steps times, from x_r on
        x_(r+1) = x_r + server_rate (mean_i x_i - x_r)

    `FedZO(update="sgd", directions="sphere")` is the form of Fang et al., with every u_j uniform on the
    sphere by itself. Where f_i is noisy, values of one estimate have the same noise, as theirs of one sample.

    A client asks for T (q + 1) values a round, sends dim numbers, and is sent dim.

    All arguments are those of `ZerothOrder`.

    Example:
        >>> FedZO(num_steps=10, num_directions=20).most_queries(300, True)
        210

    References:
        Fang, Yu, Jiang, Shi, Jones and Zhou, "Communication-efficient stochastic zeroth-order optimization
        for federated learning", 2022. https://arxiv.org/abs/2201.09531
        The form with Adam and perpendicular directions: Shu, Lin, Dai and Low, "Federated zeroth-order
        optimization using trajectory-informed surrogate gradients", 2023. https://arxiv.org/abs/2308.04077
    """
