"""Networks of torch as policies: the user's own, on a CPU or on a GPU."""

from __future__ import annotations

import copy
import hashlib
import inspect
import math
import warnings
from collections.abc import Callable, Mapping
from types import CellType, FunctionType
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import nn
from torch.func import functional_call, vmap
from torch.nn.modules.lazy import LazyModuleMixin

from evolution.environments.spaces import Continuous, Image, Spaces
from evolution.policies.actions import Rule, outputs_of, rule_of
from evolution.policies.columns import SIDE_BY_SIDE
from evolution.policies.policy import Actor, Piece, Policy
from zoo.core.fingerprint import digest
from zoo.core.named import described, is_of_others, named
from zoo.core.rng import Key, keyed_generators
from zoo.core.validation import check_known, check_number

Array = np.ndarray[Any, Any]
State: TypeAlias = Any
"""A tensor whose first axis are the episodes, or a tuple, list or dict of such; None at the start."""

_SMALL = 2**15  # parameters; 256 members side by side take half of the time there, and all of it at 2^16
_ON_DEVICE = 2**28  # parameters of all members that are computed side by side on a GPU: a GB
_TRIED = 2  # observations, and members, that a network is tried with


class TorchPolicy(Policy):
    """The user's own `torch.nn.Module` as a family of policies, one for each row of its parameters.

    `forward` is called with a batch of observations: float32 of shape (k, size), or of shape (k, channels,
    height, width) from 0 to 1 where they are pictures. It returns outputs of shape (k, n):

    * one choice of n: the largest output; several choices: that of each group, one after the other;
    * switches: on where the output is above 0;
    * numbers: the outputs themselves, not beyond the walls; what is not a number counts as 0.

    A network that remembers has a `forward` of two arguments, `forward(observations, state)`, and returns
    (outputs, state); a second argument with another default than None is left at that. The state is a tensor
    whose first axis is the k episodes, or a tuple, list or dict of such; at the start it is
    `initial_state(k)` where the network has that method, else None.

    In a first policy, tensors that are the same number throughout stay as the network has them, such as the
    1 of a normalization, or a first state of zeros. Else weights are ~ N(0, 1 / fan_in) where they have two
    axes or more, fan_in being the product of all axes but the first; biases are 0; and others are drawn with
    the mean and deviation that they have. A weight or a bias of a single number is taken for drawn unless
    that is 0 or 1. What was learned before is not used: it is the place of `evolve`'s `start` to begin with
    that. Buffers are fixed, and the network is in evaluation mode.

    On a CPU, members of up to 32,768 parameters are computed side by side by `torch.func.vmap`, larger ones
    one after the other, which is as quick; the episodes of a single member always go through it together. A
    network that `vmap` cannot take, or not as a whole, is computed member by member.

    Args:
        module: The network; a class or function that makes one, called with the spaces where it has a
            parameter of that name or needs a first argument that is not among the options; or "module:name"
            of either.
        spaces: What it is for.
        gains: What the deviation of first weights is multiplied by, by name of the tensor.
        device: Where it computes: "cpu", or "cuda" and the like, which only workers need to have.
        options: Further arguments of the class or function.

    Raises:
        TypeError: `module` is nothing of this, returns no tensor, or takes no option of a name.
        ValueError: It has no parameters, does not fit the spaces, or returns other outputs when it is called
            again; it is a network that is built, and there are options; `gains` names no tensor; `device` is
            none that torch knows.

    Example:
        >>> from evolution.environments.spaces import Discrete, Vector
        >>> network = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))
        >>> policy = TorchPolicy(network, Spaces(Vector(4), Discrete(2)))
        >>> [(piece.name, piece.shape, round(piece.std, 2)) for piece in policy.pieces][:2]
        [('0.weight', (8, 4), 0.5), ('0.bias', (8,), 0.0)]
        >>> actor = policy.actor(np.zeros((1, policy.dim), np.float32), np.array([0, 0, 0]))
        >>> actor.act(np.ones((4, 3), np.float32))
        array([0, 0, 0])
    """

    def __init__(
        self,
        module: Any,
        spaces: Spaces,
        *,
        gains: Mapping[str, float] | None = None,
        device: str = "cpu",
        options: Mapping[str, Any] | None = None,
    ) -> None:
        self.spaces = spaces
        self.device = _device(device)
        network, self._origin = _network(module, spaces, options or {})
        self.is_recurrent = _remembers(network)
        self._shown, self._code = repr(network), _code(network)
        with keyed_generators(Key(0)):  # of which lazy layers draw their first numbers
            tried = copy.deepcopy(network)  # whatever it keeps of that is not to be met in an episode
            _try(tried, spaces, self.is_recurrent)
        network = _grown(network, tried).to(torch.float32)
        self.pieces = _pieces(network, gains or {})
        self._buffers = _digest(network)
        self._network = _emptied(network)
        self._on_device: dict[str, list[torch.Tensor]] = {}
        self._is_mixable = self._can_mix()
        if not self._is_mixable:
            self.members = 1
        elif self.device == "cpu":
            self.members = SIDE_BY_SIDE if self.dim <= _SMALL else 1
        else:
            self.members = max(1, min(SIDE_BY_SIDE, _ON_DEVICE // self.dim))

    def _can_mix(self) -> bool:
        """Return whether `vmap` can take the network."""
        rows = torch.zeros(_TRIED, self.dim)
        mixed = _Mixed(self, rows, np.arange(_TRIED), "cpu")
        seen = _no_observations(self.spaces.observations)
        try:
            with warnings.catch_warnings():
                # What it has no rule for it does in a loop over members, slower than they are one by one.
                warnings.filterwarnings("error", "There is a performance drop", UserWarning)
                mixed.act(seen)
                mixed.act(seen)  # with a state, where there is one
        except Exception:  # whatever it does not know raises another one
            return False
        return True

    def actor(self, parameters: Any, of: Array) -> Actor:
        rows = _tensor(parameters).to(self.device)
        of = np.asarray(of)
        members, counts = np.unique(of, return_counts=True)
        if len(members) == 1:
            return _Alone(self, rows[int(members[0])], len(of))
        if self._is_mixable:
            return _Mixed(self, rows, of, self.device)
        alone = [_Alone(self, rows[row], count) for row, count in zip(members, counts, strict=True)]
        return _OneByOne(alone, counts)

    def network(self, row: Any) -> nn.Module:
        """Return the network with a row of parameters in it, which share its memory."""
        made = self.blank(self.device)
        values = _split(_tensor(row).to(self.device), self.pieces)
        given = {
            id(old): nn.Parameter(values[name], requires_grad=False) for name, old in made.named_parameters()
        }
        for owner in made.modules():
            for name, old in list(owner.named_parameters(recurse=False, remove_duplicate=False)):
                setattr(owner, name, given[id(old)])
        return made

    def blank(self, device: str) -> nn.Module:
        """Return a network of one's own on a device, without parameters; buffers are shared."""
        known = self._on_device
        if device not in known:
            known[device] = [one.to(device) for one in self._network.buffers()]
        shared = {id(one): there for one, there in zip(self._network.buffers(), known[device], strict=True)}
        made: nn.Module = copy.deepcopy(self._network, shared)
        return made

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_on_device": {}}

    def describe(self) -> dict[str, Any]:
        return {
            "name": "torch",
            "module": self._origin,
            "layers": self._shown,
            "code": self._code,
            "pieces": [[piece.name, list(piece.shape), piece.std, piece.mean] for piece in self.pieces],
            "buffers": self._buffers,
            "device": self.device,
        }


class _Alone(Actor):
    """One member, its episodes as a batch."""

    def __init__(self, policy: TorchPolicy, row: torch.Tensor, count: int) -> None:
        self._network = policy.network(row)
        self._see, self._decide = _eye(policy), _decision(policy.spaces)
        self._is_recurrent = policy.is_recurrent
        with torch.inference_mode():
            self._state = _first_state(policy, count) if self._is_recurrent else None

    @torch.inference_mode()
    def act(self, observations: Array) -> Array:
        seen = self._see(observations)
        if self._is_recurrent:
            outputs, self._state = self._network(seen, self._state)
        else:
            outputs = self._network(seen)
        return self._decide(outputs)

    def keep(self, which: Array) -> None:
        chosen = torch.from_numpy(which)
        self._state = _mapped(lambda one: one[chosen.to(one.device)], self._state)


class _Mixed(Actor):
    """Several members side by side.

    Episode i is number `place[i]` of member `of[i]` in arrays of (members, most episodes of one, ...). What
    is not in use there is computed in vain, until half of the members have none left.
    """

    def __init__(self, policy: TorchPolicy, rows: torch.Tensor, of: Array, device: str) -> None:
        self._policy, self._device = policy, device
        self._network = policy.blank(device)
        self._see, self._decide = _eye(policy, device), _decision(policy.spaces)
        members, self._of = np.unique(of, return_inverse=True)
        self._rows = rows if len(members) == len(rows) else rows[torch.from_numpy(members).to(device)]
        self._state: State = None
        self._has_state = False
        self._arrange()
        with torch.inference_mode():
            if policy.is_recurrent:
                first = _first_state(policy, self._shape[1], device)
                self._has_state = first is not None
                self._state = _mapped(lambda one: one.expand(self._shape[0], *one.shape), first)

    def _arrange(self) -> None:
        """Lay out the episodes, and the weights of their members."""
        place = _places(self._of)
        self._shape = (len(self._rows), int(place.max()) + 1)
        self._is_full = len(place) == math.prod(self._shape)
        # Where each episode lies in arrays of (members x most episodes, ...).
        self._flat = torch.from_numpy(self._of * self._shape[1] + place).to(self._device)
        self._weights = {
            piece.name: part
            for piece, part in zip(self._policy.pieces, _parts(self._rows, self._policy.pieces), strict=True)
        }

    def _forward(self, seen: torch.Tensor) -> torch.Tensor:
        network = self._network
        outputs: torch.Tensor
        if not self._policy.is_recurrent:
            outputs = vmap(lambda own, one: functional_call(network, own, (one,)))(self._weights, seen)
        elif self._has_state:
            outputs, self._state = vmap(lambda own, one, state: functional_call(network, own, (one, state)))(
                self._weights, seen, self._state
            )
        else:
            outputs, self._state = vmap(lambda own, one: functional_call(network, own, (one, None)))(
                self._weights, seen
            )
            self._has_state = self._state is not None
        return outputs

    @torch.inference_mode()
    def act(self, observations: Array) -> Array:
        outputs = self._forward(self._laid_out(self._see(observations)))
        return self._decide(outputs.flatten(0, 1) if self._is_full else outputs.flatten(0, 1)[self._flat])

    def _laid_out(self, values: torch.Tensor) -> torch.Tensor:
        """Return an array of (members, most episodes, ...) of one of (episodes, ...)."""
        if self._is_full:
            return values.view(*self._shape, *values.shape[1:])
        whole = values.new_zeros(math.prod(self._shape), *values.shape[1:])
        whole[self._flat] = values
        return whole.view(*self._shape, *values.shape[1:])

    @torch.inference_mode()
    def keep(self, which: Array) -> None:
        flat = self._flat[torch.from_numpy(which).to(self._device)]
        states = _mapped(lambda one: one.flatten(0, 1)[flat], self._state)
        self._of = self._of[which]
        left = np.unique(self._of)
        if 2 * len(left) <= len(self._rows):
            self._rows = self._rows[torch.from_numpy(left).to(self._device)]
            self._of = np.searchsorted(left, self._of)
        self._arrange()
        self._state = _mapped(self._laid_out, states)


class _OneByOne(Actor):
    """Members one after the other, each with its episodes.

    Runs do not put several members of such policies side by side; it is for other callers of `Policy.actor`.
    """

    def __init__(self, actors: list[_Alone], counts: Array) -> None:
        self._actors, self._counts = actors, counts

    def act(self, observations: Array) -> Array:
        is_vector = observations.ndim == 2
        cuts = np.cumsum(self._counts)[:-1]
        parts = np.split(observations, cuts, axis=1 if is_vector else 0)
        return np.concatenate(
            [actor.act(part) for actor, part in zip(self._actors, parts, strict=True)], axis=-1
        )

    def keep(self, which: Array) -> None:
        start, actors, counts = 0, [], []
        for actor, count in zip(self._actors, self._counts.tolist(), strict=True):
            own = which[(which >= start) & (which < start + count)] - start
            start += count
            if len(own):
                actor.keep(own)
                actors.append(actor)
                counts.append(len(own))
        self._actors, self._counts = actors, np.array(counts)


def _places(of: Array) -> Array:
    """Return how many episodes of the same member stand before each; `of` is ascending."""
    starts = np.searchsorted(of, of)
    places: Array = np.arange(len(of)) - starts
    return places


def _parts(rows: torch.Tensor, pieces: tuple[Piece, ...]) -> list[torch.Tensor]:
    found, start = [], 0
    for piece in pieces:
        found.append(rows[..., start : start + piece.size].reshape(*rows.shape[:-1], *piece.shape))
        start += piece.size
    return found


def _split(row: torch.Tensor, pieces: tuple[Piece, ...]) -> dict[str, torch.Tensor]:
    return {piece.name: part for piece, part in zip(pieces, _parts(row, pieces), strict=True)}


def _tensor(values: Any) -> torch.Tensor:
    """Return a tensor of the same memory, or of a copy of what is not to be written to."""
    if isinstance(values, torch.Tensor):
        return values
    values = np.asarray(values)
    return torch.from_numpy(values if values.flags.writeable else values.copy())


def _eye(policy: TorchPolicy, device: str | None = None) -> Callable[[Array], torch.Tensor]:
    """Return what makes a batch of observations, moved once."""
    place = device or policy.device
    is_image = isinstance(policy.spaces.observations, Image)

    def see(observations: Array) -> torch.Tensor:
        seen = _tensor(observations).to(place)
        return seen.to(torch.float32).div_(255) if is_image else seen.t().contiguous()

    return see


def _decision(spaces: Spaces) -> Callable[[torch.Tensor], Array]:
    """Return what makes actions of a batch of outputs."""
    actions = spaces.actions
    rule: Rule
    if isinstance(actions, Continuous):
        low = np.array(actions.low, np.float32).reshape(-1, 1)
        high = np.array(actions.high, np.float32).reshape(-1, 1)

        def rule(outputs: Array) -> Array:
            known = np.where(np.isnan(outputs), np.float32(0), outputs)
            clipped: Array = np.clip(known, low, high)
            return clipped
    else:
        rule = rule_of(actions)
    return lambda outputs: rule(np.ascontiguousarray(outputs.float().cpu().numpy().T))


def _first_state(policy: TorchPolicy, count: int, device: str | None = None) -> State:
    begin = getattr(policy._network, "initial_state", None)
    place = device or policy.device
    return None if begin is None else _mapped(lambda one: one.to(place), begin(count))


def _mapped(function: Callable[[torch.Tensor], torch.Tensor], state: State) -> State:
    """Return a state of the same form, with a function of each of its tensors."""
    if state is None:
        return None
    if isinstance(state, torch.Tensor):
        return function(state)
    if isinstance(state, Mapping):
        return {name: _mapped(function, one) for name, one in state.items()}
    if isinstance(state, (tuple, list)):
        parts = [_mapped(function, one) for one in state]
        return type(state)(*parts) if hasattr(state, "_fields") else type(state)(parts)
    raise TypeError(
        "the state of a network must be a tensor whose first axis is the episodes, or a tuple, list or dict "
        f"of such, got {type(state).__name__}."
    )


def _network(module: Any, spaces: Spaces, options: Mapping[str, Any]) -> tuple[nn.Module, Any]:
    """Return a network of one's own, in evaluation mode, and what tells where it came from."""
    made = named("policy", module) if isinstance(module, str) else module
    origin: Any = module if isinstance(module, str) else None
    if isinstance(made, nn.Module):
        if options:
            raise ValueError(
                "`policy_options` must be left out where `policy` is a network that is built, apart from "
                f"`gains` and `device`, got {dict(options)!r}: give its class, or a function that makes one."
            )
        network = copy.deepcopy(made)
        kind = type(made)
        origin = origin or {"class": f"{kind.__module__}.{kind.__qualname__}"}
    elif callable(made):
        origin = {"name": origin, **described(made)} if origin else described(made)
        if options:
            origin["options"] = {name: _plain(value) for name, value in sorted(options.items())}
        with keyed_generators(Key(0)):  # what it draws is not used, and nobody else's to miss
            network = _made(made, spaces, options)
        if not isinstance(network, nn.Module):
            raise TypeError(
                f"`policy` must return a torch.nn.Module, got {type(network).__name__} from {made!r}."
            )
        network = copy.deepcopy(network)  # it may be one that it returns again
    else:
        raise TypeError(
            "`policy` must be a torch.nn.Module, a function of the spaces that returns one, or "
            f'"module:name" of either, got {module!r}.'
        )
    return network.eval(), origin


def _made(function: Callable[..., Any], spaces: Spaces, options: Mapping[str, Any]) -> Any:
    """Return what a class or function makes, given the spaces where it wants them.

    Raises:
        TypeError: It takes no option of a name.
    """
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):  # it is not written in Python
        return function(spaces, **options)
    own = [one for one in parameters.values() if one.kind is not one.VAR_POSITIONAL]
    if not any(one.kind is one.VAR_KEYWORD for one in own):
        known = {one.name for one in own if one.kind is not one.POSITIONAL_ONLY} - {"spaces"}
        name = getattr(function, "__qualname__", repr(function))
        check_known(f"options of the policy {name!r}", options, known | {"gains", "device"})
    if "spaces" in parameters and parameters["spaces"].kind is not inspect.Parameter.POSITIONAL_ONLY:
        return function(spaces=spaces, **options)
    first = next(iter(parameters.values()), None)
    by_name = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.VAR_KEYWORD)
    is_needed = first is not None and first.default is first.empty and first.kind not in by_name
    if first is not None and is_needed and first.name not in options:
        return function(spaces, **options)
    return function(**options)


