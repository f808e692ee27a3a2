"""Individuals as files: back as they were, small where a genome is all there is, and refused if damaged."""

import json
import math
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from safetensors.torch import load_file as load_tensors

from evolution import genome as genome_module
from evolution.environments.spaces import Continuous, Discrete, MultiBinary, Spaces, Vector
from evolution.genome import Codec, DrawnNoise, Genome
from evolution.individual import load_individual, save_individual
from evolution.lineage import Lineage
from evolution.moments import Normalizer
from evolution.policies.mlp import MLP
from evolution.policies.policy import Piece
from zoo.core.rng import Key, NoiseTable
from zoo.core.state import digest

POLICY = MLP(Spaces(Vector(4), Discrete(2)), hidden=(8,))
TABLE = NoiseTable(3, 100_000)
CODEC = Codec(TABLE, POLICY.pieces)
NORMALIZER = Normalizer(np.float32([0.5, -1, 0, 3]), np.float32([1, 2, 0.1, 7]))
ENVIRONMENT = {"name": "CartPole-v1", "options": {"gravity": 9.8}, "max_steps": None}
ROW = Key(1).normal(0, 1, POLICY.dim)[0].astype(np.float32)
GIVEN: dict[str, Any] = {
    "policy": POLICY,
    "parameters": ROW,
    "normalizer": NORMALIZER,
    "environment": ENVIRONMENT,
    "score": 487.5,
    "codec": CODEC,
    "genome": Genome([1, 2], [1.0, 0.5]),
}


def family(codec=CODEC):
    """Return a lineage and the id of someone in it with three ancestors, of other sigmas each."""
    lineage, ids = Lineage.empty().born([-1, -1], codec.draw(Key(2), 0, 2), [1, 1])
    for number in range(3):
        lineage, ids = lineage.born([ids[0]], codec.draw(Key(3).fold(number), 0, 1), [0.1 / (number + 1)])
    return lineage.pruned(ids), int(ids[0])


def saved(path, codec=CODEC, **changes):
    lineage, individual = family(codec)
    genome = lineage.genome(individual)
    known = {"parameters": codec.decode(genome), "codec": codec, "genome": genome, "family": lineage}
    return save_individual(path / "champion.safetensors", **{**GIVEN, **known, **changes})


def test_an_individual_comes_back_as_it_was(tmp_path):
    lineage, individual = family()
    path = saved(tmp_path)
    found = load_individual(path, POLICY, CODEC)
    assert found.parameters.dtype == np.float32
    np.testing.assert_array_equal(found.parameters, CODEC.decode(lineage.genome(individual)))
    assert list(found.tensors) == [piece.name for piece in POLICY.pieces]
    for name, tensor in POLICY.tensors(found.parameters).items():
        np.testing.assert_array_equal(found.tensors[name], tensor)
        assert np.shares_memory(found.tensors[name], found.parameters)
    assert digest(found.normalizer) == digest(NORMALIZER)
    seen = Key(5).normal(0, 4, 3).astype(np.float32)
    np.testing.assert_array_equal(found.normalizer(seen), NORMALIZER(seen))
    assert found.genome == lineage.genome(individual)
    assert found.codec == CODEC
    assert digest(found.family) == digest(lineage)
    assert (found.score, found.environment, found.policy) == (487.5, ENVIRONMENT, POLICY.describe())
    assert digest(load_individual(path).family) == digest(lineage)
    assert load_individual(path).genome == found.genome


def test_little_needs_to_be_known(tmp_path):
    path = save_individual(tmp_path / "row", POLICY, ROW)
    found = load_individual(path, POLICY, CODEC)
    np.testing.assert_array_equal(found.parameters, ROW)
    assert math.isnan(found.score)
    assert (found.normalizer, found.codec, found.genome, found.family) == (None, None, None, None)
    assert found.environment == {}


def test_other_programs_can_read_the_tensors(tmp_path):
    tensors = load_tensors(saved(tmp_path))
    with torch.device("meta"):
        module = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 2))
    mean, deviation = tensors.pop("observation.mean"), tensors.pop("observation.deviation")
    module.load_state_dict(tensors, assign=True)
    assert module(torch.zeros(1, 4)).shape == (1, 2)
    np.testing.assert_array_equal(mean.numpy(), NORMALIZER.mean)
    np.testing.assert_array_equal(deviation.numpy(), NORMALIZER.deviation)


def test_the_same_individual_gives_the_same_bytes(tmp_path):
    one = saved(tmp_path).read_bytes()
    assert saved(tmp_path).read_bytes() == one


