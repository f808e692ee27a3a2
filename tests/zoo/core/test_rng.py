"""Keys: every trap of keyed randomness that is known, slices, laws, and global generators put back.

Float32 numbers drawn by torch on the CPU may differ between vector instruction sets (AVX2 against none);
float64 ones may not, and neither may anything drawn by numpy. The first is not promised, so not tested.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import random
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from zoo.core.device import NUMPY, Like, to_numpy
from zoo.core.rng import (
    QUICK,
    Key,
    NoiseTable,
    _quick,
    _tables,
    _torch_generator,
    _travel_packed,
    clear_cache,
    keyed_generators,
    whole_stretch,
)

ROOT = Path(__file__).parents[3]

DIMS = (1, 10, 17, 64, 100, 1000, 3000, 16384, 16385, 65536, 65537, 70001)
HALVES = [Like("numpy", "float16"), Like("torch", "float16"), Like("torch", "bfloat16")]
LIKES = [NUMPY, Like("numpy", "float32"), Like("torch", "float32"), Like("torch", "float64"), *HALVES]
LAWS: dict[str, Callable[[Key, int, int, int], np.ndarray[Any, Any]]] = {
    "integers": lambda key, start, stop, dim: key.integers(start, stop, dim, high=1000),
    "permutation": lambda key, start, stop, dim: key.permutation(start, stop, dim),
}


def name_of(like: Like) -> str:
    return f"{like.kind}-{like.dtype}"


def slices(dim: int) -> tuple[int, list[tuple[int, int]]]:
    """Return a number of rows, and slices of them that begin and end within blocks and between them."""
    n = max(4, min(-(-3 * 32768 // dim), 2500))
    cuts = [(0, 0), (0, 1), (1, 2), (1, n), (n - 1, n), (n // 2, n // 2 + 2), (3, 3)]
    for size in (16384, 32768, 65536):
        height = size // dim
        cuts += [(height - 1, height + 1), (height, height + 2)] if 1 < height < n - 2 else []
    draws = Key(dim).integers(0, 8, 2, high=n + 1).tolist()
    return n, cuts + [(min(draw), max(draw)) for draw in draws]


def assert_equal_bits(one: Any, other: Any) -> None:
    assert type(one) is type(other)
    assert one.dtype == other.dtype
    assert one.shape == other.shape
    assert to_numpy(one).tobytes() == to_numpy(other).tobytes()


# Keys as values.


def test_key_is_a_value():
    key = Key(3).fold("directions", 7)
    assert key == Key(3).fold("directions", 7)
    assert hash(key) == hash(Key(3).fold("directions", 7))
    assert key != Key(3).fold("directions", 8)
    assert key != str(key)
    assert len({Key(0), Key(0), Key(1)}) == 2
    assert eval(repr(key)) == key


def test_key_is_written_down_and_read_back():
    key = Key(3).fold("directions", 7)
    assert Key.parse(str(key)) == key
    key.normal(0, 2, 3)  # a key that has been drawn from holds more
    again = pickle.loads(pickle.dumps(key))
    assert again == key
    assert_equal_bits(again.normal(0, 2, 3), key.normal(0, 2, 3))


@pytest.mark.parametrize("text", ["", "00", "x" * 32, "00" * 17])
def test_bad_text_of_a_key_is_refused(text):
    with pytest.raises(ValueError, match="32 hexadecimal digits"):
        Key.parse(text)


@pytest.mark.parametrize(
    ("seed", "error"),
    [
        (-1, ValueError),
        (np.int64(-5), ValueError),
        (1.0, TypeError),
        (True, TypeError),
        ("1", TypeError),
        (None, TypeError),
    ],
)
def test_bad_seeds_are_refused(seed, error):
    with pytest.raises(error, match="`seed` must be"):
        Key(seed)


@pytest.mark.parametrize("part", [1.0, True, None, b"a", ("a",)])
def test_bad_parts_of_a_path_are_refused(part):
    with pytest.raises(TypeError, match="names and integers"):
        Key(0).fold(part)


def test_numpy_integers_are_integers():
    assert Key(np.int64(5)) == Key(np.uint8(5)) == Key(5)
    assert Key(0).fold(np.int32(5), np.uint64(2**63)) == Key(0).fold(5, 2**63)


def test_a_key_does_not_change_when_it_is_derived_from():
    key = Key(0)
    before = str(key), key.normal(0, 2, 3)
    key.fold("a").normal(0, 1, 4)
    assert str(key) == before[0]
    assert_equal_bits(key.normal(0, 2, 3), before[1])


def test_values_are_those_of_every_other_machine():
    """Written down once: a change here breaks every run directory there is."""
    key = Key(0).fold("a", 1)
    assert str(Key(0)) == hashlib.blake2b(b"i0;", digest_size=16, person=b"gradfree").hexdigest()
    assert str(Key(0)) == "47c5308c36fe4cf4be6df41a251f9e4e"
    assert str(key) == "29ac8326dd88df2510c9ce8d743e5d7e"
    np.testing.assert_allclose(key.normal(0, 1, 3)[0], [1.94415087, 0.66563732, -1.59093152], rtol=1e-7)
    np.testing.assert_allclose(key.uniform(0, 1, 3)[0], [0.85143778, 0.82539785, 0.49636317], rtol=1e-7)
    assert key.integers(0, 1, 5, high=100)[0].tolist() == [11, 85, 19, 82, 55]
    assert key.permutation(0, 1, 6)[0].tolist() == [3, 4, 5, 2, 1, 0]
    assert key.rademacher(0, 1, 8)[0].tolist() == [-1, -1, -1, -1, -1, 1, 1, 1]
    assert key.seed(32) == 2120040052


def test_seeds_have_the_bits_asked_for():
    seeds = {bits: [Key(i).seed(bits) for i in range(200)] for bits in (1, 32, 63, 128)}
    for bits, values in seeds.items():
        assert min(values) >= 0
        assert max(values).bit_length() == bits


# The traps.


def test_trap_seed_sequences_collide_and_keys_do_not():
    # numpy.random.SeedSequence takes 1, (1, 0) and (1, 0, 0) for the same, and 2^32 + 5 for (5, 1).
    paths = [
        (1,),
        (1, 0),
        (1, 0, 0),
        (0, 1),
        (2**32 + 5,),
        (5, 1),
        (2**64 + 1,),
        (1, 1),
        (-1,),
        (),
        ("",),
        ("1",),
        ("1", 0),
        ("i1;",),
        ("ab", "c"),
        ("a", "bc"),
        ("abc",),
        ("s1:a",),
        ("a",),
    ]
    assert len({Key(0).fold(*path) for path in paths}) == len(paths)
    seeds = [0, 1, 2**32, 2**32 + 1, 2**32 + 5, 2**64 + 1, 2**128]
    assert len({Key(seed) for seed in seeds}) == len(seeds)


def test_folding_twice_is_not_folding_a_pair():
    # Not promised to be different or equal by any rule: only that nobody relies on it unawares.
    assert Key(0).fold("a").fold("b") != Key(0).fold("a", "b")


def key_with(low: int, high: int) -> Key:
    """Return the key whose 128 bits are two words of 64."""
    return Key.parse(b"".join(word.to_bytes(8, "little") for word in (low, high)).hex())


@pytest.mark.parametrize("like", LIKES, ids=name_of)
def test_trap_seeds_equal_in_their_low_32_bits_differ(like):
    # torch.Generator().manual_seed(s) and manual_seed(s + 2^32) are the same on the CPU.
    keys = [key_with(5 + low * 2**32, 7 + high * 2**32) for low in (0, 1) for high in (0, 1)]
    drawn = [to_numpy(key.normal(0, 1, 2048, like=like)) for key in keys]
    for i, one in enumerate(drawn):
        for other in drawn[:i]:
            assert (one == other).mean() < 0.05  # halves have few values, so some of them meet


def twister_words(state: torch.Tensor) -> np.ndarray[Any, Any]:
    return state.numpy()[24 : 24 + 624 * 8].view(np.uint64)


def torch_state_after(key: Key, row: int) -> torch.Tensor:
    """Return the state that torch's generator is given for a row that is a block of its own."""
    return _torch_generator(key, (row, 0), "cpu").get_state()


