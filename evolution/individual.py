"""Individuals as files: the parameters of one, what its observations pass through, and where it came from."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from evolution.genome import Codec, Genome
from evolution.lineage import Lineage
from evolution.moments import Normalizer
from evolution.policies.policy import Policy
from zoo.core.validation import listed

Array = np.ndarray[Any, Any]

_FORMAT = 1
_NAME = "gradfree"  # of the one entry of metadata: several would be written in any order
_MEAN, _DEVIATION = "observation.mean", "observation.deviation"


@dataclass(frozen=True, eq=False)
class Individual:
    """One of a population, by itself.

    Attributes:
        tensors: Its parameters by name, float32, in the order in which they lie in a row: views of it.
        parameters: All of them, float32, shape (dim,).
        policy: What they are the parameters of, as `Policy.describe` says; empty where that was not said.
        environment: What it was bred in, as names and numbers; empty where that was not said.
        normalizer: What observations pass through, or None.
        score: Mean return, NaN where that was not said.
        codec: What its genome is decoded by, or None.
        genome: The chain of seeds that it comes from, or None; it needs a codec.
        family: Its ancestors and itself, or None.
    """

    tensors: Mapping[str, Array] = field(repr=False)
    parameters: Array = field(repr=False)
    policy: Mapping[str, Any]
    environment: Mapping[str, Any]
    normalizer: Normalizer | None = field(repr=False)
    score: float
    codec: Codec | None
    genome: Genome | None
    family: Lineage | None = field(repr=False)


def save_individual(
    path: str | Path,
    policy: Policy,
    parameters: Any = None,
    *,
    normalizer: Normalizer | None = None,
    environment: Mapping[str, Any] | None = None,
    score: float = math.nan,
    codec: Codec | None = None,
    genome: Genome | None = None,
    family: Lineage | None = None,
) -> Path:
    """Write an individual to a safetensors file.

    Its parameters are tensors by the names that `policy.pieces` gives them, beside "observation.mean" and
    "observation.deviation", so that other programs can read them; all else is a JSON object in the entry
    "gradfree" of the metadata. Without parameters, the file holds the genome alone: a few kB, whatever the
    size of the network. The same individual gives the same bytes.

    Of whom a run knows genomes is said by the lineage in its state: parents, the elite and the champion. The
    rest of a generation is gone with it.

    Args:
        path: Where to; the folder must be there. A file there is replaced.
        policy: What it is.
        parameters: In a row, shape (dim,), finite; None to write the genome alone. What a genome is decoded
            to is not compared with them.
        normalizer: What its observations pass through, or None.
        environment: What it was bred in, as names and numbers that JSON knows, or None.
        score: Its mean return.
        codec: What the genome is decoded by; needed with one.
        genome: The chain of seeds that it comes from, or None.
        family: Its ancestors and itself, such as `lineage.pruned([id])`, or None; it needs a genome.

    Raises:
        TypeError: `environment` holds what JSON does not know, or the score is infinite.
        ValueError: Parameters are not as many as the policy has, not finite, or missing where there is no
            genome; the genome is of another codec, has none, or is not in the family; the normalizer is of
            other observations; or a piece is named as the statistics are.
        OSError: It cannot be written; what was there is there still.

    Example:
        >>> import tempfile
        >>> from evolution.environments.spaces import Discrete, Spaces, Vector
        >>> from evolution.policies.mlp import MLP
        >>> policy = MLP(Spaces(Vector(4), Discrete(2)), hidden=(8,))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = save_individual(f"{folder}/one.safetensors", policy, np.ones(policy.dim), score=475.0)
        ...     found = load_individual(path, policy)
        >>> found.score, found.tensors["0.weight"].shape
        (475.0, (8, 4))
    """
    from safetensors.numpy import save

    from zoo.run.checkpoint import write_atomically

    if genome is not None and codec is None:
        raise ValueError("`codec` must be given with `genome`: without it, its seeds mean nothing.")
    if parameters is None and genome is None:
        raise ValueError("`parameters` must be given where there is no `genome`.")
    if codec is not None and codec.dim != policy.dim:
        raise ValueError(f"`codec` must be of the {policy.dim} parameters of `policy`, got {codec.dim}.")
    arrays: dict[str, Array] = {}
    if parameters is not None:
        row = np.ascontiguousarray(parameters, np.float32)
        if row.shape != (policy.dim,):
            raise ValueError(
                f"`parameters` must be the {policy.dim} of `policy`, got an array of shape {row.shape}."
            )
        if not np.isfinite(row).all():
            raise ValueError(
                f"`parameters` must be finite, got {int((~np.isfinite(row)).sum())} that are not."
            )
        arrays = {name: np.array(tensor) for name, tensor in policy.tensors(row).items()}
    reserved = {_MEAN, _DEVIATION} & {piece.name for piece in policy.pieces}
    if reserved:
        raise ValueError(f"no piece of `policy` may be named {listed(reserved)}: statistics are.")
    if family is not None:
        _check_family(family, genome)
    if normalizer is not None:
        _check_normalizer(normalizer, policy)
        arrays |= {_MEAN: np.array(normalizer.mean), _DEVIATION: np.array(normalizer.deviation)}
    about = {
        "format": _FORMAT,
        "policy": policy.describe(),
        "spaces": str(policy.spaces),
        "pieces": [[piece.name, list(piece.shape)] for piece in policy.pieces],
        "environment": dict(environment or {}),
        "score": None if math.isnan(score) else float(score),
        "codec": None if codec is None or genome is None else codec.description,
        "genome": None if genome is None or codec is None else genome.pack(codec).hex(),
        "family": None if family is None else _table(family),
    }
    for name in ("policy", "environment", "score"):
        _json(about[name], name)
    text = json.dumps({**about, "sha256": _checksum(about, arrays)}, sort_keys=True)
    write_atomically(Path(path), save(arrays, {_NAME: text}))
    return Path(path)


def load_individual(path: str | Path, policy: Policy | None = None, codec: Codec | None = None) -> Individual:
    """Read what `save_individual` wrote.

    Args:
        path: The file.
        policy: What it is to be; None to take it as it is.
        codec: What its genome is to be decoded by; None for the one that the file describes. It must be given
            where that has a base.

    Returns:
        The individual; without codec and genome, where none was given and parameters are in the file, but
        what the file describes cannot be had here.

    Raises:
        ValueError: The file is damaged, or no individual; it is of another policy or another codec, such as
            one with another noise table; or it holds no parameters, and its codec cannot be had here.
        OSError: It cannot be read.
    """
    path = Path(path)
    arrays, about = _read(path)
    pieces = [(name, tuple(shape)) for name, shape in about["pieces"]]
    if policy is not None:
        needed = [(piece.name, piece.shape) for piece in policy.pieces]
        if needed != pieces:
            here, there = next(pair for pair in _pairs(needed, pieces) if pair[0] != pair[1])
            raise ValueError(
                f"{path} is of another policy: it has {_named(there)} where {_named(here)} is needed. Give "
                f"the policy that it was made for: {about['policy']}."
            )
        ours = json.loads(_json(policy.describe(), "policy"))
        if ours != about["policy"]:
            raise ValueError(f"{path} is of the policy {about['policy']}, and not of {ours}: give that one.")
        if about["spaces"] != str(policy.spaces):
            raise ValueError(
                f"{path} is of a policy for {about['spaces']}, and not for {policy.spaces}: its actions "
                "would mean something else."
            )
    has_row = pieces[0][0] in arrays
    try:
        found = _codec(about["codec"], codec)
    except ValueError as error:
        if codec is not None or not has_row:
            raise ValueError(f"{path} cannot be decoded: {error}") from error
        found = None
    genome = None if found is None else Genome.unpack(bytes.fromhex(about["genome"]), found)
    if has_row:
        row = np.concatenate([arrays[name].ravel() for name, _ in pieces])
    else:
        assert found is not None
        assert genome is not None
        row = found.decode(genome)
    tensors, start = {}, 0
    for name, shape in pieces:
        tensors[name] = row[start : start + math.prod(shape)].reshape(shape)
        start += math.prod(shape)
    return Individual(
        tensors=tensors,
        parameters=row,
        policy=about["policy"],
        environment=about["environment"],
        normalizer=Normalizer(arrays[_MEAN], arrays[_DEVIATION]) if _MEAN in arrays else None,
        score=math.nan if about["score"] is None else about["score"],
        codec=found,
        genome=genome,
        family=None if about["family"] is None else _lineage(about["family"]),
    )


def _read(path: Path) -> tuple[dict[str, Array], dict[str, Any]]:
    """Return the tensors of a file and what it says about them, both as they were written."""
    from safetensors import SafetensorError, safe_open

    try:
        with path.open("rb"), safe_open(path, "numpy") as file:
            metadata = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged, or no safetensors file: {error}.") from error
    if _NAME not in metadata:
        raise ValueError(f"{path} is no individual of gradfree: its metadata have no entry {_NAME!r}.")
    try:
        about = json.loads(metadata[_NAME])
        said, form = about.pop("sha256"), about["format"]
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is damaged: its metadata cannot be read.") from error
    if form != _FORMAT:
        raise ValueError(f"{path} is of the format {form}, and this version of gradfree reads {_FORMAT}.")
    if said != _checksum(about, arrays):
        raise ValueError(f"{path} is damaged: it does not have its checksum.")
    return arrays, about


def _check_family(family: Lineage, genome: Genome | None) -> None:
    """Raise unless somebody of a family has a genome.

    Raises:
        ValueError: Nobody has, or there is none.
    """
    if genome is None:
        raise ValueError("`genome` must be given with `family`: without it, nobody knows who it is there.")
    alike = family.ids[family.seeds == genome.seeds[-1]]
    if not any(family.genome(individual) == genome for individual in alike.tolist()):
        raise ValueError("`family` must hold the individual of `genome`, as `lineage.pruned([id])` does.")


def _check_normalizer(normalizer: Normalizer, policy: Policy) -> None:
    """Raise unless it takes the observations of a policy.

    Raises:
        ValueError: It is of another size, or has numbers that it cannot have.
    """
    mean, deviation = np.asarray(normalizer.mean), np.asarray(normalizer.deviation)
    size = getattr(policy.spaces.observations, "size", None)
    if mean.shape != (size,) or deviation.shape != (size,):
        raise ValueError(
            f"`normalizer` must be of the observations of `policy`, {policy.spaces.observations}, got means "
            f"of shape {mean.shape} and deviations of shape {deviation.shape}."
        )
    if not (np.isfinite(mean).all() and np.isfinite(deviation).all() and (deviation > 0).all()):
        raise ValueError("`normalizer` must have finite means, and finite deviations above 0.")


def _codec(description: Mapping[str, Any] | None, codec: Codec | None) -> Codec | None:
    """Return what a genome is decoded by, None where there is none."""
    if description is None:
        return None
    if codec is None:
        return Codec.described(description)
    codec.check(description)
    return codec


def _json(value: Any, name: str) -> str:
    try:
        return json.dumps(value, sort_keys=True, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"`{name}` must hold names, finite numbers and lists of these alone: {error}."
        ) from error


def _checksum(about: Mapping[str, Any], arrays: Mapping[str, Array]) -> str:
    total = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        total.update(f"{name} {array.dtype.str} {array.shape}".encode())
        total.update(array.tobytes())
    return total.hexdigest()


def _table(family: Lineage) -> dict[str, Any]:
    columns = {name: getattr(family, name).tolist() for name in ("ids", "parents", "seeds", "sigmas")}
    return {**columns, "next_id": family.next_id}


def _lineage(table: Mapping[str, Any]) -> Lineage:
    return Lineage(
        np.array(table["ids"], np.int64),
        np.array(table["parents"], np.int64),
        np.array(table["seeds"], np.uint64),
        np.array(table["sigmas"], np.float32),
        int(table["next_id"]),
    )


def _pairs(one: list[Any], other: list[Any]) -> list[tuple[Any, Any]]:
    size = max(len(one), len(other))
    return list(zip(one + [None] * (size - len(one)), other + [None] * (size - len(other)), strict=True))


def _named(piece: tuple[str, tuple[int, ...]] | None) -> str:
    return "nothing" if piece is None else f"{piece[0]!r} of shape {piece[1]}"
