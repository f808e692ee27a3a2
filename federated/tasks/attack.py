"""One perturbation of an image that is to mislead the classifiers of all clients, which only answer."""

from __future__ import annotations

import copy
import functools
import math
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from federated.partition import Partition, Partitioner, as_partitioner, partitioned
from federated.task import Task
from federated.tasks.classifiers import as_hidden, logits, num_weights, train
from federated.tasks.data import load
from zoo.core.bounds import Bounds
from zoo.core.device import Array, Like, array_module, is_torch, to_numpy
from zoo.core.fingerprint import describe, digest
from zoo.core.named import named
from zoo.core.rng import Key
from zoo.core.validation import check_choice, check_count, check_flag, check_positive

STARTS = {"middle": 0.5, "published": 0.0}
"""Where z begins: at no perturbation, or at -epsilon everywhere, as the published code does."""

IMAGES = {"digits": (0.3, False), "mnist": (0.3, False), "cifar-10": (0.1, True)}
"""By name of the data, the published epsilon, and whether all channels share a perturbation."""

_CHUNK = 256  # images that are looked at at a time
_WEIGHT_DECAY = 1e-2  # so that classifiers are not sure of what they have never seen


class Perceptrons:
    """Fully connected classifiers, one for each client, as rows of weights.

    Args:
        weights: Shape (N, P), as `federated.tasks.classifiers.logits` takes them.
        sizes: Of the layers.
        about: What tells them from others; a digest of the weights by default.

    Raises:
        ValueError: The weights are not as many as sizes say.
    """

    joint = True

    def __init__(self, weights: Any, sizes: Sequence[int], about: Any = None) -> None:
        self.weights, self.sizes = np.asarray(to_numpy(weights)), tuple(sizes)
        if self.weights.ndim != 2 or self.weights.shape[1] != num_weights(self.sizes):
            raise ValueError(
                f"`weights` must have shape (clients, {num_weights(self.sizes)}) for layers of {self.sizes}, "
                f"got {self.weights.shape}."
            )
        self.num_clients, self.about = len(self.weights), digest(self.weights) if about is None else about
        self._known: dict[Like, Array] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_known": {}}

    def answer(self, client: int, images: Array) -> Any:
        """Return the logits of a client for images, shape (k, classes)."""
        return logits(self._like(images)[client : client + 1], _flat(images), self.sizes)[0]

    def answer_together(self, clients: np.ndarray[Any, Any], images: Array) -> Any:
        """Return the logits of each image's client, in one product of matrices for each layer.

        Args:
            clients: Whose each image is, ascending, shape (k,).
            images: Shape (k, ...).
        """
        flat = _flat(images)
        whose, counts = np.unique(clients, return_counts=True)
        most = int(counts.max())
        weights = self._like(images)[whose.tolist()]
        if (counts == most).all():
            return logits(weights, flat.reshape(len(whose), most, -1), self.sizes).reshape(len(flat), -1)
        places = np.repeat(np.arange(len(whose)), counts) * most
        places += np.concatenate([np.arange(count) for count in counts])
        padded = Like.of(flat).asarray(np.zeros((len(whose) * most, flat.shape[1])))
        padded[places.tolist()] = flat
        found = logits(weights, padded.reshape(len(whose), most, -1), self.sizes)
        return found.reshape(len(whose) * most, -1)[places.tolist()]

    def identity(self) -> Any:
        """Return what tells them from others."""
        return self.about

    def _like(self, images: Array) -> Array:
        like = Like.of(images)
        if like not in self._known:
            self._known[like] = like.asarray(self.weights)
        return self._known[like]


