"""Genomes: the same bits from the root, from any ancestor, in another process, by numpy and by torch."""

import hashlib
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from evolution.genome import COLUMNS, Codec, DrawnNoise, Genome, SharedTable
from evolution.policies.policy import Piece
from zoo.core.device import Like
from zoo.core.rng import Key, NoiseTable, clear_cache
from zoo.execution import packing

ROOT = Path(__file__).parents[2]
TABLE = NoiseTable(1, 300_000)
NOISES = [TABLE, DrawnNoise(1)]
ATARI = (Piece("weight", (4_052_658,), 0.1),)

# Of `test_what_a_seed_stands_for_does_not_change`.
SEEDS = [30446, 40549, 219]
DIGEST = "51e9a136a9a25e7e830d70c79c0f7433"
PACKED = "02030000000000803e"

noises = pytest.mark.parametrize("noise", NOISES, ids=["table", "drawn"])


def of(noise, dim=70_001, base=None):
    """Return a codec of three pieces, the second of which has no noise, and the last a mean."""
    first = dim // 2
    pieces = (Piece("w", (first,), 0.1), Piece("b", (1,), 0.0), Piece("v", (dim - first - 1,), 0.3, 1.5))
    return Codec(noise, pieces, base)


def chain(codec, length=20, sigma=None):
    """Return a genome with as many mutations, whose sigmas differ unless one is given."""
    sigmas = np.linspace(0.1, 0.3, length + 1) if sigma is None else np.full(length + 1, sigma)
    return Genome(codec.draw(Key(2), 0, length + 1), sigmas)


def eps(codec, seed):
    """Return the noise of a seed in another way than the codec does."""
    if isinstance(codec.noise, NoiseTable):
        return codec.noise.array()[int(seed) : int(seed) + codec.dim]
    if codec.dim <= 1024:
        key = Key(codec.noise.seed).fold("drawn noise").fold(int(seed))
        return key.normal(0, 1, codec.dim, like=Like("numpy", "float32"))[0]
    parts = []
    for number, first in enumerate(range(0, codec.dim, COLUMNS)):
        size = min(COLUMNS, codec.dim - first)
        part = torch.empty(size)
        key = Key(codec.noise.seed).fold("drawn noise").fold(int(seed), number)
        key.fill_quick(part, size=size)
        parts.append(part.numpy())
    return np.concatenate(parts)


def assert_same_bits(one, other):
    assert one.dtype == other.dtype == np.float32
    assert one.shape == other.shape
    np.testing.assert_array_equal(one.view(np.uint32), other.view(np.uint32))


def bits_of(codec, genome):
    return hashlib.sha256(codec.decode(genome).tobytes()).hexdigest()


@noises
def test_a_root_is_its_means_and_scaled_noise(noise):
    codec = of(noise)
    genome = chain(codec, 0)
    mean = np.repeat(np.float32([0, 0, 1.5]), [piece.size for piece in codec.pieces])
    std = np.repeat(np.float32([0.1, 0, 0.3]), [piece.size for piece in codec.pieces])
    assert_same_bits(codec.decode(genome), std * eps(codec, genome.seeds[0]) + mean)
    base = np.linspace(-1, 1, codec.dim).astype(np.float32)
    around = of(noise, base=base)
    assert_same_bits(around.decode(genome), std * eps(codec, genome.seeds[0]) + base)


