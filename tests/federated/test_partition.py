"""Partitions: disjoint covers, the skew that each is meant to have, and clients without examples."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats

from federated.partition import (
    IID,
    PARTITIONERS,
    Dirichlet,
    Partitioner,
    Pathological,
    Portions,
    Shards,
    Sizes,
    as_partitioner,
    dirichlet,
    partitioned,
)
from zoo.core.rng import Key

BALANCED = np.repeat(np.arange(10), 100)
UNEVEN = np.repeat(["a", "b", "c", "d"], [400, 30, 150, 7])

ALL = {
    "iid": IID(),
    "dirichlet": Dirichlet(0.5),
    "dirichlet-skewed": Dirichlet(0.01, min_size=3, rebalance=True),
    "dirichlet-balanced": Dirichlet(0.3, min_size=5, self_balancing=True),
    "pathological": Pathological(2),
    "shards": Shards(3),
    "linear": Sizes("linear"),
    "square": Sizes("square"),
    "exponential": Sizes("exponential"),
    "sizes": Sizes([5, 1, 1, 2, 1.5, 3, 2]),
    "portions": Portions(0.5, rebalance=True),
}


def classes_of(parts: list[np.ndarray], labels: np.ndarray) -> list[set[int]]:
    return [set(labels[part].tolist()) for part in parts]


def counts(parts: list[np.ndarray], labels: np.ndarray) -> np.ndarray:
    return np.array([np.bincount(labels[part], minlength=10) for part in parts])


@pytest.mark.parametrize("labels", [BALANCED, UNEVEN], ids=["balanced", "uneven"])
@pytest.mark.parametrize("name", ALL)
def test_every_example_belongs_to_one_client_and_every_client_has_one(name: str, labels: np.ndarray) -> None:
    parts = ALL[name](labels, 7, Key(1))
    assert len(parts) == 7
    assert (np.sort(np.concatenate(parts)) == np.arange(len(labels))).all()
    assert min(map(len, parts)) >= ALL[name].least
    assert all((np.diff(part) > 0).all() for part in parts)
    again = ALL[name](labels, 7, Key(1))
    assert all((one == other).all() for one, other in zip(parts, again, strict=True))
    assert [part.tolist() for part in ALL[name](labels, 7, Key(2))] != [part.tolist() for part in parts]


@pytest.mark.parametrize("name", sorted(ALL.keys() - {"sizes", "pathological"}))
def test_one_client_has_everything(name: str) -> None:
    (part,) = ALL[name](BALANCED, 1, Key(0))
    assert (part == np.arange(1000)).all()


def test_iid_parts_are_equal_and_mixed() -> None:
    parts = IID()(BALANCED, 7, Key(0))
    assert {len(part) for part in parts} == {142, 143}
    assert scipy.stats.chi2_contingency(counts(parts, BALANCED)).pvalue > 0.01


def test_dirichlet_with_a_large_alpha_is_iid() -> None:
    found = counts(Dirichlet(1e9)(BALANCED, 7, Key(0)), BALANCED)
    assert scipy.stats.chi2_contingency(found).pvalue > 0.01
    assert (abs(found - 100 / 7) <= 1).all()


def test_dirichlet_with_a_small_alpha_has_each_class_with_one_client() -> None:
    parts = Dirichlet(1e-9, rebalance=True)(BALANCED, 3, Key(0))
    assert (counts(parts, BALANCED) > 0).sum() == 10
    balanced = Dirichlet(1e-9, self_balancing=True)(BALANCED, 10, Key(0))
    assert all(len(one) == 1 for one in classes_of(balanced, BALANCED))


def test_alpha_is_a_dial_between_the_two() -> None:
    spread = [counts(Dirichlet(alpha)(BALANCED, 5, Key(3)), BALANCED).std() for alpha in (0.1, 1, 10, 100)]
    assert spread == sorted(spread, reverse=True)


def test_dirichlet_draws_again_until_clients_are_large_enough() -> None:
    least = [min(map(len, Dirichlet(0.3, min_size=size)(BALANCED, 8, Key(0)))) for size in (1, 50)]
    assert least[0] < 50 <= least[1]


@pytest.mark.parametrize("alpha", [1e-12, 0.05, 1.0, 40.0, 1e12])
def test_shares_are_those_of_the_distribution(alpha: float) -> None:
    shares = dirichlet(Key(0), alpha, 4000, 4)
    np.testing.assert_allclose(shares.sum(1), 1, rtol=1e-12)
    np.testing.assert_allclose(shares.mean(0), 0.25, atol=0.03)
    expected = scipy.stats.beta(alpha, 3 * alpha).var() if alpha > 1e-9 else 3 / 16
    assert shares.var() == pytest.approx(expected, rel=0.1)
    if 0.01 < alpha < 100:
        assert scipy.stats.kstest(shares[:, 0], scipy.stats.beta(alpha, 3 * alpha).cdf).pvalue > 0.01


@pytest.mark.parametrize(("k", "num_clients"), [(1, 10), (1, 23), (2, 5), (5, 5), (3, 40), (10, 2)])
def test_pathological_clients_have_exactly_so_many_classes(k: int, num_clients: int) -> None:
    parts = Pathological(k)(BALANCED, num_clients, Key(4))
    found = counts(parts, BALANCED) > 0
    assert (found.sum(1) == k).all()
    assert set(found.sum(0)) <= {k * num_clients // 10, -(-k * num_clients // 10)}


def test_shards_are_sorted_by_class() -> None:
    parts = Shards(2)(BALANCED, 10, Key(0))
    assert {len(part) for part in parts} == {100}
    assert all(len(one) <= 2 for one in classes_of(parts, BALANCED))


def test_sizes_by_hand() -> None:
    def sizes(law: object, count: int, n: int) -> list[int]:
        return [len(part) for part in Sizes(law)(np.zeros(n), count, Key(0))]  # type: ignore[arg-type]

    assert sizes("linear", 4, 100) == [10, 20, 30, 40]
    assert sizes("square", 3, 140) == [10, 40, 90]
    assert sizes("exponential", 2, 1000) == [269, 731]
    assert sizes([7, 2, 1], 3, 10) == [7, 2, 1]
    assert sizes(np.array([7, 2, 1]), 3, 1000) == [700, 200, 100]


def test_portions_are_dealt_in_equal_parts() -> None:
    found = counts(Portions(0.5)(BALANCED, 10, Key(1)), BALANCED)
    assert set(found.reshape(-1)) == {0, 20}
    assert (found.sum(0) == 100).all()
    more = counts(Portions(0.7)(BALANCED, 5, Key(1)), BALANCED)
    assert more.min() >= 14


@pytest.mark.parametrize("partitioner", [Dirichlet(1e-9), Sizes("exponential"), Portions(0.1)], ids=repr)
def test_a_client_without_examples_is_refused_or_helped(partitioner: Partitioner) -> None:
    with pytest.raises(ValueError, match=r"clients too little: client \d+ has no examples.*rebalance=True"):
        partitioner(BALANCED, 20, Key(0))
    helped = type(partitioner)(**{**vars(partitioner), "rebalance": True})(BALANCED, 20, Key(0))
    assert (np.sort(np.concatenate(helped)) == np.arange(1000)).all()
    assert min(map(len, helped)) >= 1


def test_regression_targets_are_dealt_by_number_alone() -> None:
    targets = np.linspace(0, 1, 12)
    assert [len(part) for part in IID()(targets, 3, Key(0))] == [4, 4, 4]
    with pytest.raises(TypeError, match='take "iid" or "sizes"'):
        Dirichlet()(targets, 3, Key(0))


def test_names_options_and_dictionaries() -> None:
    assert as_partitioner("iid") == IID()
    assert as_partitioner("dirichlet", alpha=0.1, min_size=2) == Dirichlet(0.1, min_size=2)
    assert as_partitioner("dirichlet:0.1") == Dirichlet(0.1)
    assert as_partitioner("pathological:3") == Pathological(3)
    assert as_partitioner("sizes:square", rebalance=True) == Sizes("square", rebalance=True)
    assert as_partitioner("sizes:[1,2]") == Sizes([1, 2])
    assert as_partitioner({"name": "portions", "portion": 0.3}) == Portions(0.3)
    assert as_partitioner(Shards(1)) == Shards(1)
    assert as_partitioner("federated.partition:partitioned") is partitioned
    assert set(PARTITIONERS) == {"iid", "dirichlet", "pathological", "shards", "sizes", "portions"}


@pytest.mark.parametrize(
    ("given", "options", "message"),
    [
        ("dirichlett", {}, "Did you mean 'dirichlet'"),
        ("dirichlet", {"alfa": 1}, "unknown option of partition 'dirichlet': 'alfa'. Did you mean 'alpha'"),
        ("dirichlet:0.1", {"alpha": 1}, "without ':0.1'"),
        ("iid:3", {}, "without ':3'"),
        ("dirichlet:much", {}, "`alpha` must be a number, got 'much'"),
        ("sizes:cubic", {}, "`sizes` must be numbers or one of"),
        ("nowhere_at_all:thing", {}, "no module 'nowhere_at_all'"),
        ({"alpha": 1}, {}, "`partition` must say its `name`"),
        (Dirichlet, {}, "`partition` must be a name or a function"),
        (Dirichlet(), {"alpha": 1}, "`partition` must be a name where there are options"),
    ],
)
def test_what_names_no_partition_is_refused(given: object, options: dict[str, object], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        as_partitioner(given, **options)


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (Dirichlet, {"alpha": 0.0}, "`alpha` must be a finite number above 0"),
        (Dirichlet, {"min_size": 0}, "`min_size` must be at least 1"),
        (Dirichlet, {"self_balancing": 1}, "`self_balancing` must be True or False"),
        (Pathological, {"classes_per_client": 1.5}, "`classes_per_client` must be an integer"),
        (Shards, {"shards_per_client": 0}, "`shards_per_client` must be at least 1"),
        (Sizes, {"sizes": [1, 0]}, "`sizes` must be a finite number above 0"),
        (Sizes, {"sizes": 3}, "`sizes` must be numbers or one of"),
        (Portions, {"portion": -1}, "`portion` must be a finite number above 0"),
        (Portions, {"rebalance": "yes"}, "`rebalance` must be True or False"),
    ],
)
def test_wrong_options_are_refused(kind: type, options: dict[str, object], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        kind(**options)


@pytest.mark.parametrize(
    ("partitioner", "labels", "num_clients", "message"),
    [
        (IID(), BALANCED, 1001, "`num_clients` must be at most 1000 for 1000 examples, got 1001"),
        (IID(), BALANCED, 0, "`num_clients` must be at least 1"),
        (Dirichlet(min_size=300), BALANCED, 4, "at most 3 for 1000 examples, 300 for each"),
        (Dirichlet(1e-6, min_size=330), BALANCED, 3, "of at least 330 examples"),
        (Dirichlet(), BALANCED.reshape(10, 100), 4, r"`labels` must have shape \(n,\)"),
        (Pathological(2), BALANCED, 4, "`classes_per_client` must be from 3 to 10"),
        (Pathological(11), BALANCED, 4, "`classes_per_client` must be from 3 to 10"),
        (Pathological(4), UNEVEN, 8, "class number 3 has 7 examples for the 8 clients"),
        (Shards(9), BALANCED, 200, "`shards_per_client` must be at most 5"),
        (Sizes([1, 2]), BALANCED, 3, "`sizes` must be one for each of 3 clients"),
    ],
)
def test_what_cannot_be_dealt_is_refused(
    partitioner: Partitioner, labels: np.ndarray, num_clients: int, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        partitioner(labels, num_clients, Key(0))


def test_a_key_is_a_key() -> None:
    with pytest.raises(TypeError, match="`key` must be a Key"):
        IID()(BALANCED, 2, 0)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ([[0, 1, 2, 3]], "indices for each of 2 clients, got 1"),
        ([[0, 1, 2, 3], []], "client 1 has no examples"),
        ([[0, 1], [2]], "each of 4 examples to one client, and dealt 3"),
        ([[0, 1, 2], [2, 3]], "dealt 5, 4 of them different"),
        ([[0, 1, 2], [-1]], "and dealt 4"),
        ([[0, 1, 2], [3.5]], "must return rows of integers"),
    ],
)
def test_partitions_of_the_user_are_looked_at(parts: list[list[float]], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        partitioned(lambda labels, num_clients, key: parts, np.zeros(4), 2, Key(0))
    good = partitioned(lambda labels, num_clients, key: [[3, 0], [2, 1]], np.zeros(4), 2, Key(0))
    assert [part.tolist() for part in good] == [[0, 3], [1, 2]]


@pytest.mark.parametrize("name", ["dirchlet:0.3", "pathologic:2", "dirichlet_:alpha"])
def test_a_misspelt_name_with_an_option_has_its_near_name(name: str) -> None:
    with pytest.raises(
        ValueError, match=r"unknown partition '\w+'. Did you mean '(dirichlet|pathological)'\?"
    ):
        as_partitioner(name)


def test_modules_that_are_not_there_are_told_as_such() -> None:
    with pytest.raises(ValueError, match="there is no module 'nowhere'"):
        as_partitioner("nowhere:mine")


def test_indices_are_no_partition_but_a_function_of_them_is() -> None:
    parts = [np.arange(0, 4), np.arange(4, 10)]
    with pytest.raises(TypeError, match="got a list: indices of each client are given as partition=lambda"):
        as_partitioner(parts)
    found = partitioned(lambda labels, num_clients, key: parts, np.zeros(10), 2, Key(0))
    assert [part.tolist() for part in found] == [part.tolist() for part in parts]