def test_trap_all_624_words_of_the_twister_are_filled():
    states = [torch_state_after(Key(seed), row) for seed in (0, 1) for row in (0, 1)]
    words = np.array([twister_words(state) for state in states])
    assert words.max() < 2**32
    for i in range(len(words)):
        for j in range(i):
            assert (words[i] != words[j]).mean() > 0.99
            # Unrelated: half of the bits differ, within six standard deviations.
            bits = np.unpackbits((words[i] ^ words[j]).astype(np.uint32).view(np.uint8)).mean()
            assert abs(bits - 0.5) < 6 * 0.5 / np.sqrt(624 * 32)


def test_trap_layout_of_the_twister_is_what_is_assumed():
    state = torch.Generator().get_state()
    assert state.numel() == 5056
    seed, left, seeded, following = (
        *state.numpy()[:8].view(np.uint64),
        *state.numpy()[8:24].view(np.int32)[:3],
    )
    assert seed == torch.Generator().initial_seed()
    assert (left, seeded, following) == (1, 1, 0)  # the first number drawn mixes the words
    ours = torch_state_after(Key(0), 0)
    assert ours.numpy()[8:24].tobytes() == state.numpy()[8:24].tobytes()


def test_trap_twister_begins_by_mixing_its_words():
    """The same words in numpy's Mersenne Twister give the same numbers."""
    key, dim = Key(4), 20_000
    drawn = key.uniform(2, 3, dim, like=Like("torch", "float32"))
    philox = np.random.Philox(key=np.frombuffer(key.digest, "<u8"), counter=[0, 0, 2, 0])
    twister = np.random.MT19937()
    words = philox.random_raw(312).view(np.uint32)
    twister.state = {"bit_generator": "MT19937", "state": {"key": words, "pos": 624}}
    expected = (twister.random_raw(dim) & (2**24 - 1)).astype(np.float32) * np.float32(2**-24)
    assert drawn.numpy()[0].tobytes() == expected.tobytes()


@pytest.mark.parametrize("dim", [64, 65, 100, 1024, 1025, 1031, 1039, 3001])
@pytest.mark.parametrize("law", ["normal", "uniform"])
def test_trap_prefixes_of_torch_normals_hold_at_every_offset(law, dim):
    # torch's `normal_` keeps a prefix between sizes that are multiples of 16 only, and goes another way
    # below 16.
    like = Like("torch", "float32")
    whole = getattr(Key(2), law)(0, 33, dim, like=like)
    for start, stop in [(0, 1), (1, 2), (3, 8), (5, 6), (7, 31), (15, 16), (15, 17), (16, 33), (32, 33)]:
        assert_equal_bits(getattr(Key(2), law)(start, stop, dim, like=like), whole[start:stop])


def test_trap_torch_really_has_no_prefix_elsewhere():
    """Should this fail one day, torch has mended it, and the rounding up to 16 could go."""
    generator = torch.Generator()
    long, short = (torch.empty(n).normal_(generator=generator.manual_seed(0)) for n in (48, 35))
    assert not torch.equal(long[:35], short)