@noises
@pytest.mark.parametrize("dim", [500, 70_001, 1_000_000])
def test_a_chain_is_decoded_to_the_bits_of_its_parent_and_the_last_mutation(noise, dim):
    codec = of(NoiseTable(1, 1_200_000) if noise is TABLE else noise, dim)
    genome = chain(codec)
    parent = Genome(genome.seeds[:-1], genome.sigmas[:-1])
    step = genome.sigmas[-1] * eps(codec, genome.seeds[-1])
    whole = codec.decode(genome)
    assert_same_bits(whole, codec.decode(parent) + step)
    assert parent.child(int(genome.seeds[-1]), float(genome.sigmas[-1])) == genome
    # As a child of its parent, and from any ancestor on.
    made = codec.empty(1)
    codec.children(made, [codec.decode(parent)], genome.seeds[-1:], genome.sigmas[-1:])
    assert_same_bits(made[0], whole)
    for since in (1, 7, 20, 21):
        row = codec.decode(Genome(genome.seeds[:since], genome.sigmas[:since]))
        codec.advance(row, genome.seeds[since:], genome.sigmas[since:])
        assert_same_bits(row, whole)


@noises
def test_a_chain_is_decoded_to_the_same_bits_by_torch(noise):
    codec = of(noise)
    genome = chain(codec)
    whole = codec.decode(genome)
    row = torch.from_numpy(codec.decode(Genome(genome.seeds[:1], genome.sigmas[:1])))
    for seed, sigma in zip(genome.seeds[1:], genome.sigmas[1:], strict=True):
        row = row + torch.from_numpy(eps(codec, seed).copy()) * float(sigma)
    assert_same_bits(row.numpy(), whole)
    there = codec.decode(genome, "cpu:0")
    assert isinstance(there, torch.Tensor)
    assert_same_bits(there.numpy(), whole)


@pytest.mark.gpu
@pytest.mark.parametrize("dim", [200, 70_001, 1_000_003])
@pytest.mark.parametrize("kind", ["table", "drawn"])
def test_a_chain_is_decoded_to_the_same_bits_on_a_gpu(kind, dim):
    codec = of(NoiseTable(1, 3_000_000) if kind == "table" else DrawnNoise(1), dim)
    genome = chain(codec)
    there = codec.decode(genome, "cuda:0")
    assert there.is_cuda
    assert_same_bits(there.cpu().numpy(), codec.decode(genome))


@noises
def test_a_chain_is_decoded_to_the_same_bits_in_another_process(noise):
    codec = of(noise)
    genome = chain(codec)
    codec_again, genome_again = pickle.loads(pickle.dumps((codec, genome)))
    assert (codec_again, genome_again) == (codec, genome)
    assert bits_of(codec_again, genome_again) == bits_of(codec, genome)
    script = (
        "import pickle, sys, hashlib\n"
        "codec, genome = pickle.loads(sys.stdin.buffer.read())\n"
        "print(codec.digest, genome.digest, hashlib.sha256(codec.decode(genome).tobytes()).hexdigest())"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        input=pickle.dumps((codec, genome)),
        stdout=subprocess.PIPE,
        check=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.stdout.decode().split() == [codec.digest, genome.digest, bits_of(codec, genome)]


def test_the_order_of_a_chain_matters():
    codec = of(TABLE)
    genome = chain(codec)
    order = np.concatenate([[0], 1 + Key(0).permutation(0, 1, 20)[0]])
    shuffled = Genome(genome.seeds[order], genome.sigmas[order])
    assert shuffled != genome
    assert shuffled.digest != genome.digest
    one, other = codec.decode(genome), codec.decode(shuffled)
    assert not np.array_equal(one, other)
    np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-5)


@noises
@pytest.mark.parametrize("dim", [2, 1024, 1025, 4096, 4097, 65_536, 65_537, 131_200])
def test_children_are_the_same_bits_whatever_their_length(noise, dim):
    codec = of(noise, dim)
    seeds, sigmas = codec.draw(Key(3), 0, 7), np.linspace(0.1, 0.2, 7).astype(np.float32)
    genomes = [Genome([seed], [1.0]) for seed in seeds[:3]]
    parents = [codec.decode(genomes[place]) for place in (0, 1, 2, 0)]
    expected = np.stack(
        [
            parent + sigma * eps(codec, seed)
            for parent, seed, sigma in zip(parents, seeds[3:], sigmas[3:], strict=True)
        ]
    )
    made = codec.empty(4)
    codec.children(made, parents, seeds[3:], sigmas[3:])
    assert_same_bits(made, expected)
    listed = [np.zeros(dim, np.float32) for _ in range(4)]
    codec.children(listed, parents, seeds[3:], sigmas[3:])
    assert_same_bits(np.stack(listed), expected)
    roots = codec.empty(3)
    codec.roots(roots, seeds[:3])
    assert_same_bits(roots, np.stack([codec.decode(genome) for genome in genomes]))