class Modules:
    """Classifiers that are modules of torch, one for each client.

    They answer in evaluation mode, in their own dtype and on their own device, and stay as they are.

    Args:
        models: Modules; or a function that returns that of a client, given its number, or "module:name" of
            one, which is called where it answers.
        num_clients: How many there are, where that is not the number of modules.
        device: Where they answer; where they are by default.

    Raises:
        TypeError: `models` is nothing of the kind.
        ValueError: There are none, or not as many as clients.
    """

    joint = False

    def __init__(self, models: Any, num_clients: int | None = None, device: str | None = None) -> None:
        from torch import nn

        models = list(models) if isinstance(models, (tuple, nn.ModuleList)) else models
        self.models, self.device = models, device
        self._function: Callable[[int], Any] | None = None
        self._built: dict[int, Any] = {}
        if isinstance(models, list):
            wrong = [one for one in models if not isinstance(one, nn.Module)]
            if wrong:
                raise TypeError(f"`models` must be modules of torch, got {wrong[0]!r}.")
            if not models or num_clients not in (None, len(models)):
                raise ValueError(
                    f"`models` must be one for each of {num_clients or 1} clients, got {len(models)}."
                )
        elif isinstance(models, nn.Module) or not (isinstance(models, str) or callable(models)):
            raise TypeError(
                "`models` must be modules of torch in a list, or a function that returns one, got "
                f"{models!r}."
            )
        else:
            if num_clients is None:
                raise TypeError("`num_clients` must be given where `models` is a function.")
            check_count("num_clients", num_clients)
            self._maker()
        self.num_clients = len(models) if num_clients is None else num_clients

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_function": None, "_built": {}}

    def answer(self, client: int, images: Array) -> Any:
        """Return the logits of a client for images, shape (k, classes)."""
        import torch

        from zoo.nn.evaluate import evaluating

        model = self._model(client)
        like = next((one for one in model.parameters()), torch.zeros(()))
        x = images if is_torch(images) else torch.from_numpy(np.ascontiguousarray(images))
        with evaluating(model):
            found = model(x.to(device=like.device, dtype=like.dtype))
        if found.ndim != 2 or len(found) != len(x):
            raise ValueError(
                f"`models` must return logits of shape ({len(x)}, classes) for {len(x)} images, and that of "
                f"client {client} returned {tuple(found.shape)}."
            )
        return found

    def identity(self) -> Any:
        """Return what tells them from others."""
        if isinstance(self.models, str):
            return self.models
        if callable(self.models):
            return describe(self.models)
        return digest([[repr(model), dict(model.state_dict())] for model in self.models])

    def _maker(self) -> Callable[[int], Any]:
        if self._function is None:
            made = named("models", self.models) if isinstance(self.models, str) else self.models
            if not callable(made):
                raise TypeError(f"`models` must be a function of a client's number, got {made!r}.")
            self._function = made
        return self._function

    def _model(self, client: int) -> Any:
        if client not in self._built:
            from torch import nn

            if isinstance(self.models, str) or callable(self.models):
                model = self._maker()(client)
                if not isinstance(model, nn.Module):
                    raise TypeError(f"`models` must return a module of torch, got {model!r}.")
            else:
                model = self.models[client]
            if self.device is not None:
                model = copy.deepcopy(model).to(self.device)
            self._built[client] = model
        return self._built[client]