@pytest.mark.parametrize("like", LIKES, ids=name_of)
@pytest.mark.parametrize("dim", [10, 2048, 65552, 70001])
def test_trap_rows_are_drawn_as_if_into_memory_of_their_own(like, dim):
    # Strided targets are given other numbers by torch, and refused by numpy.
    whole = Key(1).normal(0, 3, dim, like=like)
    for row in range(3):
        assert_equal_bits(Key(1).normal(row, row + 1, dim, like=like)[0], whole[row])
    flags = whole.is_contiguous() if like.kind == "torch" else whole.flags.c_contiguous
    assert flags


def test_trap_neighbouring_blocks_share_no_number():
    # Philox started at counters c and c + 1 repeats itself one step of four words later.
    height = 16384 // 4
    drawn = Key(0).uniform(0, 8 * height, 4)
    assert len(np.unique(drawn)) == drawn.size
    columns = Key(0).uniform(0, 2, 5 * 65536)
    assert len(np.unique(columns)) == columns.size


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_blocks_are_numbered_in_the_upper_words_of_the_counter(dtype):
    key, like = Key(9), Like("numpy", dtype)
    words = np.frombuffer(key.digest, "<u8")

    def of_block(row: int, column: int, shape: Any) -> np.ndarray[Any, Any]:
        generator = np.random.Generator(np.random.Philox(key=words, counter=[0, 0, row, column]))
        return generator.standard_normal(shape, dtype=dtype)

    assert_equal_bits(key.normal(48, 64, 1000, like=like), of_block(3, 0, (16, 1000)))
    assert_equal_bits(key.normal(2, 3, 65636, like=like)[0, 65536:], of_block(2, 1, 100))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_trap_numpy_keeps_prefixes(dtype):
    like = Like("numpy", dtype)
    whole = Key(5).normal(0, 1638, 10, like=like)
    for stop in (1, 2, 3, 7, 1000, 1637):
        assert_equal_bits(Key(5).normal(0, stop, 10, like=like), whole[:stop])


DIGEST = """
import hashlib
from zoo.core.device import Like, to_numpy
from zoo.core.rng import Key
for kind, dtype in [("numpy", "float32"), ("numpy", "float64"), ("torch", "float64")]:
    drawn = Key(0).normal(0, 4, 100_000, like=Like(kind, dtype))
    print(hashlib.sha256(to_numpy(drawn).tobytes()).hexdigest())
"""


def python(code: str, environment: dict[str, str] | None = None) -> str:
    """Run some code in a fresh interpreter, and return what it prints."""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, text=True, capture_output=True, timeout=100
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_trap_instruction_sets_leave_float64_alone():
    likes = [Like("numpy", "float32"), NUMPY, Like("torch", "float64")]
    here = [Key(0).normal(0, 4, 100_000, like=like) for like in likes]
    environment = os.environ | {"ATEN_CPU_CAPABILITY": "default"}
    done = python(DIGEST, environment)
    assert done.split() == [hashlib.sha256(to_numpy(drawn).tobytes()).hexdigest() for drawn in here]


def test_trap_number_of_threads_changes_nothing():
    like = Like("torch", "float32")
    threads = torch.get_num_threads()
    try:
        drawn = []
        for number in (1, 2):
            torch.set_num_threads(number)
            drawn.append(Key(0).normal(0, 3, 300_000, like=like))
    finally:
        torch.set_num_threads(threads)
    assert_equal_bits(*drawn)


def test_trap_threads_that_draw_at_once_do_not_meet():
    like = Like("torch", "float32")
    key, results, errors = Key(0).fold("threads"), {}, []
    barrier = threading.Barrier(8)

    def draw(number: int) -> None:
        barrier.wait()
        try:
            for turn in range(30):
                row = (number * 7 + turn) % 40
                results[number, turn] = (
                    row,
                    key.normal(row, row + 2, 700),
                    key.normal(row, row + 1, 2000, like=like),
                )
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=draw, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    small, large = key.normal(0, 42, 700), key.normal(0, 42, 2000, like=like)
    assert len(results) == 8 * 30
    for row, ours, long in results.values():
        assert_equal_bits(ours, small[row : row + 2])
        assert_equal_bits(long, large[row : row + 1])


# Slices.


@pytest.mark.parametrize("dim", DIMS)
@pytest.mark.parametrize("like", LIKES, ids=name_of)
@pytest.mark.parametrize("law", ["normal", "uniform", "rademacher"])
def test_rows_do_not_depend_on_the_slice(law, like, dim):
    draw, (n, cuts) = getattr(Key(1).fold(law), law), slices(dim)
    whole = draw(0, n, dim, like=like)
    assert Like.of(whole) == like
    assert tuple(whole.shape) == (n, dim)
    for start, stop in cuts:
        assert_equal_bits(draw(start, stop, dim, like=like), whole[start:stop])


@pytest.mark.parametrize("dim", DIMS)
@pytest.mark.parametrize("law", LAWS)
def test_rows_of_integers_do_not_depend_on_the_slice(law, dim):
    n, cuts = slices(dim)
    whole = LAWS[law](Key(1), 0, n, dim)
    assert whole.dtype == np.int64
    for start, stop in cuts:
        assert_equal_bits(LAWS[law](Key(1), start, stop, dim), whole[start:stop])


@pytest.mark.parametrize("law", ["normal", "uniform", "rademacher"])
def test_rows_far_down_cost_no_more(law):
    far = 10**12
    for dim in (3, 5000, 70001):
        two = getattr(Key(0), law)(far, far + 2, dim)
        assert_equal_bits(getattr(Key(0), law)(far + 1, far + 2, dim), two[1:])