@noises
def test_seeds_are_the_same_whatever_the_slice(noise):
    codec = of(noise)
    whole = codec.draw(Key(1), 0, 500)
    assert whole.dtype == np.uint64
    assert len(set(whole.tolist())) > 490
    for start, stop in [(0, 1), (3, 3), (7, 300), (499, 500)]:
        np.testing.assert_array_equal(codec.draw(Key(1), start, stop), whole[start:stop])
    if noise is TABLE:
        assert whole.max() <= TABLE.size - codec.dim
        assert set(of(TABLE, 299_999).draw(Key(0), 0, 50).tolist()) == {0, 1}


def test_drawn_noise_is_normal_and_its_rows_are_independent():
    codec = of(DrawnNoise(1), 131_200)
    rows = np.stack([eps(codec, seed) for seed in (5, 6, 2**62)])
    assert abs(rows.mean(1)).max() < 5 / 131_200**0.5
    assert abs(rows.std(1) - 1).max() < 5 / (2 * 131_200) ** 0.5
    assert abs(np.corrcoef(rows) - np.eye(3)).max() < 5 / 131_200**0.5
    halves = rows[:, :65_536], rows[:, 65_536 : 2 * 65_536]
    for one, other in zip(*halves, strict=True):
        assert abs(np.corrcoef(one, other)[0, 1]) < 5 / 256
    other = of(DrawnNoise(2), 131_200)
    assert abs(np.corrcoef(rows[0], eps(other, 5))[0, 1]) < 5 / 131_200**0.5


@pytest.mark.parametrize(("mutations", "ratio", "limit"), [(250, 5_000, 3_100), (400, 10_000, 1_621)])
def test_a_genome_is_small(mutations, ratio, limit):
    """Four bytes or less for each generation, whatever the size of the network."""
    codec = Codec(NoiseTable(0, 250_000_000), ATARI)
    data = chain(codec, mutations, 0.002).pack(codec)
    assert len(data) <= min(limit, 4 * (mutations + 1) + 21)
    assert 4 * codec.dim / len(data) >= ratio
    own = chain(codec, mutations).pack(codec)
    assert len(own) <= 12 * mutations + 64
    drawn = Codec(DrawnNoise(), ATARI)
    assert len(chain(drawn, mutations).pack(drawn)) <= 12 * mutations + 64


@noises
@pytest.mark.parametrize("mutations", [0, 1, 2, 33])
@pytest.mark.parametrize("sigma", [None, 0.002])
def test_a_genome_is_packed_and_unpacked(noise, mutations, sigma):
    codec = of(noise)
    genome = chain(codec, mutations, sigma)
    again = Genome.unpack(genome.pack(codec), codec)
    assert again == genome
    assert hash(again) == hash(genome)
    assert again.digest == genome.digest
    assert again.sigmas.tobytes() == genome.sigmas.tobytes()
    assert len(again) == mutations + 1


def test_the_largest_seeds_are_kept():
    for codec, largest in [(of(TABLE), TABLE.size - 70_001), (of(DrawnNoise()), 2**63 - 1)]:
        genome = Genome([largest, 0, largest], [1.0, 0.5, 0.5])
        assert Genome.unpack(genome.pack(codec), codec) == genome
        with pytest.raises(ValueError, match=f"seeds up to {largest}, and the genome one of {largest + 1}"):
            Genome([largest + 1], [1.0]).pack(codec)