class Attack(Task):
    """A perturbation of one image, the same for all clients, under which their classifiers err.

        delta = epsilon (2 clip(z, 0, 1) - 1)
        f_i(z) = l_y - max_{k != y} l_k,    l the logits of client i's classifier for image + delta

    with y the right class. The attack has succeeded where F, the mean of all clients, is below 0. With a
    target t, it is to be what classifiers say instead: f_i = max_{k != t} l_k - l_t.

    `measure` has "success": 1 at a client whose own f_i is below 0.

    Args:
        models: `Perceptrons`, or `Modules`; or modules of torch, as `Modules` takes them.
        image: As the classifiers take it, without the dimension of examples.
        label: y.
        num_clients: How many clients there are, where `models` is a function.
        epsilon: How far a pixel may be changed, above 0.
        target: t; None for any class but the right one, "next" for the class behind it.
        start: Where z begins: "middle" for no perturbation, "published" for -epsilon everywhere.
        shared: Whether the first dimension of the image is one of channels that share a perturbation.
        device: Where modules answer; where they are by default.

    Attributes:
        image: The image, shape (...), single precision.
        label: y.
        target: t, or None.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: An argument is outside its range, or the classifiers do not fit the image.

    References:
        Shu, Lin, Dai and Low, "Federated zeroth-order optimization using trajectory-informed surrogate
        gradients", 2023. https://arxiv.org/abs/2308.04077
    """

    measures = ("success",)

    def __init__(
        self,
        models: Any,
        image: Any,
        label: int,
        *,
        num_clients: int | None = None,
        epsilon: float = 0.3,
        target: int | str | None = None,
        start: str = "middle",
        shared: bool = False,
        device: str | None = None,
    ) -> None:
        self.epsilon = check_positive("epsilon", epsilon)
        self.origin = check_choice("start", start, STARTS)
        self.image = np.asarray(to_numpy(image), np.float32)
        if not self.image.size or not np.isfinite(self.image).all():
            raise ValueError("`image` must hold finite numbers, at least one.")
        self.shared = check_flag("shared", shared)
        if shared and self.image.ndim < 2:
            raise ValueError(f"`image` must have channels to be shared, got shape {self.image.shape}.")
        self.dim = math.prod(self.image.shape[1:] if shared else self.image.shape)
        self.bounds = Bounds(np.zeros(self.dim), np.ones(self.dim))
        holds = isinstance(models, (Perceptrons, Modules))
        self.models: Perceptrons | Modules = models if holds else Modules(models, num_clients, device)
        if num_clients not in (None, self.models.num_clients):
            raise ValueError(
                f"`num_clients` must be that of `models`, {self.models.num_clients}, got {num_clients!r}."
            )
        self.num_clients, self.joint = self.models.num_clients, self.models.joint
        if isinstance(models, Perceptrons) and models.sizes[0] != self.image.size:
            raise ValueError(
                f"`image` must have {models.sizes[0]} pixels for these classifiers, got {self.image.size}."
            )
        classes = self.models.answer(0, self.image[None]).shape[1]
        self.label = _check_class("label", label, classes)
        self.target: int | None = None
        if target is not None:
            self.target = (
                (label + 1) % classes if target == "next" else _check_class("target", target, classes)
            )
        if self.target == self.label:
            raise ValueError(f"`target` must be another class than `label`, got {target!r}.")

    def start(self, key: Key) -> Array:
        """Return where z begins, whatever the key."""
        return np.full(self.dim, STARTS[self.origin])

    def values(self, client: int, x: Array, *, key: Key) -> Any:
        return self._margins(self.models.answer(client, self._perturbed(x)), x)

    def joint_values(self, clients: np.ndarray[Any, Any], x: Array, keys: Sequence[Key]) -> Any:
        assert isinstance(self.models, Perceptrons)
        return self._margins(self.models.answer_together(clients, self._perturbed(x)), x)

    def gradient(self, client: int, x: Array) -> Array:
        import torch

        like = Like.of(x)
        along = (x if is_torch(x) else torch.from_numpy(np.array(x))).detach().clone().requires_grad_()
        with torch.enable_grad():
            found = self.models.answer(client, self._perturbed(along[None]))
            margin = _margin(found, *self._aim())[0]
        return like.asarray(torch.autograd.grad(margin, along)[0])

    def measure(self, client: int, x: Array) -> dict[str, float]:
        value = float(self.values(client, x[None], key=Key(0))[0])
        return {"value": value, "success": float(value < 0)}

    def succeeded(self, x: Array) -> bool:
        """Whether the classifiers err together: F(x) < 0."""
        return self.value(x) < 0

    def identity(self) -> Mapping[str, Any]:
        return {**describe(self), "models": self.models.identity()}

    def _aim(self) -> tuple[int, float]:
        """Return the class whose margin counts, and its sign."""
        return (self.label, 1.0) if self.target is None else (self.target, -1.0)

    def _perturbed(self, x: Array) -> Any:
        """Return the image with perturbations, shape (k, ...)."""
        like, xp = Like.of(x), array_module(x)
        delta = self.epsilon * (2 * xp.clip(x, 0, 1) - 1)
        shape = self.image.shape[1:] if self.shared else self.image.shape
        return like.asarray(self.image) + delta.reshape(len(x), *([1] * self.shared), *shape)

    def _margins(self, found: Any, x: Array) -> Any:
        if is_torch(found):
            found = found.detach()
        return _margin(found, *self._aim())


