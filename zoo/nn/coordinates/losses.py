"""Mean losses of changed copies: some losses have a shorter way there."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from zoo.nn.coordinates.changes import Columns, by_copy
from zoo.nn.losses import Loss, absolute_error, cross_entropy, squared_error


class Judge:
    """The losses of changed copies on a mini-batch.

    What is here is right for every loss; a loss with a shorter way is supported by a subclass, named in
    `judge_of`.

    Args:
        loss: Of each example.
        outputs: What the unchanged network returns.
        targets: What it should.
    """

    def __init__(self, loss: Loss, outputs: Tensor, targets: Tensor) -> None:
        self.loss, self.outputs, self.targets = loss, outputs, targets
        self._repeated: dict[int, Tensor] = {}

    def of_whole(self, outputs: Tensor, count: int) -> Tensor:
        """Return the mean losses of whole copies, (count,) in float64; `outputs` may be written to."""
        targets = self._of_all(count, lambda: self.targets.repeat(count, *[1] * (self.targets.ndim - 1)))
        return _means(by_copy(self.loss(outputs.contiguous(), targets), count))

    def of_columns(self, columns: Columns) -> Tensor:
        """Return the mean losses where a column of the outputs is changed, (K,) in float64."""
        return self.of_whole(columns.spread(self.outputs), len(columns))

    def spreads(self, columns: Columns) -> bool:
        """Return whether `of_columns` makes whole copies of the outputs."""
        return True

    def _of_all(self, count: int, made: Callable[[], Tensor]) -> Tensor:
        """Return what is the same for so many copies each time, made once; threads may ask at once."""
        found = self._repeated.get(count)
        if found is None:
            found = made()
            self._repeated = {count: found}
        return found


class CrossEntropy(Judge):
    """log(sum over c of exp z_c) - z_target, of logits (n, classes) with the classes one after the other.

    Where z_c alone is changed, the sum is exp(z_c) and that over the other classes, which is computed once.
    """

    _others: Tensor | None = None

    def of_whole(self, outputs: Tensor, count: int) -> Tensor:
        logits = outputs.t().contiguous()  # (classes, n)
        chosen = logits.view(-1).index_select(0, self._places(count))
        top = logits.amax(0)
        sums = logits.sub_(top).exp_().sum(0).log_().add_(top)
        return _means(sums.sub_(chosen).view(count, -1))

    def _places(self, count: int) -> Tensor:
        """Return where the logits of the targets are among all of so many copies, (count * b,)."""

        def made() -> Tensor:
            n = count * len(self.targets)
            columns = torch.arange(n, device=self.targets.device)
            return self.targets.long().repeat(count) * n + columns

        return self._of_all(count, made)

    def of_columns(self, columns: Columns) -> Tensor:
        if columns.flat:  # more than one class changes
            return super().of_columns(columns)
        if self._others is None:
            self._others = _sums_of_others(self.outputs.t())
        chosen = self.outputs.gather(1, self.targets.unsqueeze(1))[:, 0]
        mine = self.targets == columns.index.unsqueeze(1)
        sums = torch.logaddexp(self._others[columns.index], columns.values)
        return _means(sums.sub_(torch.where(mine, columns.values, chosen)))

    def spreads(self, columns: Columns) -> bool:
        return columns.flat


class Separable(Judge):
    """The mean over outputs of some function of how far each is off."""

    def __init__(
        self, loss: Loss, outputs: Tensor, targets: Tensor, function: Callable[[Tensor], Tensor]
    ) -> None:
        super().__init__(loss, outputs, targets)
        self.function = function
        self._apart = function(outputs - targets)

    def of_columns(self, columns: Columns) -> Tensor:
        change = self.function(columns.values - columns.of(self.targets)) - columns.of(self._apart)
        unchanged = self._apart.mean(dtype=torch.float64)
        return unchanged + change.flatten(1).sum(1, dtype=torch.float64) / self.outputs.numel()

    def spreads(self, columns: Columns) -> bool:
        return False


def judge_of(loss: Loss, outputs: Tensor, targets: Tensor) -> Judge:
    """Return what judges copies by a loss."""
    are_labels = targets.shape == outputs.shape[:1] and not targets.is_floating_point()
    if loss is cross_entropy and outputs.ndim == 2 and are_labels and _are_classes(targets, outputs.shape[1]):
        return CrossEntropy(loss, outputs, targets)
    if loss in (squared_error, absolute_error) and outputs.shape == targets.shape and outputs.ndim > 1:
        function = torch.square if loss is squared_error else torch.abs
        return Separable(loss, outputs, targets, function)
    return Judge(loss, outputs, targets)


def _are_classes(labels: Tensor, count: int) -> bool:
    """Whether every label is of a class: one that is to be ignored, such as -100, is of none."""
    return bool(((labels >= 0) & (labels < count)).all())


def _means(losses: Tensor) -> Tensor:
    return losses.flatten(1).mean(1, dtype=torch.float64)


def _sums_of_others(logits: Tensor) -> Tensor:
    """Return log(sum over all but c of exp z), (classes, b), each summed by itself: nothing cancels."""
    infinite = torch.full_like(logits[:1], -torch.inf)
    before = torch.cat([infinite, logits[:-1].logcumsumexp(0)])
    after = torch.cat([logits[1:].flip(0).logcumsumexp(0).flip(0), infinite])
    return torch.logaddexp(before, after)
