"""Test functions with a dial for how much clients differ."""

from __future__ import annotations

import abc
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from federated.partition import dirichlet
from federated.task import Task
from zoo.core.bounds import Bounds
from zoo.core.device import Array, Like, array_module, is_torch
from zoo.core.fingerprint import describe
from zoo.core.rng import Key
from zoo.core.validation import check_count, check_number
from zoo.problems.synthetic import ackley, levy

_WIDTH, _CENTRE = 20.0, 10.0  # u = 20 x - 10 for x in [0, 1]
_ELEMENTS = 2**18  # of points that are evaluated at a time, so that intermediate results stay in the cache


class Synthetic(Task):
    """A function f(u; a_i, b_i) on every client i, with u = 20 clip(x, 0, 1) - 10.

    What a client has of the whole is drawn for each coordinate by itself,

        p_j, q_j ~ Dirichlet(1 / N, ..., 1 / N),

    and its deviations are C (p_ij - 1 / N) and C (q_ij - 1 / N), with the mean 0 over the clients.

    Args:
        dim: Length of x.
        num_clients: N.
        heterogeneity: C, at least 0; 0 for clients that have all the same function.
        sigma: Standard deviation of the normal noise on every answer, at least 0.
        key: Where the deviations come from; Key(0) by default.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: An argument is outside its range.

    References:
        Shu, Lin, Dai and Low, "Federated zeroth-order optimization using trajectory-informed surrogate
        gradients", 2023. https://arxiv.org/abs/2308.04077
    """

    joint = True

    def __init__(
        self,
        dim: int = 300,
        num_clients: int = 5,
        *,
        heterogeneity: float = 0.5,
        sigma: float = 0.0,
        key: Key | None = None,
    ) -> None:
        self.dim = check_count("dim", dim)
        self.num_clients = check_count("num_clients", num_clients)
        for name, value in (("heterogeneity", heterogeneity), ("sigma", sigma)):
            if not 0 <= check_number(name, value) < math.inf:
                raise ValueError(f"`{name}` must be finite and at least 0, got {value!r}.")
        if key is not None and not isinstance(key, Key):
            raise TypeError(f"`key` must be a Key, such as Key(0), got {key!r}.")
        self.heterogeneity, self.sigma = float(heterogeneity), float(sigma)
        self.key = Key(0) if key is None else key
        self.bounds = Bounds(np.zeros(dim), np.ones(dim))
        self._known: dict[Like | None, tuple[Array, Array]] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_known": {}}  # it follows from the key

    def start(self, key: Key) -> Array:
        """Return a point drawn from [0, 1)^dim."""
        return key.uniform(0, 1, self.dim)[0]

    def values(self, client: int, x: Array, *, key: Key) -> Any:
        found = self._exact(np.full(len(x), client), x)
        return self._with_noise(found, [(client, key, 0, len(x))])

    def joint_values(self, clients: np.ndarray[Any, Any], x: Array, keys: Sequence[Key]) -> Any:
        found = self._exact(clients, x)
        if not self.sigma:
            return found
        runs, first = [], 0
        for (client, key), rows in itertools.groupby(zip(clients.tolist(), keys, strict=True)):
            last = first + sum(1 for _ in rows)
            runs.append((client, key, first, last))
            first = last
        return self._with_noise(found, runs)

    def gradient(self, client: int, x: Array) -> Array:
        a, b = (rows[client] for rows in self._deviations(x))
        inside = (x >= 0) & (x <= 1)
        return self._slope(self._stretched(x), a, b) * inside * _WIDTH

    def measure(self, client: int, x: Array) -> dict[str, float]:
        return {"value": float(self._exact(np.array([client]), x[None])[0])}

    def identity(self) -> Mapping[str, Any]:
        return {**describe(self), "key": str(self.key)}

    @abc.abstractmethod
    def _function(self, u: Any, a: Any, b: Any) -> Any:
        """Return f for rows u, shape (k,), with deviations a and b, shape (k, dim)."""

    @abc.abstractmethod
    def _slope(self, u: Any, a: Any, b: Any) -> Any:
        """Return the gradient of f by u, shape (dim,)."""

    def _exact(self, clients: np.ndarray[Any, Any], x: Array) -> Any:
        """Return values without noise; every row's is the same whatever other rows there are."""
        a, b = self._deviations(x)
        out = array_module(x).empty_like(x[:, 0])
        height = max(1, _ELEMENTS // self.dim)
        for first in range(0, len(x), height):
            rows = slice(first, first + height)
            whose: Any = clients[rows]
            whose = int(whose[0]) if (whose == whose[0]).all() else whose.tolist()
            out[rows] = self._function(self._stretched(x[rows]), a[whose], b[whose])
        return out

    @staticmethod
    def _stretched(x: Array) -> Any:
        # Sums along rows are the same for every number of rows only if these lie one behind the other.
        x = x.contiguous() if is_torch(x) else np.ascontiguousarray(x)
        return _WIDTH * array_module(x).clip(x, 0, 1) - _CENTRE

    def _with_noise(self, values: Any, runs: Sequence[tuple[int, Key, int, int]]) -> Any:
        """Add noise to values that belong to a client and a key each, from one row to before another."""
        for client, key, first, last in runs if self.sigma else ():
            noise = key.fold("noise", client).normal(0, last - first, 1)[:, 0]
            values[first:last] += Like.of(values).asarray(self.sigma * noise)
        return values

    def _deviations(self, x: Array) -> tuple[Any, Any]:
        """Return C (p - 1 / N) and C (q - 1 / N), shape (N, dim), in the kind of x."""
        if None not in self._known:
            n, key = self.num_clients, self.key
            first, second = (
                np.ascontiguousarray(dirichlet(key.fold(name), 1 / n, self.dim, n).T)
                for name in ("first", "second")
            )
            self._known[None] = self.heterogeneity * (first - 1 / n), self.heterogeneity * (second - 1 / n)
        like = Like.of(x)
        if like not in self._known:
            first, second = self._known[None]
            self._known[like] = like.asarray(first), like.asarray(second)
        return self._known[like]


class Quadratic(Synthetic):
    """A quadratic function of the shares of a client, while the mean of all depends on neither shares nor C.

        f_i(x) = 0.1 / d [ sum_j a_ij u_j^2 + sum_j b_ij u_j + 1 ]
        a_ij = 1 + C (p_ij - 1 / N),    b_ij = 1 + C (q_ij - 1 / N)

    with u, p and q as `Synthetic` has them. The mean is F = 0.1 / d (sum u^2 + sum u + 1) for every C, with
    the minimum -0.025 + 0.1 / d at u = -1/2. Where C > N, some f_i are concave along some axes.

    Example:
        >>> task = Quadratic(dim=300, num_clients=5, heterogeneity=5.0)
        >>> bool(abs(task.value(np.full(300, 0.475)) - task.optimum) < 1e-12)
        True
    """

    @property
    def optimum(self) -> float:  # type: ignore[override]
        """The least F."""
        return -0.025 + 0.1 / self.dim

    def _function(self, u: Any, a: Any, b: Any) -> Any:
        return ((((1 + a) * u + (1 + b)) * u).sum(-1) + 1) * (0.1 / self.dim)

    def _slope(self, u: Any, a: Any, b: Any) -> Any:
        return (2 * (1 + a) * u + (1 + b)) * (0.1 / self.dim)


class _Scaled(Synthetic):
    """A function of z = c_i (u - s_i) with c_ij = 0.1 + C (p_ij - 1 / N) and s_ij = C (q_ij - 1 / N)."""

    @property
    def optimum(self) -> float | None:  # type: ignore[override]
        """The least F, which is known where all clients have the same function."""
        return 0.0 if self.num_clients == 1 or not self.heterogeneity else None

    def _function(self, u: Any, a: Any, b: Any) -> Any:
        return self._base((0.1 + a) * (u - b))

    def _slope(self, u: Any, a: Any, b: Any) -> Any:
        return self._base_slope((0.1 + a) * (u - b)) * (0.1 + a)

    @abc.abstractmethod
    def _base(self, z: Any) -> Any:
        """Return the values of rows z."""

    @abc.abstractmethod
    def _base_slope(self, z: Any) -> Any:
        """Return the gradient at z, shape (dim,)."""


class Ackley(_Scaled):
    """`zoo.problems.ackley` of z, rough and nearly flat far out, a funnel at 0.

        z_ij = c_ij (u_j - s_ij),    c_ij = 0.1 + C (p_ij - 1 / N),    s_ij = C (q_ij - 1 / N)

    with u, p and q as `Synthetic` has them.

    Example:
        >>> task = Ackley(dim=4, heterogeneity=0.0)
        >>> abs(task.value(np.full(4, 0.5))) < 1e-12
        True
    """

    def _base(self, z: Any) -> Any:
        return ackley(z)

    def _base_slope(self, z: Any) -> Any:
        xp = array_module(z)
        rms = xp.sqrt((z * z).mean(-1))
        funnel = 4 * xp.exp(-0.2 * rms) * z / xp.where(rms > 0, rms, xp.ones_like(rms))
        waves = xp.exp(xp.cos(2 * math.pi * z).mean(-1)) * 2 * math.pi * xp.sin(2 * math.pi * z)
        return (funnel + waves) / self.dim


class Levy(_Scaled):
    """`zoo.problems.levy` of z, a sine on parabolas.

        z_ij = c_ij (u_j - s_ij),    c_ij = 0.1 + C (p_ij - 1 / N),    s_ij = C (q_ij - 1 / N)

    with u, p and q as `Synthetic` has them. With C = 0 the minimum is in a corner of the box, at x = 1.

    Example:
        >>> task = Levy(dim=4, heterogeneity=0.0)
        >>> abs(task.value(np.ones(4))) < 1e-12
        True
    """

    def _base(self, z: Any) -> Any:
        return levy(z)

    def _base_slope(self, z: Any) -> Any:
        sin, pi = array_module(z).sin, math.pi
        w = 1 + (z - 1) / 4
        far = w - 1
        slope = 2 * far * (1 + 10 * sin(pi * w + 1) ** 2) + 10 * pi * far**2 * sin(2 * (pi * w + 1))
        last, away = w[-1], far[-1]
        slope[-1] = 2 * away * (1 + sin(2 * pi * last) ** 2) + 2 * pi * away**2 * sin(4 * pi * last)
        slope[0] += pi * sin(2 * pi * w[0])
        return slope / 4
