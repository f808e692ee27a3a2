"""Partitions: which examples belong to which client.

A partitioner is called as `partitioner(labels, num_clients, key)` and returns an array of indices for each
client. Every example belongs to exactly one client, and every client has at least one.
"""

from __future__ import annotations

import abc
import ast
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from zoo.core.device import Array, to_numpy
from zoo.core.named import named
from zoo.core.rng import Key
from zoo.core.validation import check_count, check_flag, check_known, check_positive, hint, listed

Indices: TypeAlias = np.ndarray[Any, Any]
Partition: TypeAlias = Callable[[Any, int, Key], Sequence[Indices]]

_DRAWS = 100  # partitions that are drawn before a wish for larger clients is given up
LAWS = {
    "linear": lambda i: i + 1.0,
    "square": lambda i: (i + 1.0) ** 2,
    "exponential": lambda i: np.exp(i - i[-1]),
}
"""By name, how large client i is, from 0, in units of its own."""


class Partitioner(abc.ABC):
    """What deals examples to clients. Subclasses are frozen dataclasses and define `_deal`."""

    rebalance: bool = False
    """Whether clients that would have too little are given examples of the largest ones."""

    least: int = 1
    """How many examples a client has at least."""

    _by_class = True

    def __call__(self, labels: Array, num_clients: int, key: Key) -> list[Indices]:
        """Return the indices of each client's examples, ascending.

        Args:
            labels: One for each example, shape (n,), integers or text; those who only look at their number
                take anything that has a length.
            num_clients: How many clients there are.
            key: Randomness of the partition.

        Raises:
            TypeError: An argument has the wrong type.
            ValueError: There are fewer examples than clients need, or a client would be without any.
        """
        check_count("num_clients", num_clients)
        if not isinstance(key, Key):
            raise TypeError(f"`key` must be a Key, such as Key(0), got {key!r}.")
        classes = _classes(labels) if self._by_class else np.zeros(len(labels), np.int64)
        if len(classes) < num_clients * self.least:
            raise ValueError(
                f"`num_clients` must be at most {len(classes) // self.least} for {len(classes)} examples"
                f"{f', {self.least} for each' if self.least > 1 else ''}, got {num_clients}."
            )
        parts = self._deal(classes, num_clients, key)
        if self.rebalance:
            parts = _rebalanced(parts, self.least)
        _check_sizes(parts, self.least)
        return [np.sort(part) for part in parts]

    @abc.abstractmethod
    def _deal(self, classes: Indices, num_clients: int, key: Key) -> list[Indices]:
        """Return the indices of each client's examples, in random order.

        Args:
            classes: The number of each example's class, from 0; every class has an example.
            num_clients: How many clients there are.
            key: Randomness of the partition.
        """


@dataclass(frozen=True)
class IID(Partitioner):
    """Examples dealt at random, to all clients as many, or one more.

    Example:
        >>> [len(part) for part in IID()(np.zeros(10), 3, Key(0))]
        [3, 4, 3]
    """

    _by_class = False

    def _deal(self, classes: Indices, num_clients: int, key: Key) -> list[Indices]:
        return _cut(_shuffled(np.arange(len(classes)), key), np.ones(num_clients))