@pytest.mark.parametrize("like", LIKES, ids=name_of)
def test_like_may_be_an_array(like):
    array = like.asarray(np.zeros(2))
    assert_equal_bits(Key(0).normal(0, 2, 3, like=array), Key(0).normal(0, 2, 3, like=like))


def test_halves_are_rounded_floats():
    for dim in (10, 2000):
        single = {kind: Key(0).normal(0, 3, dim, like=Like(kind, "float32")) for kind in ("numpy", "torch")}
        for like in HALVES:
            assert_equal_bits(Key(0).normal(0, 3, dim, like=like), like.asarray(single[like.kind]))


@pytest.mark.parametrize("law", ["normal", "uniform"])
def test_dtypes_that_hold_no_fractions_are_refused(law):
    with pytest.raises(TypeError, match="int64"):
        getattr(Key(0), law)(0, 1, 2, like=np.zeros(1, np.int64))


# Signs are the same everywhere.


@pytest.mark.parametrize("dim", [1, 7, 10, 1000, 70001])
def test_signs_are_the_same_for_every_kind_of_array(dim):
    expected = Key(0).rademacher(1, 6, dim)
    assert set(np.unique(expected)) == {-1.0, 1.0}
    for like in LIKES[1:]:
        np.testing.assert_array_equal(to_numpy(Key(0).rademacher(1, 6, dim, like=like)), expected)


@pytest.mark.parametrize("shape", [(0, 5), (1, 1), (3, 7), (2, 8), (5, 1001)])
def test_signs_survive_being_packed(shape):
    bits = np.random.Generator(np.random.Philox(key=1)).integers(0, 2, shape, np.uint8)
    np.testing.assert_array_equal(_travel_packed(bits, "cpu").numpy(), bits)


@pytest.mark.gpu
@pytest.mark.parametrize("dim", [1, 7, 1000, 70001])
def test_signs_are_the_same_on_a_gpu(dim):
    drawn = Key(0).rademacher(1, 6, dim, like=Like("torch", "float32", "cuda:0"))
    np.testing.assert_array_equal(to_numpy(drawn), Key(0).rademacher(1, 6, dim))


@pytest.mark.gpu
@pytest.mark.parametrize("dim", DIMS)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
@pytest.mark.parametrize("law", ["normal", "uniform"])
def test_rows_do_not_depend_on_the_slice_on_a_gpu(law, dtype, dim):
    like = Like("torch", dtype, "cuda:0")
    draw, (n, cuts) = getattr(Key(1), law), slices(dim)
    whole = draw(0, n, dim, like=like)
    assert Like.of(whole) == like
    for start, stop in cuts:
        assert_equal_bits(draw(start, stop, dim, like=like), whole[start:stop])


# Block by block, and from a table.

FULL = [like for like in LIKES if like.dtype in ("float32", "float64")]


def put_together(blocks: Any, rows: int, dim: int) -> np.ndarray[Any, Any]:
    """Return a matrix from its blocks, every number of which must come once."""
    whole = np.full((rows, dim), np.nan)
    for part, columns, z in blocks:
        assert np.isnan(whole[part, columns]).all()
        assert z.shape == whole[part, columns].shape
        whole[part, columns] = to_numpy(z)
    return whole


@pytest.mark.parametrize("dim", DIMS)
@pytest.mark.parametrize("like", FULL, ids=name_of)
def test_blocks_are_parts_of_the_matrix(like, dim):
    n, cuts = slices(dim)
    whole = to_numpy(Key(1).normal(0, n, dim, like=like))
    for start, stop in cuts:
        blocks = Key(1).normal_blocks(start, stop, dim, like=like)
        np.testing.assert_array_equal(put_together(blocks, stop - start, dim), whole[start:stop])


@pytest.mark.parametrize("moments", [(0.0, 1.0), (0.75, 1.0), (-0.5, 1.25)])
@pytest.mark.parametrize("dim", [1, 63, 100, 1000, 50_001, 70_001])
@pytest.mark.parametrize("like", FULL, ids=name_of)
def test_memory_is_filled_with_rows_of_any_mean_and_deviation(like, dim, moments):
    (n, cuts), (mean, std) = slices(dim), moments
    normal = Key(1).normal(0, n, dim, like=like)
    whole = normal * 0
    Key(1).fill_normal(whole, mean=mean, std=std)
    if moments == (0.0, 1.0):
        assert (to_numpy(whole) == to_numpy(normal)).all()
    expected = mean + std * to_numpy(normal).astype(np.float64)
    # Two roundings of numbers below 8.
    np.testing.assert_allclose(to_numpy(whole), expected, rtol=0, atol=8 * like.epsilon)
    for start, stop in cuts:
        part = normal[start:stop] * 0
        Key(1).fill_normal(part, start, mean=mean, std=std)
        assert (to_numpy(part) == to_numpy(whole)[start:stop]).all()
        blocks = Key(1).normal_blocks(start, stop, dim, like=like, mean=mean, std=std)
        np.testing.assert_array_equal(put_together(blocks, stop - start, dim), to_numpy(whole)[start:stop])


@pytest.mark.parametrize("like", FULL, ids=name_of)
def test_blocks_of_long_rows_come_column_by_column(like):
    def places(dim):
        return [(part, columns) for part, columns, _ in Key(1).normal_blocks(5, 8, dim, like=like)]

    rows = [slice(row, row + 1) for row in range(3)]
    columns = [slice(0, 65536), slice(65536, 70001)]
    assert places(70001) == [(row, column) for column in columns for row in rows]
    assert all(column == slice(0, 1000) for _, column in places(1000))


@pytest.mark.parametrize("like", FULL, ids=name_of)
def test_blocks_are_like_what_was_asked_for(like):
    for dim in (10, 1000, 70001):
        assert all(Like.of(z) == like for _, _, z in Key(1).normal_blocks(0, 2, dim, like=like))


