"""Keyframes: they spare mutations, and nothing else changes whether they are there, damaged or gone."""

import itertools
import os
import pickle
from collections import Counter

import numpy as np
import pytest
from safetensors.numpy import load_file

from evolution.descendants import Descendants, clear_cache
from evolution.genome import Codec, DrawnNoise, Genome
from evolution.keyframes import Keyframes
from evolution.lineage import Lineage
from evolution.policies.policy import Piece
from zoo.core.rng import Key, NoiseTable

CODEC = Codec(NoiseTable(1, 300_000), (Piece("w", (5000,), 0.1), Piece("b", (7,), 0.0)))
PARENTS, SIZE = 4, 12


@pytest.fixture(autouse=True)
def _empty_cache():
    clear_cache()
    yield
    clear_cache()


@pytest.fixture
def applied(monkeypatch):
    """Count the mutations that are applied, and the roots that are drawn."""
    counts = Counter()
    originals = {name: getattr(Codec, name) for name in ("advance", "children", "root")}

    def advance(self, out, seeds, sigmas):
        counts["mutations"] += len(seeds)
        originals["advance"](self, out, seeds, sigmas)

    def children(self, out, parents, seeds, sigmas):
        counts["mutations"] += len(seeds)
        originals["children"](self, out, parents, seeds, sigmas)

    def root(self, out, seed):
        counts["roots"] += 1
        originals["root"](self, out, seed)

    for method in (advance, children, root):
        monkeypatch.setattr(Codec, method.__name__, method)
    return counts


def run_of(directory, generations=60, every=25, codec=CODEC):
    """Breed, writing keyframes on the way; return the members of the last generation and their genomes."""
    keyframes = Keyframes(str(directory / "keyframes"))
    lineage, ids = Lineage.empty().born(np.full(SIZE, -1), codec.draw(Key(0), 0, SIZE), np.ones(SIZE))
    for number in range(1, generations + 1):
        if number % every == 0:
            keyframes.write(number, codec, [lineage.genome(parent) for parent in ids[:PARENTS]])
        chosen = ids[Key(number).integers(0, 1, SIZE, high=PARENTS)[0]]
        lineage, ids = lineage.born(chosen, codec.draw(Key(1).fold(number), 0, SIZE), np.full(SIZE, 0.01))
        lineage = lineage.pruned(ids)
    members = Descendants.of(codec, lineage, ids, keyframes=keyframes)
    return keyframes, members, [lineage.genome(individual) for individual in ids]


def late(members):
    """Return the rows that a process builds which has just been started."""
    clear_cache()
    return pickle.loads(pickle.dumps(members)).rows(0, len(members))


def expected_of(genomes, codec=CODEC):
    return np.stack([codec.decode(genome) for genome in genomes])


@pytest.mark.parametrize(
    "codec", [CODEC, Codec(DrawnNoise(2), (Piece("w", (300,), 0.1),))], ids=["table", "drawn"]
)
def test_rows_are_the_same_from_a_keyframe(tmp_path, codec):
    _, members, genomes = run_of(tmp_path, 12, 5, codec)
    np.testing.assert_array_equal(late(members), expected_of(genomes, codec))


def test_who_comes_late_begins_at_the_newest_keyframe(tmp_path, applied):
    _, members, genomes = run_of(tmp_path)
    expected = expected_of(genomes)
    applied.clear()
    np.testing.assert_array_equal(late(members), expected)
    since = applied["mutations"]
    assert applied["roots"] == 0
    assert since <= SIZE + (60 - 50) * PARENTS
    applied.clear()
    members.keyframes = None
    np.testing.assert_array_equal(late(members), expected)
    assert applied["roots"] == 1
    assert applied["mutations"] >= 50 + SIZE


def test_a_keyframe_is_written_from_the_one_before(tmp_path, applied):
    keyframes, _, _ = run_of(tmp_path, 50)
    genomes = [Genome(np.arange(80), np.full(80, 0.1))]
    keyframes.write(70, CODEC, [Genome(genomes[0].seeds[:70], genomes[0].sigmas[:70])])
    applied.clear()
    path = keyframes.write(80, CODEC, genomes)
    assert (applied["mutations"], applied["roots"]) == (10, 0)
    np.testing.assert_array_equal(load_file(path)["rows"], expected_of(genomes))


def test_members_write_down_their_parents(tmp_path, applied):
    _, members, genomes = run_of(tmp_path, 12)
    keyframes = Keyframes(str(tmp_path / "others"))
    rows = members.rows(0, SIZE)
    applied.clear()
    arrays = load_file(members.write_keyframe(keyframes, 12))
    assert not applied  # they are known from the rows
    parents = {genome.marks[-2]: Genome(genome.seeds[:-1], genome.sigmas[:-1]) for genome in genomes}
    assert len(arrays["rows"]) == len(parents)
    for name, row in zip(arrays["marks"], arrays["rows"], strict=True):
        np.testing.assert_array_equal(row, CODEC.decode(parents[name.tobytes()]))
    members.keyframes = keyframes
    applied.clear()
    np.testing.assert_array_equal(late(members), rows)
    assert (applied["mutations"], applied["roots"]) == (SIZE, 0)
    roots = Descendants.of(CODEC, *Lineage.empty().born([-1], [3], [1.0]))
    assert roots.write_keyframe(keyframes, 13) is None


