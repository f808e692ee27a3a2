"""From what users name to a policy that fits the spaces of an environment."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from typing import Any

from evolution.environments.environment import Environment
from evolution.environments.spaces import Spaces, Vector
from evolution.policies.policy import Policy
from zoo.core.rng import Key
from zoo.core.validation import check_known, hint

POLICIES = {
    "mlp": ("evolution.policies.mlp:MLP", "layers of numbers, computed by numpy"),
    "recurrent": ("evolution.policies.recurrent:Recurrent", "a layer that remembers, computed by numpy"),
    "atari-large": ("evolution.policies.atari_nets:Large", "4 million parameters at 18 actions"),
    "atari-nature": ("evolution.policies.atari_nets:Nature", "1.7 million parameters at 18 actions"),
    "atari-small": ("evolution.policies.atari_nets:Small", "a million parameters at 18 actions"),
    "atari-virtual-batch-norm": (
        "evolution.policies.atari_nets:VirtualBatchNorm",
        "the same, normalized by a reference batch, for evolution strategies",
    ),
}
"""By name: where it is, and what it is."""


def as_policy(
    spec: Any,
    spaces: Spaces,
    options: Mapping[str, Any] | None = None,
    environment: Environment | None = None,
) -> Policy:
    """Return the policy that is meant.

    Args:
        spec: A name of `POLICIES`; a `Policy`; a `torch.nn.Module`, a function of the spaces that returns
            one, or "module:name" of either; None for "mlp", or "atari-large" where observations are pictures.
        spaces: What it is to fit.
        options: Further arguments of what is named, and of a class or function of the user's; "gains" and
            "device" are those of `TorchPolicy`.
        environment: Where a policy that chooses at random is watched, if a reference batch is needed and
            none is among the options.

    Raises:
        TypeError: It is none of these, or an option is unknown.
        ValueError: Its name is unknown, it does not fit the spaces, or it needs a reference batch and there
            is no environment to collect one in.
    """
    given = dict(options or {})
    if spec is None:
        spec = "mlp" if isinstance(spaces.observations, Vector) else "atari-large"
    if isinstance(spec, Policy):
        if spec.spaces != spaces:
            raise ValueError(
                f"`policy` must be for the environment's spaces, {spaces}; it is for {spec.spaces}."
            )
        if given:
            raise ValueError(f"`policy_options` must be left out where `policy` is one, got {given!r}.")
        return spec
    if isinstance(spec, str) and ":" not in spec:
        if spec not in POLICIES:
            raise ValueError(
                f'`policy` must be one of {", ".join(map(repr, POLICIES))}, "module:name" or a '
                f"torch.nn.Module, got {spec!r}.{hint(spec, POLICIES)}"
            )
        module, _, name = POLICIES[spec][0].partition(":")
        kind = getattr(importlib.import_module(module), name)
        known = [name for name in inspect.signature(kind).parameters if name != "spaces"]
        check_known(f"options of the policy {spec!r}", given, known)
        if "reference" in known and "reference" not in given:
            if environment is None:
                raise ValueError(
                    f"`policy_options` must have a `reference` for the policy {spec!r}, where there is no "
                    'environment to collect one in: observations, or a game such as "ALE/Frostbite-v5".'
                )
            from evolution.policies.atari_nets import collect_reference

            given["reference"] = collect_reference(environment, Key(0))
        made: Policy = kind(spaces, **given)
        return made
    from evolution.policies.torch_policy import TorchPolicy  # which takes torch

    ours = {name: given.pop(name) for name in ("gains", "device") if name in given}
    policy: Policy = TorchPolicy(spec, spaces, **ours, options=given)
    return policy