@pytest.mark.parametrize("dim", [1, 7, 1000, 65536, 65537, 70001])
@pytest.mark.parametrize("like", LIKES, ids=name_of)
def test_rows_of_a_table_are_stretches_of_it(like, dim):
    table = NoiseTable(3, 100_000)
    whole = table.normal(Key(1), 0, 40, dim, like=like)
    assert Like.of(whole) == like
    flat, host = to_numpy(table.array(like)), to_numpy(whole)
    assert flat.dtype == np.float32
    assert flat.shape == (100_000,)
    begins = Key(1).fold("offsets").integers(0, 40, 1, high=100_001 - dim)[:, 0]
    for row, begin in zip(whole, begins, strict=True):
        assert_equal_bits(row, like.asarray(table.array(like)[begin : begin + dim]))
    for start, stop in [(0, 1), (3, 3), (7, 40), (39, 40)]:
        assert_equal_bits(table.normal(Key(1), start, stop, dim, like=like), whole[start:stop])
        blocks = table.normal_blocks(Key(1), start, stop, dim, like=like)
        np.testing.assert_array_equal(put_together(blocks, stop - start, dim), host[start:stop])


def test_a_table_is_the_same_for_every_kind_of_array():
    table = NoiseTable(3, 10_000)
    for like in LIKES:
        np.testing.assert_array_equal(to_numpy(table.array(like)), table.array())
        if like in FULL:
            rows = table.normal(Key(1), 0, 5, 300, like=like)
            np.testing.assert_array_equal(to_numpy(rows), table.normal(Key(1), 0, 5, 300))


@pytest.mark.gpu
def test_a_table_is_the_same_on_a_gpu():
    table, like = NoiseTable(3, 200_000), Like("torch", "float32", "cuda:0")
    for dim in (300, 70001):
        rows, expected = table.normal(Key(1), 0, 5, dim, like=like), table.normal(Key(1), 0, 5, dim)
        assert Like.of(rows) == like
        np.testing.assert_array_equal(to_numpy(rows), expected)
        blocks = table.normal_blocks(Key(1), 0, 5, dim, like=like)
        np.testing.assert_array_equal(put_together(blocks, 5, dim), expected)


@pytest.mark.gpu
@pytest.mark.parametrize("dim", DIMS)
def test_blocks_are_parts_of_the_matrix_on_a_gpu(dim):
    like, (n, cuts) = Like("torch", "float32", "cuda:0"), slices(dim)
    whole = to_numpy(Key(1).normal(0, n, dim, like=like))
    for start, stop in cuts:
        blocks = Key(1).normal_blocks(start, stop, dim, like=like)
        np.testing.assert_array_equal(put_together(blocks, stop - start, dim), whole[start:stop])


def test_a_table_is_what_its_seed_and_size_say():
    """Written down once, as the keys' own numbers are."""
    table = NoiseTable(7, 200_000)
    drawn = Key(7).fold("noise table").normal(0, 1, 200_000, like=Like("numpy", "float32"))[0]
    np.testing.assert_array_equal(table.array(), drawn)
    np.testing.assert_allclose(table.array()[:3], [0.636158, 0.221934, 0.1923034], rtol=1e-6)
    assert table == NoiseTable(7, 200_000)
    assert hash(table) == hash(NoiseTable(7, 200_000))
    assert table != NoiseTable(8, 200_000)
    assert table != NoiseTable(7, 200_001)
    assert eval(repr(table)) == table


def test_a_table_is_built_once_shared_and_never_pickled():
    clear_cache()
    table = NoiseTable(0, 100_000)
    again = pickle.loads(pickle.dumps(table))
    assert again == table
    assert not _tables
    array = table.array()
    assert again.array() is array
    assert len(pickle.dumps(table)) < 200
    shared = table.array(Like("torch", "float32"))
    assert shared.data_ptr() == array.ctypes.data
    with pytest.raises(ValueError, match="read-only"):
        array[0] = 1
    rows = table.normal(Key(0), 0, 2, 50)
    rows += 1  # a caller's own
    for other in (1, 2):
        NoiseTable(other, 10).array()
    assert (0, 100_000) not in _tables
    assert len(_tables) == 2
    np.testing.assert_array_equal(table.array(), array)


@pytest.mark.parametrize("size", [1, 1000, 65_536, 65_537, 200_000])
def test_a_table_can_be_read_from_memory_that_holds_it(size):
    table = NoiseTable(3, size)
    numbers = table.array(Like("numpy", "float32")).copy()
    for count in (1, 1024, 10**6):
        np.testing.assert_array_equal(table.head(count), numbers[: min(count, 65_536)])
    clear_cache()
    assert len(table.head()) == min(size, 1024)
    assert not _tables  # the rest was not drawn
    table.adopt(numbers)
    for like in (NUMPY, Like("torch", "float32")):
        assert np.shares_memory(to_numpy(table.array(like)), numbers)
    NoiseTable(3, size).adopt(numbers.copy())
    assert np.shares_memory(table.array(), numbers)  # what a process has, it keeps
    for other in (4, 5):
        NoiseTable(other, 10).array()
    assert len(_tables) == 2
    np.testing.assert_array_equal(table.array(), numbers)
    clear_cache()