def test_a_keyframe_is_a_file_that_others_can_read(tmp_path):
    keyframes, _, _ = run_of(tmp_path, 26)
    (path,) = keyframes.paths()
    assert path.name == "000025.safetensors"
    arrays = load_file(path)
    assert arrays["rows"].shape == (PARENTS, CODEC.dim)
    data = arrays["genomes"].tobytes()
    ends = [0, *arrays["ends"].tolist()]
    genomes = [Genome.unpack(data[a:b], CODEC) for a, b in itertools.pairwise(ends)]
    assert [len(genome) for genome in genomes] == [25] * PARENTS
    np.testing.assert_array_equal(arrays["rows"], expected_of(genomes))


def test_the_newest_two_are_kept(tmp_path):
    keyframes, _, _ = run_of(tmp_path, 45, 10)
    assert [path.name for path in keyframes.paths()] == ["000040.safetensors", "000030.safetensors"]
    assert sorted(os.listdir(keyframes.directory)) == ["000030.safetensors", "000040.safetensors"]


def test_what_a_kill_left_is_swept_away(tmp_path):
    keyframes, members, genomes = run_of(tmp_path, 26)
    stray = tmp_path / "keyframes" / ".000030.safetensors.999"
    stray.write_bytes(b"half of one")
    np.testing.assert_array_equal(late(members), expected_of(genomes))
    keyframes.write(30, CODEC, genomes[:1])
    assert not stray.exists()
    assert len(keyframes.paths()) == 2


def flip(path, *places):
    data = bytearray(path.read_bytes())
    for place in places:
        data[place] ^= 1
    path.write_bytes(data)


DAMAGES = {
    "gone": lambda path: path.unlink(),
    "empty": lambda path: path.write_bytes(b""),
    "short": lambda path: path.write_bytes(path.read_bytes()[:-100]),
    "its head alone": lambda path: path.write_bytes(path.read_bytes()[:50]),
    "another head": lambda path: flip(path, 30),
    "a long head": lambda path: flip(path, 6),
    "a bit of every row": lambda path: flip(path, *(-3000 - 20_028 * row for row in range(PARENTS))),
    "marks": lambda path: flip(path, *range(-2000, -100, 16)),
    "no keyframe at all": lambda path: path.write_bytes(os.urandom(20_000)),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_what_is_damaged_is_passed_over(tmp_path, damage, applied):
    keyframes, members, genomes = run_of(tmp_path)
    newest, _ = keyframes.paths()
    damage(newest)
    expected = expected_of(genomes)
    applied.clear()
    np.testing.assert_array_equal(late(members), expected)
    assert applied["roots"] == 0  # the one before is there still
    assert applied["mutations"] > SIZE + (60 - 50)


def test_a_damaged_row_leaves_the_others(tmp_path, applied):
    keyframes, _, _ = run_of(tmp_path, 26)
    (path,) = keyframes.paths()
    arrays = load_file(path)
    data, ends = arrays["genomes"].tobytes(), [0, *arrays["ends"].tolist()]
    marks = [Genome.unpack(data[a:b], CODEC).marks[-1] for a, b in itertools.pairwise(ends)]
    flip(path, path.read_bytes().index(arrays["rows"][1].tobytes()) + 77)
    found = [keyframes.find(CODEC, [mark]) for mark in marks]
    assert [entry is None for entry in found] == [False, True, False, False]
    np.testing.assert_array_equal(found[2][1], arrays["rows"][2])
    assert keyframes.find(CODEC, [b"x" * 16, marks[3], marks[0]])[0] == 1  # the one wanted most


def test_those_of_another_codec_are_passed_over(tmp_path):
    keyframes, _, genomes = run_of(tmp_path, 26)
    other = Codec(NoiseTable(2, 300_000), CODEC.pieces)
    marks = genomes[0].marks[::-1]
    assert keyframes.find(CODEC, marks) is not None
    assert keyframes.find(other, marks) is None


def test_no_folder_is_no_keyframe(tmp_path):
    keyframes = Keyframes(str(tmp_path / "nowhere"))
    assert keyframes.paths() == []
    assert keyframes.find(CODEC, [b"x" * 16]) is None


def test_what_cannot_be_written_leaves_what_was_there(tmp_path, monkeypatch):
    keyframes, _, genomes = run_of(tmp_path, 26)
    before = keyframes.paths()

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        keyframes.write(30, CODEC, genomes[:2])
    assert keyframes.paths() == before
    assert len(os.listdir(keyframes.directory)) == 1