def _plain(value: Any) -> Any:
    return value if value is None or isinstance(value, (bool, int, float, str)) else digest(value)


def _remembers(network: nn.Module) -> bool:
    """Return whether `forward` takes a state: a second argument that is needed, or None by default."""
    parameters = inspect.signature(network.forward).parameters.values()
    positional = [one for one in parameters if one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD)]
    second = positional[1].default if len(positional) >= 2 else False
    return second is None or second is inspect.Parameter.empty


def _grown(network: nn.Module, tried: nn.Module) -> nn.Module:
    """Return the network with those of its layers that were lazy as they are since they were tried."""
    if isinstance(network, LazyModuleMixin):
        return tried
    for path, child in list(network.named_modules(remove_duplicate=False)):
        if isinstance(child, LazyModuleMixin):
            owner, _, name = path.rpartition(".")
            setattr(network.get_submodule(owner), name, tried.get_submodule(path))
    return network


def _no_observations(space: Any) -> Array:
    if isinstance(space, Image):
        return np.zeros((_TRIED, space.channels, space.height, space.width), np.uint8)
    return np.zeros((space.size, _TRIED), np.float32)


def _try(network: nn.Module, spaces: Spaces, is_recurrent: bool) -> None:
    """Raise unless the network takes observations of these spaces, and puts out what actions need."""
    space = spaces.observations
    is_image = isinstance(space, Image)
    seen = torch.from_numpy(_no_observations(space))
    seen = seen.to(torch.float32) if is_image else seen.t().contiguous()
    # Numbers from 0 to 1, which are 0 where they are taken for whole ones.
    seen += torch.linspace(0, 0.9, seen.numel()).view(seen.shape)
    wanted = (_TRIED, outputs_of(spaces.actions))
    shape = tuple(seen.shape)
    network.to(torch.float32)

    def called() -> Any:
        if not is_recurrent:
            return network(seen)
        begin = getattr(network, "initial_state", None)
        return network(seen, None if begin is None else begin(_TRIED))

    try:
        with torch.no_grad():
            found, again = called(), called()
    except Exception as error:
        raise ValueError(
            f"`policy` must take a batch of observations of shape {('k', *shape[1:])!r}, as the environment "
            f"shows {space}. With one of shape {shape} it raised {type(error).__name__}: {error}"
        ) from error
    if is_recurrent:
        if not (isinstance(found, (tuple, list)) and len(found) == 2):
            raise TypeError(
                "`policy` has a `forward` of two arguments, so it must return (outputs, state), got "
                f"{type(found).__name__}."
            )
        (found, state), (again, _) = found, again
        _mapped(_first_axis, state)
    if not isinstance(found, torch.Tensor):
        raise TypeError(f"`policy` must return a tensor, got {type(found).__name__}.")
    if tuple(found.shape) != wanted:
        raise ValueError(
            f"`policy` must return outputs of shape (k, {wanted[1]}) for {spaces.actions}; for {_TRIED} "
            f"observations of shape {shape[1:]} it returned {tuple(found.shape)} instead of {wanted}."
        )
    if not torch.allclose(found.double(), again.double(), rtol=1e-4, atol=1e-6, equal_nan=True):
        raise ValueError(
            "`policy` must return the same outputs for the same observations, and a second call returned "
            "others: it draws numbers, or keeps something. What it is to remember from one step to the next "
            "is to be returned: `forward(observations, state)` returns (outputs, state)."
        )


