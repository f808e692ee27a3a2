"""Members as they travel: small, the same bits wherever they are built, and no mutation applied twice."""

import os
import pickle
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from evolution import descendants
from evolution.descendants import Descendants, cache_of, clear_cache
from evolution.genome import Codec, DrawnNoise, SharedTable
from evolution.lineage import Lineage
from evolution.policies.policy import Piece
from tests.evolution.carried import Carried
from zoo.core.rng import Key, NoiseTable
from zoo.execution.processes import Processes

TABLE = NoiseTable(1, 300_000)
CODECS = {
    "short": Codec(TABLE, (Piece("w", (30,), 0.1), Piece("b", (3,), 0.0, 0.5))),
    "long": Codec(TABLE, (Piece("w", (5000,), 0.1),)),
    "longer": Codec(TABLE, (Piece("w", (70_001,), 0.1),)),
    "drawn": Codec(DrawnNoise(1), (Piece("w", (300,), 0.1),)),
}
ROOT = Path(__file__).parents[2]
GENERATIONS = """
import pickle
from pathlib import Path

import numpy as np

from evolution.deep_ga import DeepGA
from evolution.genome import Codec
from evolution.policies.policy import Piece
from zoo.core.rng import Key, NoiseTable
from zoo.core.types import Evaluations

codec = Codec(NoiseTable(0, 2**18), (Piece("w", (2000,), 0.1),))
method = DeepGA(codec, population_size=100, num_parents=10, elite_candidates=5)
state = method.init(np.zeros(2000, np.float32), key=Key(0))
while state.generation < 200 or len(state.candidates):
    members = pickle.loads(pickle.dumps(method.ask(state)))
    values = [members.rows(first, first + 20)[:, :50].sum(1) for first in range(0, len(members), 20)]
    state = method.tell(state, Evaluations(np.concatenate(values)))
    if state.generation in (20, 200) and not len(state.candidates):
        print(int(Path("/proc/self/statm").read_text().split()[1]) * 4096)
"""
codecs = pytest.mark.parametrize("codec", CODECS.values(), ids=CODECS)


@pytest.fixture(autouse=True)
def _empty_cache():
    clear_cache()
    yield
    clear_cache()


@pytest.fixture
def applied(monkeypatch):
    """Count the mutations that are applied, and the roots that are drawn."""
    counts = Counter()

    def counted(name, place):
        original = getattr(Codec, name)

        def method(self, *arguments):
            counts["roots" if name == "roots" else "mutations"] += len(arguments[place])
            return original(self, *arguments)

        monkeypatch.setattr(Codec, name, method)

    counted("advance", 1)
    counted("children", 2)
    counted("roots", 1)
    return counts


def bred(codec, generations=12, size=20, parents=4, constant=True):
    """Return the lineage of some generations, the ids of the last, and of those before."""
    lineage, ids = Lineage.empty().born(np.full(size, -1), codec.draw(Key(0), 0, size), np.ones(size))
    before = ids
    for number in range(1, generations):
        before = ids
        chosen = ids[Key(number).integers(0, 1, size, high=parents)[0]]
        seeds = codec.draw(Key(1).fold(number), 0, size)
        sigma = 0.01 if constant else 0.01 * 0.9**number
        lineage, ids = lineage.born(chosen, seeds, np.full(size, sigma))
        lineage = lineage.pruned(np.concatenate([before[:parents], ids]))
    return lineage, ids, before


def decoded(codec, lineage, ids):
    return np.stack([codec.decode(lineage.genome(individual)) for individual in ids])


def assert_same_bits(one, other):
    assert one.dtype == other.dtype == np.float32
    np.testing.assert_array_equal(one.view(np.uint32), other.view(np.uint32))


@codecs
@pytest.mark.parametrize("generations", [1, 2, 12])
@pytest.mark.parametrize("cached", [True, False], ids=["cached", "uncached"])
def test_rows_are_what_genomes_are_decoded_to(codec, generations, cached):
    lineage, ids, before = bred(codec, generations)
    # An elite of the generation before, one who is parent of others here, and one named twice.
    ids = np.concatenate([ids, before[:4], ids[:1]])
    members = Descendants.of(codec, lineage, ids)
    expected = decoded(codec, lineage, ids)
    assert (len(members), members.dim) == (25, codec.dim)
    with cache_of(2**30 if cached else 0):
        assert_same_bits(members.rows(0, 25), expected)
        for start, stop in [(0, 1), (3, 3), (7, 22), (19, 25), (24, 25), (20, 40)]:
            assert_same_bits(members.rows(start, stop), expected[start:stop])
        assert (len(descendants._cache.rows) > 0) == (cached and generations > 1)


