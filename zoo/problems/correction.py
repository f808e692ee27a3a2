"""A coarse solver put right by a network in its loop: trained by errors of whole roll-outs alone."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from zoo.core.device import Array, is_torch, to_numpy
from zoo.core.objective import Objective
from zoo.core.rng import Key
from zoo.core.validation import check_choice, check_count
from zoo.problems.burgers import Burgers, coarsened, refined, waves

_WIDTH = 5  # cells that a convolution sees


class Correction(Objective):
    """Error of a coarse solver of Burgers' equation with a network in its loop, for many networks at a time.

    S is one step of a coarse solver that smears shocks. After each, a network C says what flows over the
    faces of cells besides, and the solver goes on from there:

        v = S(u),    u_i <- v_i + dt (C(v)_i - C(v)_{i-1})

    So the sum over cells stays, whatever the network says. The value of a network is the mean of
    |u - reference| over cells and over the next `steps` steps from `batch_size` states of the reference, a
    fine solver averaged over the coarse cells.

    C has three convolutions round the ring, each over 5 cells: from u to `channels`, to as many, to 1, with a
    ReLU between. A point is all weights: of each layer those of shape (out, in, 5), then its biases.

    The solver is a black box: it is called with numpy arrays, for all networks at once, and hands back no
    gradient. Only weights that require gradients are sent through torch, for who wants to compare with
    training by back-propagation; the numbers are the same.

    Which states are in the batch follows from the key: within a step all points see the same ones, and two
    steps see different ones. So points are to be evaluated with `noise=True`. A network under which
    the flow gets too fast for the time step has a value of NaN.

    Args:
        steps: Steps of the solver that an evaluation takes.
        batch_size: States that it starts from.
        channels: Of the two inner layers; 8 make 417 weights.
        trajectories: Flows to train on.
        held_out: Flows to test with.
        train_steps: Steps of each flow to train on.
        test_steps: Steps of each flow to test with.

    Raises:
        TypeError: An argument is no integer.
        ValueError: An argument is too small, or `train_steps` below `steps`.

    Attributes:
        dim: How many weights there are.
        coarse: The solver that is put right: 32 cells, order 1.
        fine: The solver that it is to agree with: 256 cells, order 2, 16 steps for one of the coarse.

    Example:
        >>> task = Correction(trajectories=4, held_out=2, train_steps=8, test_steps=8)
        >>> x = task.start(Key(0))
        >>> task.dim, task.error(x) == task.error(None)  # the last layer starts at 0
        (417, True)

    References:
        Um, Brand, Fei, Holl and Thuerey, "Solver-in-the-loop: learning from differentiable physics to
        interact with iterative PDE-solvers", 2020. https://arxiv.org/abs/2007.00016
        Chen et al., "DeepZero: scaling up zeroth-order optimization for deep model training", 2024.
        https://arxiv.org/abs/2310.02025
    """

    unit = 32  # points: as many networks as make matrix products that are worth while

    def __init__(
        self,
        steps: int = 4,
        batch_size: int = 16,
        *,
        channels: int = 8,
        trajectories: int = 128,
        held_out: int = 64,
        train_steps: int = 60,
        test_steps: int = 120,
    ) -> None:
        self.steps = check_count("steps", steps)
        self.batch_size = check_count("batch_size", batch_size)
        self.channels = check_count("channels", channels)
        self.trajectories = check_count("trajectories", trajectories)
        self.held_out = check_count("held_out", held_out)
        self.train_steps = check_count("train_steps", train_steps)
        self.test_steps = check_count("test_steps", test_steps)
        if train_steps < steps:
            raise ValueError(f"`train_steps` must be at least `steps`, {steps}, got {train_steps!r}.")
        self.coarse = Burgers(cells=32, dt=0.05, viscosity=0.02)
        self.fine = Burgers(cells=256, dt=self.coarse.dt / 16, viscosity=0.02, order=2)
        self._shapes = ((channels, 1), (channels, channels), (1, channels))
        self.dim = sum(outs * (ins * _WIDTH + 1) for outs, ins in self._shapes)
        self._frames: dict[str, np.ndarray[Any, Any]] = {}

    def start(self, key: Key) -> np.ndarray[Any, Any]:
        """Return weights to start from: such that inner layers keep sizes, and the last one at 0."""
        parts = []
        for number, (outs, ins) in enumerate(self._shapes):
            drawn = key.fold("start", number).uniform(0, 1, outs * ins * _WIDTH)[0]
            largest = 0.0 if number == 2 else math.sqrt(6 / (ins * _WIDTH))
            parts += [largest * (2 * drawn - 1), np.zeros(outs)]
        return np.concatenate(parts)

    def __call__(self, x: Array, *, key: Key) -> Any:
        weights = _tensor(x)
        frames = self.reference("training")
        flows = key.fold("flows").integers(0, 1, self.batch_size, high=self.trajectories)[0]
        times = key.fold("times").integers(0, 1, self.batch_size, high=self.train_steps + 1 - self.steps)[0]
        wanted = _like(frames[times + np.arange(self.steps + 1)[:, None], flows], weights)
        u = wanted[0].expand(len(weights), -1, -1)
        total = 0.0
        for number in range(1, self.steps + 1):
            u = self.corrected(weights, u)
            total = total + (u - wanted[number]).abs().mean((1, 2))
        return total / self.steps

    def corrected(self, weights: Any, u: Any) -> Any:
        """Return what the solver, put right by each network, makes of its states in a step.

        Args:
            weights: Shape (k, dim), a tensor.
            u: Shape (k, n, cells), a tensor.
        """
        v = self._solved(u)
        flux = self.flux(weights, v)
        return v + self.coarse.dt * (flux - flux.roll(1, -1))

    def flux(self, weights: Any, v: Any) -> Any:
        """Return C(v) of each network, for v of shape (k, n, cells), or (n, cells) for all of them."""
        import torch

        count, (rows, cells), beyond = len(weights), v.shape[-2:], _WIDTH // 2
        # Cells go before rows, so that a ring turned by some cells is a slice, and no copy.
        x = v.expand(count, rows, cells).transpose(1, 2).reshape(count, 1, -1)
        begin = 0
        for number, (outs, ins) in enumerate(self._shapes):
            middle, end = begin + outs * ins * _WIDTH, begin + outs * (ins * _WIDTH + 1)
            kernels = weights[:, begin:middle].view(count, outs, ins, _WIDTH).permute(3, 0, 1, 2).contiguous()
            wide = torch.cat([x[..., -beyond * rows :], x, x[..., : beyond * rows]], -1)
            x = weights[:, middle:end, None]
            for place, kernel in enumerate(kernels):
                x = torch.baddbmm(x, kernel, wide[..., place * rows : (place + cells) * rows])
            x = x.relu() if number < 2 else x
            begin = end
        return x.view(count, cells, rows).transpose(1, 2)

    def run(self, x: Array | None, u: Array, steps: int) -> np.ndarray[Any, Any]:
        """Return a roll-out: shape (steps + 1, n, cells).

        Args:
            x: Weights, shape (dim,); None for the coarse solver alone.
            u: The first states, shape (n, cells).
            steps: How many steps.
        """
        import torch

        if x is None:
            return np.asarray(self.coarse.run(to_numpy(u).astype(np.float64), steps))
        with torch.no_grad():
            weights = _tensor(x).detach()[None]
            states = [_like(to_numpy(u), weights)[None]]
            for _ in range(steps):
                states.append(self.corrected(weights, states[-1]))
        return to_numpy(torch.cat(states))

    def errors(self, x: Array | None, which: str = "test") -> np.ndarray[Any, Any]:
        """Return the mean of |u - reference| after each step of roll-outs held out, shape (test_steps,)."""
        frames = self.reference(which)
        steps = len(frames) - 1
        return np.asarray(np.abs(self.run(x, frames[0], steps) - frames).mean((1, 2))[1:])

    def error(self, x: Array | None, which: str = "test") -> float:
        """Return the mean of `errors`."""
        return float(self.errors(x, which).mean())

    def reference(self, which: str) -> np.ndarray[Any, Any]:
        """Return the reference on coarse cells, shape (steps + 1, flows, cells).

        Args:
            which: "training", "test", or "validation": flows that are like those of the test, for who has
                something to choose.

        Raises:
            ValueError: `which` is none of these.
        """
        check_choice("which", which, ("training", "validation", "test"))
        if which not in self._frames:
            count, steps = {
                "training": (self.trajectories, self.train_steps),
                "validation": (self.held_out, self.test_steps),
                "test": (self.held_out, self.test_steps),
            }[which]
            u = waves(Key(0).fold("correction", which), count, self.fine)
            every = round(self.coarse.dt / self.fine.dt)
            self._frames[which] = coarsened(self.fine.run(u, steps * every, every), self.coarse.cells)
        return self._frames[which]

    def pairs(self, *, uncorrected: bool = True) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        """Return what one step makes of frames computed before, and what it should have: each (m, cells).

        Args:
            uncorrected: Whether frames are those of the coarse solver left to itself, from the starts of the
                flows to train on; what a step should have made of them is what the fine solver makes of the
                lines that order 2 draws through their cells. Else they are the reference's own.
        """
        reference = self.reference("training")
        if uncorrected:
            frames = self.coarse.run(reference[0], self.train_steps - 1)
            every = round(self.coarse.dt / self.fine.dt)
            after = self.fine.run(refined(frames, self.fine.cells), every, every)[-1]
            wanted = coarsened(after, self.coarse.cells)
        else:
            frames, wanted = reference[:-1], reference[1:]
        cells = self.coarse.cells
        return self.coarse.step(frames).reshape(-1, cells), wanted.reshape(-1, cells)

    def _solved(self, u: Any) -> Any:
        if u.requires_grad:
            return self.coarse.step(u)
        return _like(self.coarse.step(to_numpy(u)), u)


def _tensor(x: Array) -> Any:
    import torch

    x = x if is_torch(x) else torch.from_numpy(np.asarray(x))
    return x if x.dtype == torch.float64 or x.requires_grad else x.float()


def _like(array: np.ndarray[Any, Any], weights: Any) -> Any:
    import torch

    return torch.from_numpy(np.ascontiguousarray(array)).to(weights)