def _first_axis(one: torch.Tensor) -> torch.Tensor:
    if one.ndim < 1 or one.shape[0] != _TRIED:
        raise ValueError(
            "the state of `policy` must be of tensors whose first axis is the episodes; for "
            f"{_TRIED} of them it has one of shape {tuple(one.shape)}."
        )
    return one


def _pieces(network: nn.Module, gains: Mapping[str, float]) -> tuple[Piece, ...]:
    named_ones = dict(network.named_parameters())
    if not named_ones:
        raise ValueError("`policy` must have parameters; this network has none.")
    try:
        check_known("tensor in `gains`", gains, named_ones)
    except TypeError as error:
        raise ValueError(str(error)) from None
    pieces = []
    for name, values in named_ones.items():
        shape = tuple(values.shape)
        mean, std = _law(name, values.detach())
        pieces.append(Piece(name, shape, std * check_number("gains", gains.get(name, 1.0)), mean))
    return tuple(pieces)


def _law(name: str, values: torch.Tensor) -> tuple[float, float]:
    """Return the mean and the standard deviation of the numbers that a first policy has here."""
    first = float(values.flatten()[0])
    # Biases of torch's layers are uniform numbers, but carry this name, or bias_ih_l0 and the like.
    is_bias = name.rpartition(".")[2].startswith("bias")
    may_be_drawn = values.numel() == 1 and (is_bias or values.ndim >= 2) and first not in (0, 1)
    if bool((values == first).all()) and not may_be_drawn:
        return first, 0.0
    if values.ndim >= 2:
        return 0.0, 1 / math.sqrt(values[0].numel())
    if is_bias:
        return 0.0, 0.0
    return float(values.mean()), float(values.std(correction=0))


