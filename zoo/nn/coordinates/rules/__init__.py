"""Which rule holds for which type of module. To support another type, write its rule and name it here."""

from __future__ import annotations

from torch import nn

from zoo.nn.coordinates.rules.base import Rule
from zoo.nn.coordinates.rules.convolution import Convolution
from zoo.nn.coordinates.rules.elementwise import Elementwise, Masked, Rectifier
from zoo.nn.coordinates.rules.linear import Embedding, Linear
from zoo.nn.coordinates.rules.normalization import BatchNormalization, WithinExample
from zoo.nn.coordinates.rules.pooling import Flattening, Pooling
from zoo.nn.coordinates.rules.rowwise import RowWise, Unknown
from zoo.nn.models.resnet import Subsample
from zoo.nn.models.transformer import Attend, MeanOverPositions, Positions

_RULES: tuple[tuple[Rule, tuple[type[nn.Module], ...]], ...] = (
    (Linear(), (nn.Linear,)),
    (Embedding(), (nn.Embedding,)),
    (Convolution(), (nn.Conv1d, nn.Conv2d)),
    (BatchNormalization(), (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)),
    (WithinExample(), (nn.LayerNorm, nn.GroupNorm)),
    (Rectifier(), (nn.ReLU,)),
    (
        Elementwise(),
        (
            *(nn.CELU, nn.ELU, nn.GELU, nn.Hardshrink, nn.Hardsigmoid, nn.Hardswish, nn.Hardtanh),
            *(nn.LeakyReLU, nn.LogSigmoid, nn.Mish, nn.ReLU6, nn.SELU, nn.SiLU, nn.Sigmoid, nn.Softplus),
            *(nn.Softshrink, nn.Softsign, nn.Tanh, nn.Tanhshrink, nn.Threshold),
        ),
    ),
    (Masked(), (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)),
    (Flattening(), (nn.Flatten,)),
    (
        Pooling(),
        (
            *(nn.MaxPool1d, nn.MaxPool2d, nn.AvgPool1d, nn.AvgPool2d),
            *(nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d),
        ),
    ),
    (RowWise(), (Attend, MeanOverPositions, Positions, Subsample)),
    (RowWise(), (nn.PReLU, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ZeroPad2d)),
)
_BY_TYPE = {kind: rule for rule, kinds in _RULES for kind in kinds}
_ROW_WISE, _UNKNOWN = RowWise(), Unknown()


def rule_of(module: nn.Module) -> Rule:
    """Return the rule of a module.

    That of its very type, unless it has hooks, a `forward` of its own or is set up in a way that the rule
    does not know. Else, the one for modules that treat examples one by one if it has an attribute `row_wise`
    that is True, and the one that always holds if not.
    """
    rule = _BY_TYPE.get(type(module))
    hooked = module._forward_hooks or module._forward_pre_hooks or "forward" in module.__dict__
    if rule is not None and not hooked and rule.accepts(module):
        return rule
    return _ROW_WISE if getattr(module, "row_wise", False) is True else _UNKNOWN