def test_numbers_of_another_table_are_not_adopted():
    table = NoiseTable(3, 1000)
    numbers = table.array(Like("numpy", "float32"))
    clear_cache()
    for other, message in [
        (
            NoiseTable(4, 1000).array(Like("numpy", "float32")),
            r"those of NoiseTable\(3, 1000\).* begin with others",
        ),
        (numbers[:999], r"float32 of shape \(1000,\); got float32 of shape \(999,\)\."),
        (numbers.astype(np.float64), r"got float64 of shape \(1000,\)\."),
    ]:
        with pytest.raises(ValueError, match=message):
            table.adopt(other)
    assert (3, 1000) not in _tables
    clear_cache()


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((-1, 5), ValueError, "`seed` must be at least 0, got -1"),
        ((0, 0), ValueError, "`size` must be at least 1, got 0"),
        ((0.5, 5), TypeError, "`seed` must be an integer, got 0.5"),
        ((0, True), TypeError, "`size` must be an integer, got True"),
    ],
)
def test_tables_that_cannot_be_are_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        NoiseTable(*arguments)


def test_rows_longer_than_the_table_are_refused():
    table = NoiseTable(0, 10)
    np.testing.assert_array_equal(table.normal(Key(0), 0, 2, 10), np.tile(table.array(), (2, 1)))
    with pytest.raises(ValueError, match="a noise table of 10 numbers has no rows of 11"):
        table.normal(Key(0), 0, 2, 11)


# Laws, within six standard deviations of a closed form.


@pytest.mark.parametrize("dim", [7, 3001])
@pytest.mark.parametrize("like", LIKES, ids=name_of)
def test_normals_are_normal(like, dim):
    n = 400_000 // dim
    z = to_numpy(Key(0).normal(0, n, dim, like=like)).astype(np.float64)
    size = n * dim
    rounding = 4 * like.epsilon**2  # of halves, in the moments
    for power, (mean, variance) in {1: (0, 1), 2: (1, 2), 3: (0, 15), 4: (3, 96)}.items():
        assert abs((z**power).mean() - mean) < 6 * np.sqrt(variance / size) + rounding * power
    neighbours = z[:, :-1] * z[:, 1:]
    assert abs(neighbours.mean()) < 6 / np.sqrt(neighbours.size)
    below = z[:-1] * z[1:]
    assert abs(below.mean()) < 6 / np.sqrt(below.size)
    assert 4 < np.abs(z).max() < 7


@pytest.mark.parametrize("dim", [7, 3001])
@pytest.mark.parametrize("like", LIKES, ids=name_of)
def test_uniforms_are_uniform_and_below_one(like, dim):
    n = 400_000 // dim
    u = to_numpy(Key(0).uniform(0, n, dim, like=like)).astype(np.float64)
    size = n * dim
    assert u.min() >= 0
    assert u.max() < 1
    rounding = like.epsilon
    assert abs(u.mean() - 1 / 2) < 6 * np.sqrt(1 / 12 / size) + rounding
    assert abs((u**2).mean() - 1 / 3) < 6 * np.sqrt(4 / 45 / size) + rounding
    counts = np.histogram(u, 16, (0, 1))[0]
    assert np.abs(counts / size - 1 / 16).max() < 6 * np.sqrt(15 / 256 / size) + rounding


def test_signs_are_fair():
    signs = Key(0).rademacher(0, 4000, 100)
    assert abs(signs.mean()) < 6 / np.sqrt(signs.size)
    assert np.abs(signs.mean(0)).max() < 6 / np.sqrt(4000)
    assert abs((signs[:, 1:] * signs[:, :-1]).mean()) < 6 / np.sqrt(signs.size)


@pytest.mark.parametrize("high", [1, 2, 7, 1000])
def test_integers_are_uniform(high):
    drawn = Key(0).integers(0, 20_000, 10, high=high)
    counts = np.bincount(drawn.reshape(-1), minlength=high) / drawn.size
    assert len(counts) == high
    assert np.abs(counts - 1 / high).max() <= 6 * np.sqrt((1 / high) * (1 - 1 / high) / drawn.size)


def test_integers_may_be_large():
    drawn = Key(0).integers(0, 1000, 10, high=2**62)
    assert abs(drawn.mean() / 2**62 - 0.5) < 6 * np.sqrt(1 / 12 / drawn.size)


def test_permutations_are_orders_each_as_likely_as_any_other():
    drawn = Key(0).permutation(0, 60_000, 3)
    np.testing.assert_array_equal(np.sort(drawn, axis=1), np.tile(np.arange(3), (60_000, 1)))
    orders, counts = np.unique(drawn, axis=0, return_counts=True)
    assert len(orders) == 6
    assert np.abs(counts / 60_000 - 1 / 6).max() < 6 * np.sqrt(5 / 36 / 60_000)
    np.testing.assert_array_equal(np.sort(Key(0).permutation(5, 6, 3000)[0]), np.arange(3000))


def test_laws_of_one_key_share_their_bits_and_those_of_folded_keys_do_not():
    """Why a key is drawn from once: fold a purpose in for each."""
    key = Key(0)
    n = 20_000
    one = key.uniform(0, n, 1)[:, 0]
    assert abs(np.corrcoef(one, key.integers(0, n, 1, high=2**53)[:, 0])[0, 1]) > 0.9
    other = key.fold("other").uniform(0, n, 1)[:, 0]
    normal = key.fold("normal").normal(0, n, 1)[:, 0]
    for x, y in [(one, other), (one, normal), (one, np.abs(normal)), (other, normal)]:
        assert abs(np.corrcoef(x, y)[0, 1]) < 6 / np.sqrt(n)


# Global generators.


def draw_globally() -> tuple[Any, ...]:
    return (
        random.random(),
        random.gauss(0, 1),
        float(np.random.rand()),
        float(np.random.standard_normal()),
        float(torch.rand(())),
        float(torch.randn(())),
    )