@pytest.mark.parametrize("noise", [TABLE, DrawnNoise(4)], ids=["table", "drawn"])
def test_a_genome_alone_is_small_and_enough(tmp_path, noise):
    codec = Codec(noise, POLICY.pieces)
    lineage, individual = family(codec)
    path = saved(tmp_path, codec, parameters=None)
    assert "0.weight" not in load_file(path)
    found = load_individual(path, POLICY)
    np.testing.assert_array_equal(found.parameters, codec.decode(lineage.genome(individual)))
    assert digest(found.normalizer) == digest(NORMALIZER)
    assert found.codec == codec


def test_a_genome_of_millions_of_parameters_takes_a_few_kilobytes(tmp_path):
    class Large(MLP):
        pieces = (Piece("weight", (4_052_658,), 0.1),)

    large = object.__new__(Large)
    object.__setattr__(large, "spaces", POLICY.spaces)
    object.__setattr__(large, "hidden", ())
    object.__setattr__(large, "activation", "tanh")
    object.__setattr__(large, "pieces", Large.pieces)
    codec = Codec(NoiseTable(0, 2**28), large.pieces)
    genome = Genome(codec.draw(Key(0), 0, 251), np.full(251, 0.002))
    path = save_individual(tmp_path / "large", large, codec=codec, genome=genome)
    assert path.stat().st_size < 3000
    assert 4 * large.dim / path.stat().st_size > 5000


def test_a_genome_around_a_base_needs_it(tmp_path):
    codec = Codec(TABLE, POLICY.pieces, ROW)
    path = saved(tmp_path, codec, parameters=None)
    with pytest.raises(ValueError, match=r"cannot be decoded: it lies around .* give a codec with them"):
        load_individual(path)
    assert load_individual(path, codec=codec).genome == load_individual(path, POLICY, codec).genome
    row = load_individual(path, codec=codec).parameters
    whole = load_individual(saved(tmp_path, codec))  # with parameters, it is not needed
    assert (whole.codec, whole.genome) == (None, None)
    np.testing.assert_array_equal(whole.parameters, row)


OTHERS = {
    "table": (Codec(NoiseTable(4, 100_000), POLICY.pieces), r'its noise is \["table", 3, .* \["table", 4'),
    "size": (Codec(NoiseTable(3, 100_001), POLICY.pieces), r"100000\] there, and .*100001\] here"),
    "drawn": (Codec(DrawnNoise(3), POLICY.pieces), r'"table", 3, 100000\] there, and \["drawn", 3\] here'),
    "base": (Codec(TABLE, POLICY.pieces, ROW), "the sha256 of the base is null there"),
    "network": (Codec(TABLE, (Piece("w", (POLICY.dim,), 1.0),)), "the network is .* there"),
}


@pytest.mark.parametrize(("codec", "message"), OTHERS.values(), ids=OTHERS)
@pytest.mark.parametrize("alone", [False, True], ids=["parameters", "alone"])
def test_another_codec_is_refused(tmp_path, codec, message, alone):
    path = saved(tmp_path, **({"parameters": None} if alone else {}))
    with pytest.raises(
        ValueError, match=rf"champion.safetensors cannot be decoded: .*another codec: .*{message}"
    ):
        load_individual(path, codec=codec)


def test_other_numbers_than_were_drawn_are_refused(tmp_path, monkeypatch):
    path = saved(tmp_path, parameters=None).rename(tmp_path / "genome")
    whole = saved(tmp_path)
    monkeypatch.setattr(genome_module, "_numbers_of", lambda noise, dim: "0" * 64)
    with pytest.raises(ValueError, match="the first numbers of noise, which may depend on numpy"):
        load_individual(path)
    found = load_individual(whole)  # its parameters are there, whatever would be drawn
    assert (found.codec, found.genome) == (None, None)
    assert found.parameters.shape == (POLICY.dim,)


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        (MLP(POLICY.spaces, hidden=(9,)), r"it has '0.weight' of shape \(8, 4\) where .* \(9, 4\) is needed"),
        (MLP(POLICY.spaces, hidden=(8, 8)), r"'2.weight' of shape \(2, 8\) where .* \(8, 8\)"),
        (MLP(POLICY.spaces, hidden=()), r"'0.weight' of shape \(8, 4\)"),
        (MLP(POLICY.spaces, hidden=(8,), activation="relu"), "'tanh'.*, and not of .*'relu'"),
        (
            MLP(Spaces(Vector(4), MultiBinary(2)), hidden=(8,)),
            r"for Spaces\(.*Discrete\(count=2\)\), and not for .*MultiBinary\(size=2\).*mean something else",
        ),
        (
            MLP(Spaces(Vector(4), Continuous((-1.0, -1.0), (1.0, 1.0))), hidden=(8,)),
            r"and not for .*Continuous\(low=\(-1.0, -1.0\)",
        ),
    ],
    ids=["width", "depth", "linear", "activation", "switches", "numbers"],
)
def test_another_policy_is_refused(tmp_path, policy, message):
    with pytest.raises(ValueError, match=message):
        load_individual(saved(tmp_path), policy)