@pytest.mark.parametrize("beyond", [1, 2, 70_000, 10**9])
def test_seeds_without_noise_are_not_decoded(beyond):
    """Also where what is left of the table is a single number, which would fill a row."""
    codec = of(TABLE)
    seed = TABLE.size - codec.dim + beyond
    for seeds in ([seed], [0, seed]):
        with pytest.raises(ValueError, match=f"and the genome one of {seed}: it is of another codec"):
            codec.decode(Genome(seeds, np.ones(len(seeds))))


def test_damaged_genomes_are_refused():
    codec = of(TABLE)
    data = chain(codec, 3).pack(codec)
    for place in range(len(data)):
        for bit in (1, 128):
            changed = bytearray(data)
            changed[place] ^= bit
            with pytest.raises(ValueError, match="damaged"):
                Genome.unpack(bytes(changed), codec)
    for size in range(len(data)):
        with pytest.raises(ValueError, match="damaged"):
            Genome.unpack(data[:size], codec)


OTHERS = {
    "seed of the table": of(NoiseTable(2, 300_000)),
    "size of the table": of(NoiseTable(1, 300_001)),
    "drawn": of(DrawnNoise(1)),
    "drawn with another seed": of(DrawnNoise(2)),
    "longer": of(TABLE, 70_002),
    "base": of(TABLE, base=np.zeros(70_001)),
    "another base": of(TABLE, base=np.ones(70_001)),
    "a piece": Codec(TABLE, (Piece("w", (70_001,), 0.1),)),
    "its deviation": Codec(TABLE, (Piece("w", (70_001,), 0.2),)),
    "its mean": Codec(TABLE, (Piece("w", (70_001,), 0.1, 0.5),)),
    "its shape": Codec(TABLE, (Piece("w", (1, 70_001), 0.1),)),
    "its name": Codec(TABLE, (Piece("v", (70_001,), 0.1),)),
}


@pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS)
def test_a_genome_of_another_codec_is_refused(other):
    codec = of(TABLE)
    data = chain(codec).pack(codec)
    assert other != codec
    with pytest.raises(
        ValueError, match=f"of the codec {codec.digest[:16]}, and not of .*{other.digest[:16]}"
    ):
        Genome.unpack(data, other)
    with pytest.raises(ValueError, match=r"another codec: .* there, and .* here"):
        other.check(codec.description)


def test_codecs_are_all_different_and_values():
    digests = {codec.digest for codec in (of(TABLE), *OTHERS.values())}
    assert len(digests) == 1 + len(OTHERS)
    assert of(TABLE) == of(NoiseTable(1, 300_000))
    assert hash(of(TABLE)) == hash(of(NoiseTable(1, 300_000)))
    assert len(pickle.dumps(of(TABLE))) < 1000


@noises
def test_a_codec_can_be_had_from_its_description(noise):
    codec = of(noise)
    assert Codec.described(codec.description) == codec
    base = np.linspace(0, 1, 70_001).astype(np.float32)
    around = of(noise, base=base)
    assert Codec.described(around.description, base) == around
    with pytest.raises(ValueError, match="given as a base"):
        Codec.described(around.description)
    with pytest.raises(ValueError, match="the sha256 of the base is"):
        Codec.described(around.description, 2 * base)
    with pytest.raises(ValueError, match="the version of the codec is 2 there, and 1 here"):
        Codec.described({**codec.description, "version": 2})
    with pytest.raises(ValueError, match="the first numbers of noise"):
        Codec.described({**codec.description, "numbers": "0" * 64})