def test_noise_is_a_function_of_the_key():
    drawn = []
    for turn, key in enumerate([Key(0), Key(1), Key(0), Key(0).fold("a")]):
        with keyed_generators(Key(100 + turn)):  # whatever was drawn before
            draw_globally()
            with keyed_generators(key):
                drawn.append(draw_globally())
    assert drawn[0] == drawn[2]
    flat = [number for numbers in (drawn[0], drawn[1], drawn[3]) for number in numbers]
    assert len(set(flat)) == len(flat)


def test_generators_are_put_back():
    # The fixture `global_generators_stay` compares all states after the test.
    with keyed_generators(Key(0)):
        draw_globally()


def test_generators_are_put_back_after_an_exception():
    def draw_and_raise() -> None:
        draw_globally()
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), keyed_generators(Key(0)):
        draw_and_raise()


def test_generators_may_be_keyed_within_keyed_ones():
    with keyed_generators(Key(0)):
        first = draw_globally()
        second = draw_globally()
    with keyed_generators(Key(0)):
        assert draw_globally() == first
        with keyed_generators(Key(1)):
            draw_globally()
        assert draw_globally() == second


def test_what_the_body_seeds_is_put_back():
    with keyed_generators(Key(0)):
        np.random.seed(1)
        random.seed(1)
        torch.manual_seed(1)


def test_legacy_normals_cached_outside_do_not_get_in():
    """Numpy and Python keep the second of two normals for the next call."""
    drawn = []
    for warm in (False, True):
        with keyed_generators(Key(5)):
            if warm:
                np.random.standard_normal()
                random.gauss(0, 1)
            with keyed_generators(Key(0)):
                drawn.append((np.random.standard_normal(), random.gauss(0, 1)))
    assert drawn[0] == drawn[1]


def test_keyed_generators_do_without_torch():
    code = """
import sys
import numpy as np
from zoo.core.rng import Key, keyed_generators
with keyed_generators(Key(0)):
    print(np.random.rand(), "torch" in sys.modules)
"""
    with keyed_generators(Key(0)):
        assert python(code) == f"{np.random.rand()} False"


def test_unkeyed_numbers_of_a_torch_imported_too_late_are_warned_of():
    code = """
import warnings
from zoo.core.rng import Key, keyed_generators
with warnings.catch_warnings(record=True) as heard, keyed_generators(Key(0)):
    import torch
    {draw}
print(*(f"{{warning.category.__name__}}: {{warning.message}}" for warning in heard))
"""
    assert python(code.format(draw="torch.rand(())")).startswith("ZooWarning: the objective imported torch")


@pytest.mark.gpu
def test_the_generator_of_a_gpu_is_keyed_and_put_back():
    before = torch.cuda.get_rng_state()
    drawn = []
    for _ in range(2):
        with keyed_generators(Key(0)):
            drawn.append(float(torch.rand((), device="cuda")))
    assert drawn[0] == drawn[1]
    assert torch.equal(torch.cuda.get_rng_state(), before)