@dataclass(frozen=True)
class Dirichlet(Partitioner):
    """Every class cut into shares drawn from a symmetric Dirichlet distribution, one for each client.

    With `alpha` towards infinity all clients have the same mixture of classes; towards 0, each class is all
    with one client. Where a client has fewer examples than `min_size`, all is drawn again, at most 100 times.

    Args:
        alpha: Above 0.
        min_size: Examples that every client has at least, 1 or more.
        self_balancing: Whether a client that has its n / N examples or more is passed over in the classes
            that follow.
        rebalance: Whether clients that have too little after the first draw are given examples of the largest
            ones, instead of a new draw.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: An argument is outside its range.

    Example:
        >>> labels = np.repeat(np.arange(4), 25)
        >>> parts = Dirichlet(0.3, min_size=5)(labels, 3, Key(0))
        >>> sum(len(part) for part in parts), min(len(part) for part in parts) >= 5
        (100, True)

    References:
        Yurochkin, Agarwal, Ghosh, Greenewald, Hoang and Khazaeni, "Bayesian nonparametric federated learning
        of neural networks", 2019. https://arxiv.org/abs/1905.12022
    """

    alpha: float = 0.5
    min_size: int = 1
    self_balancing: bool = False
    rebalance: bool = False

    def __post_init__(self) -> None:
        check_positive("alpha", self.alpha)
        check_count("min_size", self.min_size)
        check_flag("self_balancing", self.self_balancing)
        check_flag("rebalance", self.rebalance)

    @property
    def least(self) -> int:  # type: ignore[override]
        """How many examples a client has at least."""
        return self.min_size

    def _deal(self, classes: Indices, num_clients: int, key: Key) -> list[Indices]:
        for draw in range(1 if self.rebalance else _DRAWS):
            parts = self._drawn(classes, num_clients, key.fold("draw", draw))
            if min(map(len, parts)) >= self.min_size:
                break
        return parts

    def _drawn(self, classes: Indices, num_clients: int, key: Key) -> list[Indices]:
        count = int(classes.max()) + 1
        logs = _logs(key.fold("shares"), self.alpha, count, num_clients)
        sizes = np.zeros(num_clients)
        found: list[list[Indices]] = [[] for _ in range(num_clients)]
        for number, row in enumerate(logs):
            if self.self_balancing:
                row = np.where(sizes < len(classes) / num_clients, row, -np.inf)
            dealt = _cut(_of_class(classes, number, key), _shares(row))
            for client, part in enumerate(dealt):
                found[client].append(part)
                sizes[client] += len(part)
        return [np.concatenate(parts) for parts in found]


@dataclass(frozen=True)
class Pathological(Partitioner):
    """Examples of exactly k classes on every client; every class is with as many clients, or with one more.

    Clients take those k classes that were taken least so far, at random among equals. The clients of a class
    share its examples evenly.

    Args:
        classes_per_client: k, at least 1.

    Raises:
        TypeError: `classes_per_client` is no integer.
        ValueError: It is below 1; or, when called, there are fewer classes than k, more than clients can
            take, or a class has fewer examples than clients.

    Example:
        >>> labels = np.repeat(np.arange(4), 25)
        >>> [len(set(labels[part])) for part in Pathological(2)(labels, 5, Key(0))]
        [2, 2, 2, 2, 2]

    References:
        McMahan, Moore, Ramage, Hampson and Agüera y Arcas, "Communication-efficient learning of deep networks
        from decentralized data", 2017. https://arxiv.org/abs/1602.05629
    """

    classes_per_client: int = 2

    def __post_init__(self) -> None:
        check_count("classes_per_client", self.classes_per_client)

    def _deal(self, classes: Indices, num_clients: int, key: Key) -> list[Indices]:
        k, count = self.classes_per_client, int(classes.max()) + 1
        if not count / num_clients <= k <= count:
            raise ValueError(
                f"`classes_per_client` must be from {-(-count // num_clients)} to {count} for {count} "
                f"classes and {num_clients} clients, got {k}."
            )
        taken = np.zeros(count, np.int64)
        takers: list[list[int]] = [[] for _ in range(count)]
        for client, order in enumerate(key.fold("classes").permutation(0, num_clients, count)):
            chosen = order[np.argsort(taken[order], kind="stable")[:k]]
            taken[chosen] += 1
            for number in chosen:
                takers[number].append(client)
        found: list[list[Indices]] = [[] for _ in range(num_clients)]
        for number, clients in enumerate(takers):
            members = _of_class(classes, number, key)
            if len(members) < len(clients):
                raise ValueError(
                    f"`num_clients` must be fewer: class number {number} has {len(members)} examples for the "
                    f"{len(clients)} clients that are to have it."
                )
            for client, part in zip(clients, _cut(members, np.ones(len(clients))), strict=True):
                found[client].append(part)
        return [np.concatenate(parts) for parts in found]