def test_what_a_seed_stands_for_does_not_change():
    """Written down once: files of today are to be read by the gradfree of tomorrow."""
    codec = Codec(NoiseTable(7, 200_000), (Piece("w", (3, 5), 0.5, 0.25), Piece("b", (2,), 0.0)))
    genome = Genome(codec.draw(Key(1), 0, 3), [1.0, 0.25, 0.5])
    assert genome.seeds.tolist() == SEEDS
    assert genome.digest == DIGEST
    table = NoiseTable(7, 200_000).array(Like("numpy", "float32")).astype(np.float64)
    parts = [table[seed : seed + 3] for seed in SEEDS]
    expected = 0.25 + 0.5 * parts[0] + 0.25 * parts[1] + 0.5 * parts[2]
    np.testing.assert_allclose(codec.decode(genome)[:3], expected, rtol=1e-6)
    packed = genome.pack(codec).hex()
    assert packed[:2] + packed[18:34] == PACKED  # kind, entries, and sigma; the codec's digest is in between


def test_a_shared_table_is_not_drawn_again(monkeypatch):
    shared = SharedTable(NoiseTable(5, 100_000))
    message = packing.encode(shared)
    assert len(message.body) < 1000
    (base,) = message.bases
    assert base.buffer.nbytes == 400_000
    memory = bytes(base.buffer)
    expected = shared.noise.array()
    clear_cache()
    numbers = np.frombuffer(memory, np.float32)
    again = packing.decode(message.body, [memoryview(memory)])
    assert again.noise == shared.noise
    assert np.shares_memory(again.noise.array(), numbers)
    codec = of(NoiseTable(5, 100_000), 1000)
    assert np.shares_memory(codec.noise.array(Like("numpy", "float32")), numbers)
    clear_cache()
    np.testing.assert_array_equal(NoiseTable(5, 100_000).array(), expected)
    clear_cache()


def test_drawn_noise_is_shared_as_it_is():
    shared = pickle.loads(pickle.dumps(SharedTable(DrawnNoise(3))))
    assert shared.noise == DrawnNoise(3)
    assert shared.numbers is None


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (lambda: Codec(3, ATARI), TypeError, "`noise` must be a NoiseTable or DrawnNoise, got 3"),
        (lambda: Codec(TABLE, ()), ValueError, "`pieces` must hold one number at least"),
        (lambda: Codec(TABLE, ATARI), ValueError, "`noise` must have from 4052658 numbers"),
        (lambda: of(NoiseTable(0, 2**32 + 1)), ValueError, r"to 2\^32, got NoiseTable\(0, 4294967297\)"),
        (lambda: Codec(TABLE, (Piece("w", (3,), -1.0),)), ValueError, "deviation of at least 0, got Piece"),
        (lambda: Codec(TABLE, (Piece("w", (3,), np.nan),)), ValueError, "a finite deviation"),
        (lambda: Codec(TABLE, (Piece("w", (3,), 1.0, np.inf),)), ValueError, "a finite mean"),
        (lambda: of(TABLE, base=np.zeros(3)), ValueError, r"`base` must be 70001 finite .* shape \(3,\)"),
        (lambda: of(TABLE, base=np.full(70_001, np.nan)), ValueError, "`base` must be 70001 finite"),
        (lambda: DrawnNoise(-1), ValueError, "`seed` must be at least 0, got -1"),
        (lambda: Genome([], []), ValueError, "of at least 1, got shapes"),
        (lambda: Genome([1, 2], [1.0]), ValueError, "rows of the same length"),
        (lambda: Genome([1, 2], [1.0, np.nan]), ValueError, "`sigmas` must be finite"),
    ],
)
def test_what_cannot_be_is_refused(build, error, message):
    with pytest.raises(error, match=message):
        build()


def test_genomes_are_values():
    genome = Genome([1, 2], [9.0, 0.5])
    assert genome == Genome([1, 2], [1.0, 0.5])
    assert genome != Genome([1, 2], [1.0, 0.25])
    assert genome != Genome([1, 3], [1.0, 0.5])
    assert genome != "a genome"
    assert len({genome, Genome([1, 2], [1.0, 0.5])}) == 1
    with pytest.raises(ValueError, match="read-only"):
        genome.seeds[0] = 3
    assert genome.marks[:1] == Genome([1], [1.0]).marks