@codecs
def test_rows_are_the_callers_own(codec):
    lineage, ids, before = bred(codec, 3)
    members = Descendants.of(codec, lineage, np.concatenate([before[:4], ids]))
    expected = members.rows(0, 24)
    members.rows(0, 24)[:] = 7.0
    assert_same_bits(members.rows(0, 24), expected)


@codecs
def test_rows_are_the_same_bits_in_torch(codec):
    lineage, ids, before = bred(codec)
    members = Descendants.of(codec, lineage, np.concatenate([before[:4], ids]))
    there = members.rows_on("cpu:0", 0, 24)
    assert isinstance(there, torch.Tensor)
    assert_same_bits(there.numpy(), members.rows_on("cpu", 0, 24))
    assert_same_bits(members.rows_on("cpu:0", 3, 9).numpy(), members.rows(3, 9))


@pytest.mark.gpu
@codecs
def test_rows_are_the_same_bits_on_a_gpu(codec):
    lineage, ids, before = bred(codec)
    members = Descendants.of(codec, lineage, np.concatenate([before[:4], ids]))
    there = members.rows_on("cuda:0", 0, 24)
    assert there.is_cuda
    assert_same_bits(there.cpu().numpy(), members.rows(0, 24))
    assert_same_bits(members.rows_on("cuda:0", 3, 9).cpu().numpy(), members.rows(3, 9))


@codecs
@pytest.mark.parametrize("constant", [True, False])
def test_members_arrive_as_they_were_sent(codec, constant):
    lineage, ids, before = bred(codec, constant=constant)
    for chosen in (ids, np.concatenate([before[:4], ids[::-1]]), before[:1]):
        members = Descendants.of(codec, lineage, chosen, episodes=30)
        again = pickle.loads(pickle.dumps(members))
        assert again.episodes == 30
        assert_same_bits(again.rows(0, 30), members.rows(0, 30))
        clear_cache()
        assert_same_bits(again.rows(0, 30), decoded(codec, lineage, chosen))


@pytest.mark.parametrize(("noise", "most"), [(NoiseTable(0, 2**28), 10_000), (DrawnNoise(), 16_000)])
def test_a_generation_travels_in_a_few_kilobytes(noise, most):
    """1000 members of four million parameters, 300 generations on."""
    codec = Codec(noise, (Piece("w", (4_052_658,), 0.1),))
    lineage, ids, _ = bred(codec, 300, 1000, 20)
    assert len(lineage.ancestors(ids[0])) == 300
    assert len(pickle.dumps(Descendants.of(codec, lineage, ids), protocol=5)) < most


def test_a_generation_costs_a_mutation_for_each_row_and_each_parent(applied):
    codec = CODECS["long"]
    lineage, before, _ = bred(codec, 9)
    chosen = before[Key(9).integers(0, 1, 20, high=4)[0]]
    lineage, ids = lineage.born(chosen, codec.draw(Key(8), 0, 20), np.full(20, 0.01))
    Descendants.of(codec, lineage, before).rows(0, 20)
    before_now = Counter(applied)
    Descendants.of(codec, lineage, ids).rows(0, 20)
    assert applied["mutations"] - before_now["mutations"] <= 20 + 4
    assert applied["roots"] == before_now["roots"]
    middle = Counter(applied)
    Descendants.of(codec, lineage, ids).rows(0, 20)  # now that parents are known, rows are all there is
    assert applied["mutations"] - middle["mutations"] == 20


def test_a_process_that_comes_late_applies_every_mutation_once(applied):
    codec = CODECS["long"]
    lineage, ids, _ = bred(codec, 40)
    members = pickle.loads(pickle.dumps(Descendants.of(codec, lineage, ids)))
    for row in range(20):
        members.rows(row, row + 1)
    ancestors = lineage.pruned(lineage.parents[lineage.places(ids)])
    roots = int((ancestors.parents < 0).sum())
    assert len(lineage.genome(ids[0])) == 40
    assert applied["mutations"] == 20 + len(ancestors) - roots
    assert applied["roots"] == roots
    assert len(ancestors) < 60