@dataclass(frozen=True)
class Shards(Partitioner):
    """Examples sorted by class and cut into equal shards, of which every client is dealt a few.

    Args:
        shards_per_client: How many, at least 1.

    Raises:
        TypeError: `shards_per_client` is no integer.
        ValueError: It is below 1; or, when called, there are fewer examples than shards.

    Example:
        >>> labels = np.repeat(np.arange(4), 25)
        >>> [len(part) for part in Shards(2)(labels, 5, Key(0))]
        [20, 20, 20, 20, 20]

    References:
        McMahan, Moore, Ramage, Hampson and Agüera y Arcas, "Communication-efficient learning of deep networks
        from decentralized data", 2017. https://arxiv.org/abs/1602.05629
    """

    shards_per_client: int = 2

    def __post_init__(self) -> None:
        check_count("shards_per_client", self.shards_per_client)

    def _deal(self, classes: Indices, num_clients: int, key: Key) -> list[Indices]:
        count = num_clients * self.shards_per_client
        if len(classes) < count:
            raise ValueError(
                f"`shards_per_client` must be at most {len(classes) // num_clients} for {len(classes)} "
                f"examples and {num_clients} clients, got {self.shards_per_client}."
            )
        mixed = _shuffled(np.arange(len(classes)), key.fold("examples"))
        shards = _cut(mixed[np.argsort(classes[mixed], kind="stable")], np.ones(count))
        dealt = key.fold("shards").permutation(0, 1, count)[0].reshape(num_clients, -1)
        return [np.concatenate([shards[number] for number in numbers]) for numbers in dealt]


@dataclass(frozen=True)
class Sizes(Partitioner):
    """Examples dealt at random, to some clients more than to others.

    Args:
        sizes: How many each client has, relative to the sum; or "linear", "square" or "exponential" for sizes
            like 1, 2, 3, ..., like 1, 4, 9, ... and like 1, e, e^2, ...
        rebalance: Whether clients that would have none are given one each of the largest ones.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: A size is not above 0; or, when called, there are not as many as clients.

    Example:
        >>> [len(part) for part in Sizes("linear")(np.zeros(60), 3, Key(0))]
        [10, 20, 30]
    """

    sizes: str | Sequence[float] = "linear"
    rebalance: bool = False

    _by_class = False

    def __post_init__(self) -> None:
        check_flag("rebalance", self.rebalance)
        if isinstance(self.sizes, str):
            if self.sizes not in LAWS:
                raise ValueError(
                    f"`sizes` must be numbers or one of {listed(LAWS)}, got {self.sizes!r}."
                    f"{hint(self.sizes, LAWS)}"
                )
            return
        if not isinstance(self.sizes, (Sequence, np.ndarray)) or not len(self.sizes):
            raise TypeError(f"`sizes` must be numbers or one of {listed(LAWS)}, got {self.sizes!r}.")
        numbers = [one.item() if isinstance(one, np.generic) else one for one in self.sizes]
        object.__setattr__(self, "sizes", tuple(check_positive("sizes", one) for one in numbers))

    def _deal(self, classes: Indices, num_clients: int, key: Key) -> list[Indices]:
        if isinstance(self.sizes, str):
            sizes = LAWS[self.sizes](np.arange(num_clients, dtype=np.float64))
        else:
            sizes = np.array(self.sizes)
        if len(sizes) != num_clients:
            raise ValueError(
                f"`sizes` must be one for each of {num_clients} clients, got {len(sizes)} of them."
            )
        return _cut(_shuffled(np.arange(len(classes)), key), sizes)