def _code(network: nn.Module) -> str | None:
    """Return what tells code and attributes of the user's own layers from other ones; None without such."""
    found: list[Any] = []
    for path, module in network.named_modules():
        kind = type(module)
        if is_of_others(kind):
            continue
        methods = [value for _, value in sorted(vars(kind).items()) if isinstance(value, FunctionType)]
        # What a function has around it is not seen in its code.
        around = [cell.cell_contents for one in methods for cell in one.__closure__ or () if _is_filled(cell)]
        own = {name: value for name, value in vars(module).items() if not name.startswith("_")}
        own.pop("training")
        found.append([path, described(kind), around, own])
    return digest(found) if found else None


def _is_filled(cell: CellType) -> bool:
    try:
        _ = cell.cell_contents
    except ValueError:
        return False
    return True


def _digest(network: nn.Module) -> str | None:
    """Return what tells the buffers of a network from other ones."""
    found = hashlib.sha256()
    buffers = dict(network.named_buffers())
    for name, values in buffers.items():
        found.update(f"{name} {values.dtype} {tuple(values.shape)} ".encode())
        found.update(values.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest() if buffers else None


def _emptied(network: nn.Module) -> nn.Module:
    """Return the network with parameters that have shapes and no numbers, so that it travels light."""
    shapes: dict[int, nn.Parameter] = {}
    for owner in network.modules():
        for name, values in list(owner.named_parameters(recurse=False, remove_duplicate=False)):
            if id(values) not in shapes:
                empty = nn.Parameter(torch.empty(values.shape, device="meta"), requires_grad=False)
                # What was met is kept, or another one might come to lie where it was.
                shapes[id(values)] = empty
                shapes[id(empty)] = empty
            setattr(owner, name, shapes[id(values)])
    return network


def _device(device: object) -> str:
    if not isinstance(device, str):
        raise TypeError(f'`device` must be a text such as "cpu" or "cuda", got {device!r}.')
    try:
        torch.device(device)
    except RuntimeError as error:
        raise ValueError(f'`device` must be "cpu", "cuda" or the like, got {device!r}: {error}') from None
    return device