@pytest.mark.parametrize("dim", [1, 3, 100, 70_000])
def test_coarse_numbers_are_those_of_any_slice(dim: int) -> None:
    key, count = Key(0), 400 if dim < 1000 else 3
    whole = key.coarse(0, count, dim)
    assert (whole * 2**16 == np.floor(whole * 2**16)).all()
    assert 0 <= whole.min() <= whole.max() < 1
    for start, stop in ((0, 1), (1, 2), (count // 2, count), (count - 1, count)):
        assert (key.coarse(start, stop, dim) == whole[start:stop]).all()
    short = key.coarse(0, count, dim, like=np.zeros(1, np.float32))
    assert short.dtype == np.float32
    assert (short == whole).all()
    assert (key.coarse(0, count, dim, like=torch.zeros(1)).numpy() == whole).all()


def test_coarse_numbers_are_uniform() -> None:
    drawn = Key(1).coarse(0, 1000, 100).ravel()
    # Of 100,000 numbers, the mean is normal with a deviation of sqrt(1 / 12 / 100,000) around 1/2.
    assert abs(drawn.mean() - 0.5) < 4 * np.sqrt(1 / 12e5)
    counts = np.bincount((drawn * 16).astype(int), minlength=16)
    assert abs(counts - 6250).max() < 4.5 * np.sqrt(6250 * 15 / 16)


def quick(key: Key, size: int, start: int = 0, stop: int | None = None, **moments: float) -> np.ndarray:
    """Return numbers of a stretch, in memory that begins anywhere."""
    stop = size if stop is None else stop
    out = torch.full((stop - start + 3,), np.nan)
    key.fill_quick(out[1 : 1 + stop - start], start, size=size, **moments)
    assert out[[0, -2, -1]].isnan().all()  # what is beside it is left alone
    return out[1 : 1 + stop - start].numpy()


@pytest.mark.parametrize("size", [1, 63, 64, 128, 129, 1000, 8191, 50_000, 65_535, 65_536])
def test_quick_numbers_are_those_of_any_part(size: int) -> None:
    whole = torch.empty(whole_stretch(size))
    Key(3).fill_quick(whole, size=size)
    assert whole.isfinite().all()
    assert (whole[:size].numpy() == quick(Key(3), size)).all()
    assert (whole.numpy() == quick(Key(3), whole_stretch(size))).all()
    middle = whole_stretch(size) // 2
    cuts = [
        (0, 0),
        (0, 1),
        (middle - 1, middle + 1),
        (middle, size),
        (size // 3, size // 2),
        (size - 1, size),
    ]
    cuts += Key(size).integers(0, 20, 2, high=size + 1).tolist()
    for one, other in cuts:
        start, stop = sorted((max(0, min(one, size)), max(0, min(other, size))))
        assert (quick(Key(3), size, start, stop) == whole[start:stop].numpy()).all()


def test_quick_numbers_do_not_depend_on_threads() -> None:
    """Neither on how many torch cuts an array for, odd numbers among them, nor on other threads of ours."""
    expected = [quick(Key(4).fold(size), size) for size in (65_536, 50_001, 3000)]
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 3, 5, 7):
            torch.set_num_threads(threads)
            for size, numbers in zip((65_536, 50_001, 3000), expected, strict=True):
                assert (quick(Key(4).fold(size), size) == numbers).all()
                assert (quick(Key(4).fold(size), size, 777, 2777) == numbers[777:2777]).all()
    finally:
        torch.set_num_threads(before)
    drawn: list[Any] = []
    threads_ = [
        threading.Thread(target=lambda: drawn.extend(quick(Key(4).fold(3000), 3000) for _ in range(50)))
        for _ in range(4)
    ]
    for thread in threads_:
        thread.start()
    for thread in threads_:
        thread.join()
    assert len(drawn) == 200
    assert all((numbers == expected[2]).all() for numbers in drawn)


def test_quick_numbers_are_those_of_their_formula() -> None:
    key, size = Key(5), 1100
    bits = np.random.SFC64()
    words = np.array([*np.frombuffer(key.digest, "<u8"), 0, 1], np.uint64)
    bits.state = {"bit_generator": "SFC64", "state": {"state": words}, "has_uint32": 0, "uinteger": 0}
    pairs = 576
    raw = bits.random_raw(12 + 6 * pairs // 8)[12:].astype("<u8").tobytes()
    u = (np.frombuffer(raw, "<u4", pairs) + 0.5) / 2**32
    angle = 2 * np.pi * (np.frombuffer(raw, "<i2", pairs, 4 * pairs) + u) / 2**16
    radius = np.sqrt(-2 * np.log(u))
    both = np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])[:size]
    # Angles up to pi, in single precision. The square of a radius is twice the difference of two logarithms,
    # of -9.25 and, at radii below 3.7, down to -16; with two units of the last digit added it is within 8e-6.
    allowed = 1e-6 * (1 + np.tile(radius, 2)[:size]) + 8e-6 / np.tile(2 * radius, 2)[:size]
    assert (abs(quick(key, size) - both) < allowed).all()
    assert (abs(quick(key, size, mean=0.75, std=0.5) - (0.75 + 0.5 * both)) < allowed).all()
    assert (quick(key, size, mean=0.75, std=0.0) == 0.75).all()


@pytest.mark.parametrize("word", [0, 1, 2**31, 2**32 - 1, 2**32 - 128, 2**32 - 129])
def test_quick_numbers_are_finite_at_the_ends(word: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The least of the 2^32 numbers has no infinite logarithm, and the largest none above that of 1."""
    pairs = 32_768
    words = np.full(pairs, word, "<u4") if word < 2**31 else (word - np.arange(pairs)).astype("<u4")
    raw = np.concatenate([words.view(np.uint8), np.arange(2 * pairs).astype("<u1")])
    quick(Key(0), 1)
    monkeypatch.setattr(_quick(), "draw", lambda key, pairs: raw)
    numbers = quick(Key(0), 2 * pairs)
    assert np.isfinite(numbers).all()
    u = (words.astype(float) + 0.5) / 2**32
    squares = (numbers.reshape(2, -1).astype(float) ** 2).sum(0)
    # A unit of the last digit of a logarithm above 8 is 10^-6; two of them are added, and doubled.
    np.testing.assert_allclose(squares, -2 * np.log(u), rtol=1e-6, atol=8e-6)
    assert abs(numbers).max() < 6.8


def test_quick_numbers_beyond_a_stretch_are_refused() -> None:
    with pytest.raises(ValueError, match="at most 65536 numbers; got numbers 0 to 65537 of 65537"):
        Key(0).fill_quick(torch.empty(QUICK + 1), size=QUICK + 1)
    with pytest.raises(ValueError, match="got numbers 100 to 200 of 101"):
        Key(0).fill_quick(torch.empty(100), 100, size=101)
    with pytest.raises(ValueError, match="got numbers -1 to 99 of 100"):
        Key(0).fill_quick(torch.empty(100), -1, size=100)


def test_quick_numbers_are_normal() -> None:
    """Moments, tails and distribution of two million, each within five standard errors."""
    key, size = Key(6), 50_000
    z = np.stack([quick(key.fold(i), size) for i in range(40)]).astype(np.float64)
    n = z.size
    # Means and variances of the powers of a normal number.
    for power, mean, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96), (5, 0, 945), (6, 15, 10_170)):
        assert abs((z**power).mean() - mean) < 5 * (variance / n) ** 0.5
    for level, share in ((3.0, 2.699796e-3), (4.0, 6.334248e-5), (4.5, 6.795346e-6)):
        assert abs((abs(z) > level).sum() - n * share) < 5 * (n * share) ** 0.5
    ordered = torch.from_numpy(np.sort(z.ravel()))
    expected = torch.special.ndtr(ordered).numpy()
    # Kolmogorov's distance, which is beyond 2 / sqrt(n) with probability .0007.
    assert abs(expected - (np.arange(n) + 0.5) / n).max() < 2 / n**0.5
    half = whole_stretch(size) // 2
    for one, other in (
        (z[:, :24_000], z[:, half : half + 24_000]),  # a pair
        (z[:, :-1], z[:, 1:]),
        (z[:, :-8], z[:, 8:]),
        (z[1:], z[:-1]),  # keys
        (z[:20], z[20:, ::-1]),
    ):
        for a, b in ((one, other), (one**2 - 1, other**2 - 1), (one, other**2 - 1), (one**2 - 1, other)):
            product = a * b
            assert abs(product.mean()) < 5 * product.std() / product.size**0.5
    assert abs(z).max() < 6.8
