"""Small transformers, of pieces that have their parameters in linear layers only."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from zoo.core.rng import Key
from zoo.core.validation import check_count, check_flag, check_fraction
from zoo.nn.initialize import initialized
from zoo.nn.stages import Residual


class Positions(nn.Module):
    """A learned vector for each position of a sequence, added to what is there.

    It begins with sin(p / 10000^(2i / width)) and cos of the same as numbers 2i and 2i + 1 of position p.

    Args:
        length: The most positions of a sequence.
        width: Length of a vector.

    Raises:
        ValueError: A sequence is longer.

    Example:
        >>> Positions(8, 4)(torch.zeros(1, 2, 4))[0, 0].tolist()
        [0.0, 1.0, 0.0, 1.0]

    References:
        Vaswani, Shazeer, Parmar, Uszkoreit, Jones, Gomez, Kaiser and Polosukhin, "Attention is all you need",
        2017. https://arxiv.org/abs/1706.03762
    """

    def __init__(self, length: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(length, width))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Set the vectors to sines and cosines."""
        length, width = self.weight.shape
        even = torch.arange(0, width, 2, dtype=torch.float64)
        angles = torch.arange(length)[:, None] / 10000 ** (even / width)
        waves = torch.stack([angles.sin(), angles.cos()], -1).flatten(1)[:, :width]
        with torch.no_grad():
            self.weight.copy_(waves)

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[1] > len(self.weight):
            raise ValueError(f"sequences must have at most {len(self.weight)} positions, got {x.shape[1]}.")
        return x + self.weight[: x.shape[1]]


class Attend(nn.Module):
    """Attention without parameters: each position's mean of values, weighted by how queries meet keys.

    Inputs of shape (n, length, 3 width) hold queries, keys and values side by side, as a linear layer in
    front makes them; outputs have shape (n, length, width). Each of `heads` equal parts of the width goes by
    itself: softmax(Q K^T / sqrt(width / heads)) V.

    Args:
        heads: How many parts.
        causal: Whether a position sees itself and those before it only.

    Raises:
        ValueError: The last dimension cannot be cut into three times `heads` parts.

    Example:
        >>> tuple(Attend(2)(torch.zeros(5, 7, 12)).shape)
        (5, 7, 4)

    References:
        Vaswani, Shazeer, Parmar, Uszkoreit, Jones, Gomez, Kaiser and Polosukhin, "Attention is all you need",
        2017. https://arxiv.org/abs/1706.03762
    """

    def __init__(self, heads: int, causal: bool = False) -> None:
        super().__init__()
        self.heads = check_count("heads", heads)
        self.causal = check_flag("causal", causal)

    def forward(self, x: Tensor) -> Tensor:
        n, length, width = x.shape
        if width % (3 * self.heads):
            raise ValueError(
                f"inputs must have 3 x {self.heads} equal parts in their last dimension, got {width} numbers."
            )
        q, k, v = x.view(n, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        return mixed.transpose(1, 2).reshape(n, length, width // 3)


class MeanOverPositions(nn.Module):
    """The mean over the second dimension: one vector for a sequence."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(1)


def transformer(
    *,
    key: Key,
    length: int,
    num_outputs: int,
    vocabulary: int | None = None,
    features: int | None = None,
    width: int = 32,
    heads: int = 4,
    depth: int = 2,
    hidden: int | None = None,
    causal: bool = False,
    pooled: bool = True,
    dropout: float = 0.0,
) -> nn.Sequential:
    """Return a transformer whose normalization comes first in each branch, batch first.

    x_0 = embedding + positions; `depth` times x <- x + W_o attend(W_qkv norm(x)), then
    x <- x + W_2 gelu(W_1 norm(x)); norm(x), the mean over positions if `pooled`, and a linear layer.

    For language modelling give `vocabulary`, `causal=True`, `pooled=False` and as many outputs as words.

    Args:
        key: Where the initial weights come from.
        length: The most positions of a sequence.
        num_outputs: Outputs, of a sequence or of each of its positions.
        vocabulary: Number of words, for inputs of integers (n, length).
        features: Numbers at a position, for inputs (n, length, features). Either this or `vocabulary`.
        width: Numbers at a position within the network.
        heads: Parts of the width that attend by themselves.
        depth: Blocks.
        hidden: Units between the linear layers of a block; 4 times the width by default.
        causal: Whether a position sees itself and those before it only.
        pooled: Whether there is one output for a sequence, (n, num_outputs), or one for each of its
            positions, (n, length, num_outputs).
        dropout: Share of the numbers that is set to 0 at the end of each branch in training.

    Raises:
        TypeError: A number is no integer, or a flag not True or False.
        ValueError: A number is below 1, `width` is no multiple of `heads`, `dropout` is outside [0, 1), or
            not exactly one of `vocabulary` and `features` is given.

    Example:
        >>> model = transformer(key=Key(0), length=8, features=8, num_outputs=10)
        >>> tuple(model(torch.zeros(5, 8, 8)).shape)
        (5, 10)

    References:
        Xiong, Yang, He, Zheng, Zheng, Xing, Zhang, Lan, Wang and Liu, "On layer normalization in the
        transformer architecture", 2020. https://arxiv.org/abs/2002.04745
    """
    if (vocabulary is None) == (features is None):
        raise ValueError(
            "exactly one of `vocabulary` and `features` must be given, got "
            f"{vocabulary!r} and {features!r}: words are integers, features are vectors."
        )
    for name, value in (("length", length), ("num_outputs", num_outputs), ("width", width)):
        check_count(name, value)
    check_count("depth", depth)
    if width % check_count("heads", heads):
        raise ValueError(f"`width` must be a multiple of `heads`, got {width} and {heads}.")
    check_fraction("dropout", dropout)
    check_flag("pooled", pooled)
    units = 4 * width if hidden is None else check_count("hidden", hidden)

    def build() -> nn.Sequential:
        modules: list[nn.Module] = []
        if vocabulary is not None:
            modules.append(nn.Embedding(check_count("vocabulary", vocabulary), width))
        else:
            modules.append(nn.Linear(check_count("features", features), width))
        modules.append(Positions(length, width))
        for _ in range(depth):
            attention = [
                nn.LayerNorm(width),
                nn.Linear(width, 3 * width),
                Attend(heads, causal),
                nn.Linear(width, width),
            ]
            rows = [nn.LayerNorm(width), nn.Linear(width, units), nn.GELU(), nn.Linear(units, width)]
            for branch in (attention, rows):
                modules.append(Residual([*branch, nn.Dropout(dropout)] if dropout else branch))
        modules.append(nn.LayerNorm(width))
        if pooled:
            modules.append(MeanOverPositions())
        modules.append(nn.Linear(width, num_outputs))
        return nn.Sequential(*modules)

    return initialized(build, key)