def test_damaged_files_are_refused(tmp_path):
    path = saved(tmp_path)
    data = path.read_bytes()
    head = int.from_bytes(data[:8], "little")
    places = [0, 7, 9, 20, *range(40, head, 97), head + 8, len(data) - 1]
    for place in places:
        changed = bytearray(data)
        changed[place] ^= 1
        path.write_bytes(changed)
        with pytest.raises(ValueError, match=r"champion.safetensors is "):
            load_individual(path)
    for size in (0, 7, 100, head, len(data) - 1):
        path.write_bytes(data[:size])
        with pytest.raises(ValueError, match=r"champion.safetensors is damaged"):
            load_individual(path)


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "other"
    save_file({"w": np.zeros(3)}, path)
    with pytest.raises(ValueError, match="no individual of gradfree: its metadata have no entry 'gradfree'"):
        load_individual(path)
    for text in ("{", "[]", "{}", "3"):
        save_file({"w": np.zeros(3)}, path, {"gradfree": text})
        with pytest.raises(ValueError, match="is damaged: its metadata cannot be read"):
            load_individual(path)
    save_file({"w": np.zeros(3)}, path, {"gradfree": json.dumps({"format": 2, "sha256": ""})})
    with pytest.raises(ValueError, match="of the format 2, and this version of gradfree reads 1"):
        load_individual(path)
    with pytest.raises(FileNotFoundError):
        load_individual(tmp_path / "nothing")


class Named(MLP):
    """A policy one of whose pieces is named as the statistics are."""

    def __post_init__(self):
        super().__post_init__()
        first, *rest = self.pieces
        object.__setattr__(self, "pieces", (Piece("observation.mean", first.shape, first.std), *rest))


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"parameters": ROW[:5]}, ValueError, r"`parameters` must be the 58 .* shape \(5,\)"),
        (
            {"parameters": None, "genome": None},
            ValueError,
            "`parameters` must be given where there is no `genome`",
        ),
        ({"codec": None}, ValueError, "`codec` must be given with `genome`"),
        (
            {"codec": Codec(TABLE, (Piece("w", (3,), 1.0),))},
            ValueError,
            "the 58 parameters of `policy`, got 3",
        ),
        ({"policy": Named(POLICY.spaces, hidden=(8,))}, ValueError, "may be named 'observation.mean'"),
        ({"environment": {"a": object()}}, TypeError, "`environment` must hold names, finite numbers"),
        ({"environment": {"a": math.inf}}, TypeError, "`environment` must hold names, finite numbers"),
        ({"score": math.inf}, TypeError, "`score` must hold names, finite numbers"),
        (
            {"parameters": np.where(np.arange(58) < 3, np.nan, ROW)},
            ValueError,
            "`parameters` must be finite, got 3 that are not",
        ),
        (
            {"normalizer": Normalizer(np.zeros(7, np.float32), np.ones(7, np.float32))},
            ValueError,
            r"`normalizer` must be of the observations of `policy`, Vector\(size=4\), got .* shape \(7,\)",
        ),
        (
            {"normalizer": Normalizer(np.zeros(4, np.float32), np.zeros(4, np.float32))},
            ValueError,
            "`normalizer` must have finite means, and finite deviations above 0",
        ),
        ({"family": Lineage.empty()}, ValueError, "`family` must hold the individual of `genome`"),
        ({"family": family()[0]}, ValueError, "`family` must hold the individual of `genome`"),
        (
            {"family": family()[0], "genome": None, "codec": None},
            ValueError,
            "`genome` must be given with `family`",
        ),
    ],
)
def test_what_cannot_be_written_is_refused(tmp_path, changes, error, message):
    with pytest.raises(error, match=message):
        save_individual(tmp_path / "champion", **{**GIVEN, **changes})
    assert not list(tmp_path.iterdir())