def attack(
    data: str = "digits",
    image: int = 0,
    num_clients: int = 5,
    *,
    folder: str | os.PathLike[str] | None = None,
    partition: Any = "pathological:5",
    hidden: int | Sequence[int] = 32,
    training_steps: int = 300,
    models: Any = None,
    epsilon: float | None = None,
    target: int | str | None = None,
    start: str = "middle",
    shared: bool | None = None,
    device: str | None = None,
    key: Key | None = None,
) -> Attack:
    """Return an attack on an image that was not trained with, by classifiers of clients with skewed data.

    The classifiers are trained here, by back-propagation, each on its client's share of what there is to
    train on, and kept in this process for other images.

    Args:
        data: "digits", bundled with scikit-learn; or "mnist" or "cifar-10" from a folder.
        image: Which image, counted from 0 among those to test with that are to be attacked: those with
            F >= 0 at the start. See `attack_images`.
        num_clients: How many clients there are.
        folder: Where the data is, if it is not bundled.
        partition: How the data to train on is dealt; see `federated.partition.as_partitioner`.
        hidden: Hidden units of the classifiers; several numbers for several layers, 0 for none.
        training_steps: Mini-batches that they are trained on.
        models: Classifiers of your own in their place, as `Attack` takes them.
        epsilon: How far a pixel may be changed; the published value by default: 0.3, for CIFAR-10 0.1, there
            in the units of normalised images.
        target: As in `Attack`.
        start: As in `Attack`.
        shared: As in `Attack`; by default for CIFAR-10 only, as published.
        device: As in `Attack`.
        key: Randomness of the partition and of the training; Key(0) by default.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: An argument is outside its range, or there are not as many images to be attacked.
        FileNotFoundError: The folder does not hold the data.
        ModuleNotFoundError: The data needs scikit-learn, and it is not installed.

    Example:
        >>> task = attack(image=3)
        >>> task.dim, task.value(task.start(Key(0))) >= 0
        (64, True)
    """
    check_choice("data", data, IMAGES)
    check_count("image", image, minimum=0)
    check_choice("start", start, STARTS)
    _check_target(target)
    if key is not None and not isinstance(key, Key):
        raise TypeError(f"`key` must be a Key, such as Key(0), got {key!r}.")
    key = Key(0) if key is None else key
    usual, is_shared = IMAGES[data]
    epsilon = usual if epsilon is None else check_positive("epsilon", epsilon)
    shared = is_shared if shared is None else check_flag("shared", shared)
    examples = _loaded(data, None if folder is None else os.fspath(folder))
    if models is None:
        models = _trained(
            data,
            None if folder is None else os.fspath(folder),
            check_count("num_clients", num_clients),
            as_partitioner(partition),
            as_hidden(hidden),
            check_count("training_steps", training_steps),
            key,
        )
    elif not isinstance(models, (Perceptrons, Modules)):
        is_function = isinstance(models, str) or not hasattr(models, "__len__")
        models = Modules(models, num_clients if is_function else None, device)
    chosen = attack_images(
        models,
        examples.test_inputs,
        examples.test_labels,
        image + 1,
        target=target,
        shift=epsilon * (2 * STARTS[start] - 1),
    )
    if not len(chosen):
        raise ValueError(
            "there is no image to attack: on none of those to test with are the classifiers right together "
            "at the start. Have them trained longer, or on a less skewed `partition`."
        )
    if len(chosen) <= image:
        raise ValueError(f"`image` must be below {len(chosen)}, the number of images to attack, got {image}.")
    index = int(chosen[image])
    return Attack(
        models,
        examples.test_inputs[index],
        int(examples.test_labels[index]),
        epsilon=epsilon,
        target=target,
        start=start,
        shared=shared,
    )


