"""The table of ancestors: whole genomes from it, and no more in it than the living need."""

import numpy as np
import pytest

from evolution.deep_ga import DeepGA
from evolution.genome import Codec, Genome
from evolution.lineage import Lineage
from evolution.policies.policy import Piece
from zoo.core.rng import Key, NoiseTable
from zoo.core.state import digest, freeze, thaw
from zoo.core.types import Evaluations

CODEC = Codec(NoiseTable(1, 50_000), (Piece("x", (20,), 1.0),))


def bred(generations=6, size=8, parents=3):
    """Return a lineage in which everybody is kept, and the ids of each generation."""
    lineage, ids = Lineage.empty().born(np.full(size, -1), np.arange(size), np.full(size, 9.0))
    born = [ids]
    for number in range(1, generations):
        chosen = ids[Key(number).integers(0, 1, size, high=parents)[0]]
        seeds = np.arange(size) + 100 * number
        lineage, ids = lineage.born(chosen, seeds, np.full(size, 0.5**number))
        born.append(ids)
    return lineage, born


def columns(lineage):
    return [getattr(lineage, name).tolist() for name in ("ids", "parents", "seeds", "sigmas")]


def test_the_first_have_no_parents():
    lineage, ids = Lineage.empty().born([-1, -1], [7, 5], [0.25, 0.5])
    assert columns(lineage) == [[0, 1], [-1, -1], [7, 5], [1.0, 1.0]]
    assert ids.tolist() == [0, 1]
    assert lineage.genome(1) == Genome([5], [1.0])
    assert len(Lineage.empty()) == 0


def test_children_carry_the_chain_of_their_parents():
    lineage, _ = Lineage.empty().born([-1, -1], [7, 5], [1, 1])
    lineage, ids = lineage.born([1, 0, 1], [3, 4, 2**63 - 1], [0.5, 0.5, 0.25])
    assert ids.tolist() == [2, 3, 4]
    lineage, _ = lineage.born([4], [6], [0.125])
    assert lineage.ancestors(5).tolist() == [1, 4, 5]
    assert lineage.genome(5) == Genome([5, 2**63 - 1, 6], [1.0, 0.25, 0.125])
    assert lineage.genome(4).child(6, 0.125) == lineage.genome(5)


def test_a_table_is_a_value():
    before, born = bred(3)
    was = digest(before)
    after, _ = before.born([int(born[-1][0])], [1], [0.5])
    before.pruned([0])
    assert digest(before) == was
    assert digest(after) != was
    tree, arrays = freeze(after)
    assert digest(thaw(tree, arrays)) == digest(after)


def test_pruning_keeps_the_living_and_their_ancestors():
    lineage, born = bred()
    living = born[-1][[5, 2]]
    pruned = lineage.pruned(living)
    expected = set(lineage.ancestors(living[0]).tolist()) | set(lineage.ancestors(living[1]).tolist())
    assert pruned.ids.tolist() == sorted(expected)
    for individual in pruned.ids.tolist():
        assert pruned.genome(individual) == lineage.genome(individual)
        assert pruned.ancestors(individual).tolist() == lineage.ancestors(individual).tolist()
    assert pruned.next_id == lineage.next_id
    assert digest(pruned.pruned(living)) == digest(pruned)
    assert len(lineage.pruned([])) == 0


def test_no_id_is_given_twice():
    lineage, born = bred(2)
    _, ids = lineage.pruned(born[0][:1]).born([-1], [1], [1.0])
    assert ids.tolist() == [16]


def test_above_says_where_parents_are():
    lineage = bred()[0].pruned([40, 41])
    for place, above in enumerate(lineage.above.tolist()):
        parent = int(lineage.parents[place])
        assert (above == -1) if parent < 0 else (lineage.ids[above] == parent)


def test_a_run_does_not_grow():
    """Ancestors far back are few: one more each generation is all there is."""
    method = DeepGA(CODEC, population_size=40, num_parents=5, elite_candidates=4)
    state = method.init(np.zeros(20, np.float32), key=Key(1))
    sizes, chains = [], []
    while state.generation < 200:
        values = Key(state.generation).fold(state.lineage.next_id).normal(0, 1, len(method.ask(state)))[0]
        state = method.tell(state, Evaluations(values))
        if not len(state.candidates):
            sizes.append(len(state.lineage))
            chains.append(len(state.lineage.ancestors(int(state.parents[1]))))
    assert chains[-1] > 150
    excess = np.array(sizes) - np.array(chains)
    assert excess[20:].max() <= 60
    assert sum(array.nbytes for array in freeze(state.lineage)[1].values()) <= 28 * 260


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([99], [1], [0.5]), "nobody of the id 99 is in the lineage"),
        (([-2], [1], [0.5]), "nobody of the id -2 is in the lineage"),
        (([0, 1], [1], [0.5, 0.5]), r"same length, got shapes \(2,\), \(1,\) and \(2,\)"),
        (([0], [1], [np.nan]), "`sigmas` must be finite"),
    ],
)
def test_what_cannot_be_born_is_refused(arguments, message):
    lineage, _ = bred(2)
    with pytest.raises(ValueError, match=message):
        lineage.born(*arguments)


@pytest.mark.parametrize("question", ["genome", "ancestors", "pruned", "places"])
def test_nobody_knows_those_who_are_gone(question):
    lineage = bred()[0].pruned([40])
    for stranger in (41, -1, 10**9):
        with pytest.raises(ValueError, match=f"nobody of the id {stranger} is in the lineage"):
            getattr(lineage, question)(stranger)
        with pytest.raises(ValueError, match=f"nobody of the id {stranger} is in the lineage"):
            getattr(Lineage.empty(), question)(stranger)