@dataclass(frozen=True)
class Portions(Partitioner):
    """Every class cut into 10 P equal parts, which random clients are dealt: the partition of FZooS.

    With ten clients each has, in the mean, the portion P of all classes. The clients of a class are different
    ones; where there are more parts than clients, every client has had one before any has a second.

    Args:
        portion: P, above 0; 10 P is rounded, and 1 at least.
        rebalance: Whether clients that would have nothing are given examples of the largest ones.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: `portion` is not above 0.

    Example:
        >>> labels = np.repeat(np.arange(10), 10)
        >>> len(Portions(0.5)(labels, 10, Key(1)))
        10

    References:
        Shu, Lin, Dai and Low, "Federated zeroth-order optimization using trajectory-informed surrogate
        gradients", 2023. https://arxiv.org/abs/2308.04077
    """

    portion: float = 0.5
    rebalance: bool = False

    def __post_init__(self) -> None:
        check_positive("portion", self.portion)
        check_flag("rebalance", self.rebalance)

    def _deal(self, classes: Indices, num_clients: int, key: Key) -> list[Indices]:
        count = max(1, round(10 * self.portion))
        found: list[list[Indices]] = [[np.empty(0, np.int64)] for _ in range(num_clients)]
        for number in range(int(classes.max()) + 1):
            rounds = -(-count // num_clients)
            clients = key.fold("clients", number).permutation(0, rounds, num_clients).reshape(-1)[:count]
            parts = _cut(_of_class(classes, number, key), np.ones(count))
            for client, part in zip(clients, parts, strict=True):
                found[client].append(part)
        return [np.concatenate(parts) for parts in found]


PARTITIONERS: dict[str, type[Partitioner]] = {
    "iid": IID,
    "dirichlet": Dirichlet,
    "pathological": Pathological,
    "shards": Shards,
    "sizes": Sizes,
    "portions": Portions,
}
"""The partitioners by name."""


def as_partitioner(given: Any, **options: Any) -> Partition:
    """Return the partitioner that a name stands for.

    Args:
        given: A name of `PARTITIONERS`, with the first of its options behind a colon if it is wanted, as in
            "dirichlet:0.1"; a dictionary with it under "name" and options beside it; "module:name" of a
            function `partitioner(labels, num_clients, key)`; or one itself.
        options: Arguments of the partitioner.

    Raises:
        TypeError: `given` is nothing of the kind, or an option is unknown.
        ValueError: There is none of that name, or an option has a value that it cannot have.

    Example:
        >>> as_partitioner("dirichlet", alpha=0.1) == as_partitioner("dirichlet:0.1")
        True
    """
    if isinstance(given, Mapping):
        options = {**given, **options}
        given = options.pop("name", None)
        if given is None:
            raise ValueError(f"`partition` must say its `name`, one of {listed(PARTITIONERS)}.")
    if not isinstance(given, str):
        if isinstance(given, (list, tuple, np.ndarray)):
            raise TypeError(
                "`partition` must be a name or a function of labels, num_clients and key, got a "
                f"{type(given).__name__}: indices of each client are given as partition=lambda labels, "
                "num_clients, key: indices."
            )
        if not callable(given) or isinstance(given, type):
            raise TypeError(
                f"`partition` must be a name or a function of labels, num_clients and key, got {given!r}."
            )
        if options:
            raise TypeError(f"`partition` must be a name where there are options, got {given!r}.")
        return given
    name, colon, first = given.partition(":")
    if name in PARTITIONERS:
        kind = PARTITIONERS[name]
        known = [field.name for field in dataclasses.fields(kind)]  # type: ignore[arg-type]
        check_known(f"option of partition {name!r}:", options, known)
        if colon:
            if not known or known[0] in options:
                raise ValueError(f"`partition` must be {name!r} without {':' + first!r}, got {given!r}.")
            options[known[0]] = _literal(first)
        return kind(**options)
    if colon:
        try:
            found = named("partition", given)
        except ValueError:
            if near := hint(name, PARTITIONERS):
                raise ValueError(
                    f"unknown partition {name!r}.{near} Valid: {listed(PARTITIONERS)}, or "
                    '"module:name" of your own.'
                ) from None
            raise
        return as_partitioner(PARTITIONERS[found] if isinstance(found, str) else found, **options)
    raise ValueError(
        f"unknown partition {given!r}.{hint(given, PARTITIONERS)} Valid: {listed(PARTITIONERS)}, or "
        '"module:name" of your own.'
    )


def partitioned(partition: Any, labels: Array, num_clients: int, key: Key) -> list[Indices]:
    """Return what `as_partitioner(partition)` deals to each client, looked at where it is the user's own.

    Raises:
        TypeError: It returns no integers.
        ValueError: It does not return an array for each client; an example belongs to none of them, or to
            two; or a client has none.

    Example:
        >>> def halves(labels, num_clients, key):
        ...     return np.array_split(np.arange(len(labels)), num_clients)
        >>> [part.tolist() for part in partitioned(halves, np.zeros(4), 2, Key(0))]
        [[0, 1], [2, 3]]
    """
    partitioner = as_partitioner(partition)
    parts = [np.asarray(to_numpy(part)) for part in partitioner(labels, num_clients, key)]
    if isinstance(partitioner, Partitioner):
        return parts
    if len(parts) != num_clients:
        raise ValueError(
            f"`partition` must return indices for each of {num_clients} clients, got {len(parts)}."
        )
    _check_sizes(parts, 1)
    for client, part in enumerate(parts):
        if part.dtype.kind not in "iu" or part.ndim != 1:
            raise TypeError(
                f"`partition` must return rows of integers, got shape {part.shape} of {part.dtype} for "
                f"client {client}."
            )
    whole = np.sort(np.concatenate(parts))
    if len(whole) != len(labels) or (whole != np.arange(len(labels))).any():
        raise ValueError(
            f"`partition` must deal each of {len(labels)} examples to one client, and dealt {len(whole)}, "
            f"{len(np.unique(whole))} of them different."
        )
    return [np.sort(part).astype(np.int64) for part in parts]


def dirichlet(key: Key, alpha: float, rows: int, count: int) -> np.ndarray[Any, Any]:
    """Draw shares from the symmetric Dirichlet distribution, shape (rows, count); every row has the sum 1.

    A share is a gamma variable over the sum of all. Their logarithms are drawn, as those of a gamma variable
    of shape `alpha` + 1 plus log(u) / `alpha` with u uniform, so that the smallest `alpha` has rows too.

    Args:
        key: Randomness of the shares.
        alpha: Above 0; the smaller, the more one share of a row has of it all.
        rows: How many rows.
        count: Shares of a row.

    Example:
        >>> shares = dirichlet(Key(0), 0.1, 2, 5)
        >>> shares.shape, bool(np.allclose(shares.sum(1), 1))
        ((2, 5), True)

    References:
        Marsaglia and Tsang, "A simple method for generating gamma variables", 2000.
        https://doi.org/10.1145/358407.358414
    """
    return _shares(_logs(key, alpha, rows, count))


def _logs(key: Key, alpha: float, rows: int, count: int) -> np.ndarray[Any, Any]:
    """Return the logarithms of gamma variables, each row less a number of its own."""
    gamma = key.fold("gamma").generator().standard_gamma(alpha + 1, (rows, count))
    uniform = 1 - key.fold("uniform").generator().random((rows, count))  # above 0
    logs = alpha * np.log(gamma) + np.log(uniform)
    # Less the largest before they are divided: infinities would have no differences.
    with np.errstate(over="ignore"):
        return (logs - logs.max(1, keepdims=True)) / alpha


def _shares(logs: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return numbers of such logarithms over the sum of their row."""
    shares = np.exp(logs - logs.max(-1, keepdims=True))
    return shares / shares.sum(-1, keepdims=True)


def _classes(labels: Array) -> Indices:
    """Return the number of each label's class."""
    array = to_numpy(labels)
    if array.ndim != 1:
        raise ValueError(f"`labels` must have shape (n,), got {array.shape}.")
    if array.dtype.kind not in "iubUS":
        raise TypeError(
            f"`labels` must be integers or text where examples are dealt by class, got {array.dtype}: take "
            '"iid" or "sizes".'
        )
    return np.unique(array, return_inverse=True)[1].astype(np.int64)


def _shuffled(indices: Indices, key: Key) -> Indices:
    return indices[key.fold("order").permutation(0, 1, len(indices))[0]]


def _of_class(classes: Indices, number: int, key: Key) -> Indices:
    """Return the examples of a class in random order."""
    return _shuffled(np.flatnonzero(classes == number), key.fold("class", number))


def _cut(indices: Indices, shares: np.ndarray[Any, Any]) -> list[Indices]:
    """Cut a row into parts in proportion to shares, each off by less than one."""
    total = np.cumsum(shares / shares.max())
    return np.split(indices, np.rint(total[:-1] / total[-1] * len(indices)).astype(np.int64))


def _rebalanced(parts: list[Indices], least: int) -> list[Indices]:
    """Fill clients up to `least` examples, each from the client that has most at that time."""
    sizes = np.array([len(part) for part in parts])
    for client in np.flatnonzero(sizes < least):
        while sizes[client] < least:
            giver = int(sizes.argmax())
            count = max(1, min(least - int(sizes[client]), int(sizes[giver]) // 2))
            kept, given = parts[giver][:-count], parts[giver][-count:]
            parts[giver], parts[client] = kept, np.concatenate([parts[client], given])
            sizes[giver] -= count
            sizes[client] += count
    return parts


def _check_sizes(parts: Sequence[Indices], least: int) -> None:
    short = [client for client, part in enumerate(parts) if len(part) < least]
    if short:
        has = f"{len(parts[short[0]])} of at least {least} examples" if least > 1 else "no examples"
        raise ValueError(
            f"the partition leaves {len(short)} of {len(parts)} clients too little: client {short[0]} has "
            f"{has}. Ask for fewer clients or a less skewed partition, or say rebalance=True where the "
            "partition has that option."
        )


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