def attack_images(
    models: Perceptrons | Modules,
    images: np.ndarray[Any, Any],
    labels: np.ndarray[Any, Any],
    count: int | None = None,
    *,
    target: int | str | None = None,
    shift: float = 0.0,
) -> np.ndarray[Any, Any]:
    """Return the numbers of the first images on which the classifiers are right together: F >= 0.

    Args:
        models: The classifiers.
        images: Shape (n, ...).
        labels: Shape (n,).
        count: How many are wanted; None for all there are.
        target: As in `Attack`; images of the target's own class are left out.
        shift: What is added to every pixel before they are looked at.

    Returns:
        Ascending, at most `count`.
    """
    found: list[int] = []
    for first in range(0, len(images), _CHUNK):
        rows = slice(first, first + _CHUNK)
        wanted = np.asarray(labels[rows])
        total = np.zeros(len(wanted))
        for client in range(models.num_clients):
            answers = np.asarray(
                to_numpy(models.answer(client, images[rows] + np.float32(shift))), np.float64
            )
            aim, sign = wanted, 1.0
            if target is not None:
                aim = (wanted + 1) % answers.shape[1] if target == "next" else np.full_like(wanted, target)
                sign = -1.0
                if target != "next":
                    _check_class("target", target, answers.shape[1])
            total += _margin(answers, aim, sign)
        found.extend((first + np.flatnonzero((total >= 0) & ((aim != wanted) | (sign > 0)))).tolist())
        if count is not None and len(found) >= count:
            return np.array(found[:count])
    return np.array(found, np.int64)


def _margin(answers: Any, aim: Any, sign: float) -> Any:
    """Return a class's logit less the largest of all others, times a sign, shape (k,).

    Args:
        answers: Logits, shape (k, classes).
        aim: A class, or one for each row.
        sign: 1 or -1.
    """
    xp = array_module(answers)
    classes = np.arange(answers.shape[1])
    is_aim: Any = classes == np.reshape(aim, (-1, 1))
    if xp is not np:
        is_aim = xp.from_numpy(is_aim).to(answers.device)
    worst = xp.full_like(answers, -math.inf)
    own = xp.amax(xp.where(is_aim, answers, worst), -1)
    return sign * (own - xp.amax(xp.where(is_aim, worst, answers), -1))


def _flat(images: Array) -> Any:
    return images.reshape(len(images), math.prod(images.shape[1:]))


def _check_target(target: Any) -> None:
    if target is not None and target != "next":
        check_count("target", target, minimum=0)


def _check_class(name: str, value: Any, classes: int) -> int:
    if check_count(name, value, minimum=0) >= classes:
        raise ValueError(f"`{name}` must be below {classes}, the number of classes, got {value!r}.")
    return int(value)


@functools.lru_cache(maxsize=4)
def _loaded(data: str, folder: str | None) -> Any:
    return load(data, folder)


@functools.lru_cache(maxsize=8)
def _trained(
    data: str,
    folder: str | None,
    num_clients: int,
    partition: Partition,
    hidden: tuple[int, ...],
    steps: int,
    key: Key,
) -> Perceptrons:
    """Return classifiers, each trained on a client's share, once in this process."""
    examples = _loaded(data, folder)
    parts = partitioned(partition, examples.labels, num_clients, key.fold("partition"))
    inputs = examples.inputs.reshape(len(examples.inputs), -1)
    sizes = (inputs.shape[1], *hidden, examples.num_classes)
    weights = train(
        inputs,
        examples.labels,
        parts,
        sizes,
        steps=steps,
        learning_rate=0.01,
        weight_decay=_WEIGHT_DECAY,
        key=key.fold("training"),
    )
    dealt = repr(partition) if isinstance(partition, Partitioner) else describe(partition)
    about = {"data": data, "partition": dealt, "layers": sizes, "training_steps": steps, "key": str(key)}
    return Perceptrons(weights, sizes, about)
