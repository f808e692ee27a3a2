"""DeepZero: networks trained by sparse coordinate-wise differences, with masks that keep changing."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from zoo.core.bounds import Bounds
from zoo.core.device import Array, Like, array_module, to_numpy
from zoo.core.rng import Key
from zoo.core.state import state
from zoo.core.types import Candidates, Evaluations, Known
from zoo.core.validation import check_choice, check_count, check_fraction, check_number, check_positive
from zoo.estimators.finite_difference import STENCILS
from zoo.nn.changes import Changes, Choice
from zoo.nn.masks import Layers, Masks
from zoo.nn.pruning import Grasp, prune
from zoo.updates.schedules import Cosine, Schedule, Warmup, as_schedule

_WARMUP = 0.06  # of the steps, where the schedule is ours: 3 of 50 epochs, as published
_PATIENCE = 10  # steps in a row without any difference, before there is no point in going on


@state
class DeepZeroState:
    """What DeepZero knows.

    Attributes:
        x: Parameters, shape (dim,).
        velocity: What momentum has gathered, shape (dim,).
        kept: How many weights of each layer take part in a step; None until the scores are known.
        gradient: The first of the two estimates that scores are made of, as long as the second is due.
        value: Loss at the parameters of the last step, NaN where it failed.
        num_valid: Coordinates whose difference entered in the last step.
        asked: How many there were.
        lost: Steps in a row of which no difference was known.
        key: Key of the run.
        step: Steps of training so far; those that scores take do not count.
    """

    x: Array
    velocity: Array
    kept: tuple[int, ...] | None
    gradient: Array | None
    value: float
    num_valid: int
    asked: int
    lost: int
    key: Key
    step: int


@dataclass(frozen=True)
class DeepZero:
    """Stochastic gradient descent on forward or central differences along few coordinates.

    Step k = 0, 1, ... on mini-batch k, with v = 0 at first:

        g_i = (f(x + h e_i) - f(x)) / h    for i in S(floor(k / redraw)), 0 for all others
        v   <- momentum v + g + weight_decay x
        x   <- x - learning_rate(k) v

    S holds a random choice of weights, of every layer as many as ZO-GraSP leaves it when `sparsity` of all
    weights are pruned (`zoo.nn.pruning`), and all parameters that are no weights of such a layer. It is drawn
    anew every `redraw` steps. A gradient of 0 does not hold a coordinate: momentum and weight decay move all.

    A forward step evaluates |S| + 1 networks, a central one 2 |S|. The scores come first, in two steps of
    `Grasp.num_directions` + 1 evaluations each on mini-batch 0; none with a sparsity of 0, or without
    `pruning`.

    A failed evaluation drops its coordinate for this step, and that of f(x) all of them. A step without any
    difference moves nothing, and after ten of them in a row the run ends. Where an estimate for the scores
    fails, all layers are equally sparse.

    Args:
        layers: Where the weights are that masks are for; None for the whole vector as one layer.
            `zoo.nn.training.train` fills it in.
        steps: Steps of training, after which it is finished; None for no end.
        learning_rate: A schedule of `zoo.updates.schedules`, or a number above 0: with `steps`, the peak of
            a warm-up over .06 of them and a cosine to 0 over the rest, else constant.
        momentum: Share of the velocity that is kept, at least 0 and below 1.
        weight_decay: At least 0.
        sparsity: Share of the weights that is left out of each step, at least 0 and below 1.
        redraw: Steps for which a mask is kept.
        smoothing: The distance h; 5e-3 is near the best for forward differences in single precision.
        stencil: "forward" or "central".
        pruning: How many weights each layer is left with; None for the same share of every layer.

    Raises:
        TypeError: An argument is of another type.
        ValueError: An argument is out of range, or `sparsity` leaves no weight.

    Note:
        The published code takes other directions for the second estimate of the scores, which makes them
        noise: see `Grasp`. It keeps a mask for 5 epochs of 50, and warms up for 3 of them.

        On scikit-learn's digits (a network of 4858 parameters, 300 steps, batches of 64, masks kept for 20
        steps, three seeds) a sparsity of .9 with a learning rate of .3 came to an accuracy of .931, and .8
        with .15 to .949, where backpropagation came to .979. With rates that high, masks that are kept for
        few steps only make training unstable.

    Example:
        >>> method = DeepZero(learning_rate=0.25, momentum=0.0, weight_decay=0.0, sparsity=0.5, pruning=None)
        >>> state = method.init(np.array([1.0, -2.0, 3.0, -4.0]), key=Key(0))
        >>> for _ in range(60):
        ...     rows = method.ask(state).rows(0, 3)
        ...     state = method.tell(state, Evaluations((rows**2).sum(1)))
        >>> bool(abs(method.recommend(state)).max() < 0.01)
        True

    References:
        Chen et al., "DeepZero: scaling up zeroth-order optimization for deep model training", 2024.
        https://arxiv.org/abs/2310.02025
    """

    layers: Layers | None = None
    steps: int | None = None
    learning_rate: Any = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4
    sparsity: float = 0.9
    redraw: int = 20
    smoothing: float = 5e-3
    stencil: str = "forward"
    pruning: Grasp | None = field(default_factory=Grasp)
    schedule: Schedule = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.layers is not None and not isinstance(self.layers, Layers):
            raise TypeError(f"`layers` must be a Layers, such as Layers.of(model), got {self.layers!r}.")
        if self.steps is not None:
            check_count("steps", self.steps)
        schedule = as_schedule("learning_rate", self.learning_rate)
        if schedule is not self.learning_rate:
            peak = check_positive("learning_rate", self.learning_rate)
            if self.steps is not None:
                warmup = math.ceil(_WARMUP * self.steps)
                schedule = Warmup(warmup, Cosine(peak, max(1, self.steps - warmup)))
        object.__setattr__(self, "schedule", schedule)
        check_fraction("momentum", self.momentum)
        if not 0 <= check_number("weight_decay", self.weight_decay) < math.inf:
            raise ValueError(
                f"`weight_decay` must be a finite number of at least 0, got {self.weight_decay!r}."
            )
        check_fraction("sparsity", self.sparsity)
        check_count("redraw", self.redraw)
        check_positive("smoothing", self.smoothing)
        check_choice("stencil", self.stencil, STENCILS)
        if self.pruning is not None and not isinstance(self.pruning, Grasp):
            raise TypeError(f"`pruning` must be a Grasp or None, got {self.pruning!r}.")
        if self.layers is not None:
            Masks.uniform(self.layers, self.sparsity)  # which refuses to exclude everything

    compares_within_steps = True
    recommends_evaluated = False

    def init(
        self,
        x0: Array,
        *,
        key: Key,
        bounds: Bounds | None = None,
        scale: Any = 1.0,
        budget: int | None = None,
        known: Known | None = None,
    ) -> DeepZeroState:
        """Return the first state; see `Optimizer` for the arguments.

        Raises:
            ValueError: `x0` has not as many parameters as `layers` say, or there are bounds.
        """
        del scale, budget, known
        if bounds is not None:
            raise ValueError("`bounds` must be None: parameters of networks are trained without.")
        layers = self._layers(len(x0))
        if layers.dim != len(x0):
            raise ValueError(f"`x0` must have {layers.dim} parameters, as `layers` say, got {len(x0)}.")
        even = Masks.uniform(layers, self.sparsity).kept
        scored = self.pruning is not None and self.sparsity > 0
        like = Like.of(x0)
        x = Like(like.kind, like.working_dtype, like.device).asarray(x0) + 0
        return DeepZeroState(
            x,
            array_module(x).zeros_like(x),
            None if scored else even,
            None,
            math.nan,
            0,
            0,
            0,
            key,
            0,
        )

    def ask(self, state: DeepZeroState) -> Candidates:
        if state.kept is None:
            assert self.pruning is not None
            return self.pruning.ask(state.x, state.gradient, state.key.fold("scores"))
        return self._changes(state)

    def tell(self, state: DeepZeroState, evaluations: Evaluations) -> DeepZeroState:
        if state.kept is None:
            return self._scored(state, evaluations)
        changes = self._changes(state)
        found = changes.estimate(evaluations)
        told = replace(
            state,
            value=found.value,
            num_valid=found.num_valid,
            asked=changes.count,
            lost=0 if found.num_valid else state.lost + 1,
            step=state.step + 1,
        )
        if not found.num_valid:
            return told
        velocity = self.momentum * state.velocity + found.gradient + self.weight_decay * state.x
        x = state.x - self.schedule.value(state.step) * velocity
        return replace(told, x=x, velocity=velocity)

    def recommend(self, state: DeepZeroState) -> Array:
        return state.x + 0

    def finished(self, state: DeepZeroState) -> str | None:
        if self.steps is not None and state.step >= self.steps:
            return f"all {self.steps} steps are done"
        if state.lost >= _PATIENCE:
            return f"the loss was no number in {state.lost} steps in a row"
        return None

    def diagnostics(self, state: DeepZeroState) -> dict[str, Any]:
        """Return the loss, the learning rate of the last step, and how dense the layers are."""
        found: dict[str, Any] = {"loss": state.value}
        if state.step:
            found["learning_rate"] = self.schedule.value(state.step - 1)
        if state.kept is not None and self.sparsity > 0:
            found["density"] = np.array(Masks(self._layers(len(state.x)), state.kept).densities)
        return found

    def masks(self, state: DeepZeroState) -> Masks | None:
        """Return how many weights of which layer take part, None until the scores are known."""
        return None if state.kept is None else Masks(self._layers(len(state.x)), state.kept)

    def _layers(self, dim: int) -> Layers:
        return Layers.whole(dim) if self.layers is None else self.layers

    def _changes(self, state: DeepZeroState) -> Changes:
        assert state.kept is not None
        masks = Masks(self._layers(len(state.x)), state.kept)
        choice = Choice(masks, state.key.fold("masks"), state.step // self.redraw)
        dense = masks.num_active == masks.layers.dim
        return Changes(state.x, None if dense else choice, self.smoothing, self.stencil, state.step)

    def _scored(self, state: DeepZeroState, evaluations: Evaluations) -> DeepZeroState:
        """Return the state after an estimate for the scores."""
        grasp = self.pruning
        assert grasp is not None
        layers = self._layers(len(state.x))
        even = Masks.uniform(layers, self.sparsity).kept
        gradient, valid = grasp.estimate(state.x, state.gradient, evaluations, state.key.fold("scores"))
        known = np.isfinite(evaluations.values)
        value = float(evaluations.values[known].mean()) if known.any() else math.nan
        told = replace(state, value=value)
        if not valid or not np.isfinite(to_numpy(gradient)).all():
            return replace(told, kept=even, gradient=None)
        if state.gradient is None:
            return replace(told, gradient=gradient)
        scores = grasp.scores(state.x, state.gradient, gradient)
        if not np.isfinite(to_numpy(scores)).all():
            return replace(told, kept=even, gradient=None)
        masks = prune(scores, layers, self.sparsity, grasp.rule, state.key.fold("scores"))
        return replace(told, kept=masks.kept, gradient=None)