def test_without_a_cache_every_chain_is_decoded_from_its_root(applied):
    codec = CODECS["long"]
    lineage, ids, _ = bred(codec, 10)
    members = Descendants.of(codec, lineage, ids)
    with cache_of(0):
        for _ in range(2):
            members.rows(0, 1)
    assert applied["mutations"] == 2 * 9
    assert applied["roots"] == 2


def test_what_is_kept_is_bounded():
    codec = CODECS["longer"]
    cache = descendants._cache
    for generations in range(2, 14):
        lineage, ids, _ = bred(codec, generations)
        members = Descendants.of(codec, lineage, ids)
        members.rows(0, 20)
        held = sum(row.nbytes for row in cache.rows.values())
        assert held == cache.held <= (2 * 4 + 2) * 4 * codec.dim  # there are four parents
    most = 3 * 4 * codec.dim
    with cache_of(most):
        assert cache.held <= most
        expected = decoded(codec, lineage, ids)
        assert_same_bits(members.rows(0, 20), expected)
        assert cache.held <= most
    clear_cache()
    assert cache.held == len(cache.rows) == 0


@pytest.mark.parametrize("shared", [True, False], ids=["shared", "drawn there"])
def test_workers_read_the_table_of_the_driver(shared):
    codec = CODECS["long"]
    lineage, ids, _ = bred(codec)
    members = Descendants.of(codec, lineage, ids)
    expected = members.rows(0, 20).astype(np.float64).sum(1)
    executor = Processes(2)
    with executor.open(Carried(codec, SharedTable(TABLE) if shared else None)):
        values = executor.evaluate(members, Key(0), 0).values
    np.testing.assert_array_equal(values, expected + (0 if shared else 1e6))


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
def test_memory_does_not_grow():
    """In a process of its own, 200 generations of small networks take no more memory than 20."""
    done = subprocess.run(
        [sys.executable, "-c", GENERATIONS],
        stdout=subprocess.PIPE,
        check=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    at_20, at_200 = (int(line) for line in done.stdout.split())
    assert at_200 - at_20 < 5_000_000


def test_threads_may_build_rows_at_once():
    codec = CODECS["longer"]
    lineage, ids, _ = bred(codec, 20)
    members, found = Descendants.of(codec, lineage, ids), {}

    def build(first):
        found[first] = members.rows(first, first + 5)

    threads = [threading.Thread(target=build, args=(first,)) for first in (0, 5, 10, 15)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    whole = np.concatenate([found[first] for first in (0, 5, 10, 15)])
    assert_same_bits(whole, decoded(codec, lineage, ids))
    assert descendants._cache.held == sum(row.nbytes for row in descendants._cache.rows.values())


def test_rows_may_be_written_to_memory_that_is_there():
    codec = CODECS["long"]
    lineage, ids, _ = bred(codec)
    members = Descendants.of(codec, lineage, ids)
    memory = np.empty((4, codec.dim), np.float32)
    for first in (0, 4, 12):
        members.fill(memory, first)
        assert_same_bits(memory, members.rows(first, first + 4))


def test_there_may_be_nobody():
    codec = CODECS["long"]
    lineage, _, _ = bred(codec, 3)
    members = pickle.loads(pickle.dumps(Descendants.of(codec, lineage, [])))
    assert len(members) == 0
    assert members.rows(0, 0).shape == (0, codec.dim)


def test_members_of_a_lineage_they_are_not_in_are_refused():
    codec = CODECS["short"]
    lineage, _, _ = bred(codec, 3)
    with pytest.raises(ValueError, match="nobody of the id 999 is in the lineage"):
        Descendants.of(codec, lineage, [999])


def test_seeds_of_another_codec_are_refused():
    codec = Codec(NoiseTable(0, 1000), (Piece("w", (10,), 1.0),))
    lineage, ids = Lineage.empty().born([-1, -1], [990, 991], [1, 1])
    assert Descendants.of(codec, lineage, ids[:1]).rows(0, 1).shape == (1, 10)
    with pytest.raises(ValueError, match="`codec` has seeds up to 990, and the genome one of 991"):
        Descendants.of(codec, lineage, ids)
