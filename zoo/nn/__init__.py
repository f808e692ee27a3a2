"""Networks trained from forward passes alone.

`estimate_gradient_` stands where `loss.backward()` does, in front of any optimizer of `torch.optim`.
`Seeded` and `apply_` need no more memory than inference; a `Trajectory` of what they did replays it.
`Coordinates` evaluates changes of single parameters from what each of the network's `Stages` was given.
`train` runs `DeepZero`, or any other method, on any number of workers, with the same bytes as result. Losses
are in `zoo.nn.losses`, networks in `zoo.nn.models`, data in `zoo.nn.data`.

Names are imported when they are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zoo.nn.batches import Batches as Batches
    from zoo.nn.batches import CropAndFlip as CropAndFlip
    from zoo.nn.black_box import BlackBox as BlackBox
    from zoo.nn.calibrate import calibrate_ as calibrate_
    from zoo.nn.certify import Certificates as Certificates
    from zoo.nn.certify import GaussianNoise as GaussianNoise
    from zoo.nn.certify import Smoothed as Smoothed
    from zoo.nn.conservative import conservative_step_ as conservative_step_
    from zoo.nn.coordinates import Coordinates as Coordinates
    from zoo.nn.deepzero import DeepZero as DeepZero
    from zoo.nn.descent import Descent as Descent
    from zoo.nn.descent import SeededSGD as SeededSGD
    from zoo.nn.descent import apply_ as apply_
    from zoo.nn.evaluate import accuracy as accuracy
    from zoo.nn.evaluate import mean_loss as mean_loss
    from zoo.nn.gradient import Estimator as Estimator
    from zoo.nn.gradient import estimate_gradient_ as estimate_gradient_
    from zoo.nn.initialize import initialize_ as initialize_
    from zoo.nn.initialize import initialized as initialized
    from zoo.nn.low_rank import Lozo as Lozo
    from zoo.nn.low_rank import SubZero as SubZero
    from zoo.nn.low_rank_momentum import LowRankMomentum as LowRankMomentum
    from zoo.nn.masks import Layers as Layers
    from zoo.nn.masks import Masks as Masks
    from zoo.nn.network_loss import NetworkLoss as NetworkLoss
    from zoo.nn.parameters import Parameters as Parameters
    from zoo.nn.pruning import Grasp as Grasp
    from zoo.nn.pruning import zo_grasp as zo_grasp
    from zoo.nn.seeded import Seeded as Seeded
    from zoo.nn.seeded import SeededEstimate as SeededEstimate
    from zoo.nn.stages import Residual as Residual
    from zoo.nn.stages import Stages as Stages
    from zoo.nn.svrg import SVRG as SVRG
    from zoo.nn.training import Training as Training
    from zoo.nn.training import TrainingStep as TrainingStep
    from zoo.nn.training import train as train
    from zoo.nn.trajectory import Trajectory as Trajectory
    from zoo.nn.trajectory import replay_ as replay_

_HOMES = {
    "zoo.nn.batches": ("Batches", "CropAndFlip"),
    "zoo.nn.black_box": ("BlackBox",),
    "zoo.nn.calibrate": ("calibrate_",),
    "zoo.nn.certify": ("Certificates", "GaussianNoise", "Smoothed"),
    "zoo.nn.conservative": ("conservative_step_",),
    "zoo.nn.coordinates": ("Coordinates",),
    "zoo.nn.deepzero": ("DeepZero",),
    "zoo.nn.descent": ("Descent", "SeededSGD", "apply_"),
    "zoo.nn.evaluate": ("accuracy", "mean_loss"),
    "zoo.nn.gradient": ("Estimator", "estimate_gradient_"),
    "zoo.nn.initialize": ("initialize_", "initialized"),
    "zoo.nn.low_rank": ("Lozo", "SubZero"),
    "zoo.nn.low_rank_momentum": ("LowRankMomentum",),
    "zoo.nn.masks": ("Layers", "Masks"),
    "zoo.nn.network_loss": ("NetworkLoss",),
    "zoo.nn.parameters": ("Parameters",),
    "zoo.nn.pruning": ("Grasp", "zo_grasp"),
    "zoo.nn.seeded": ("Seeded", "SeededEstimate"),
    "zoo.nn.stages": ("Residual", "Stages"),
    "zoo.nn.svrg": ("SVRG",),
    "zoo.nn.training": ("Training", "TrainingStep", "train"),
    "zoo.nn.trajectory": ("Trajectory", "replay_"),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'zoo.nn' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
