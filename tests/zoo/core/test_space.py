"""Spaces: what users write, and the rows that stand for their points."""

from __future__ import annotations

import json
import math
import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import zoo
from zoo.core.rng import Key
from zoo.core.space import Categorical, Float, Integer, Space

calm = settings(deadline=None, derandomize=True, database=None, max_examples=60)

SPACE = Space(
    {
        "lr": Float(1e-5, 1.0, log=True),
        "layers": Integer(1, 8),
        "width": Integer(16, 4096, log=True),
        "act": Categorical(["relu", "tanh", "gelu"]),
        "dropout": Float(0, 0.5),
        "bias": Categorical([True, False]),
        "batch": Categorical([16, 32, 64, 128], ordered=True),
        "seed": Integer(3, 3),
    }
)
POINT = {
    "lr": 0.003,
    "layers": 2,
    "width": 100,
    "act": "gelu",
    "dropout": 0.1,
    "bias": False,
    "batch": 64,
    "seed": 3,
}


def finite(**more: Any) -> st.SearchStrategy[float]:
    return st.floats(allow_nan=False, allow_infinity=False, **more)


floats = st.one_of(
    st.tuples(finite(min_value=-1e9, max_value=1e9), finite(min_value=1e-6, max_value=1e9)).map(
        lambda ends: Float(ends[0], ends[0] + ends[1])
    ),
    st.tuples(finite(min_value=1e-200, max_value=1e6), finite(min_value=1.001, max_value=1e200)).map(
        lambda ends: Float(ends[0], ends[0] * ends[1], log=True)
    ),
)
integers = st.one_of(
    st.tuples(st.integers(-(2**60), 2**60), st.integers(0, 2**40 - 1)).map(
        lambda ends: Integer(ends[0], ends[0] + ends[1])
    ),
    st.tuples(st.integers(1, 10**6), st.integers(0, 10**6)).map(
        lambda ends: Integer(ends[0], ends[0] + ends[1], log=True)
    ),
)
scalars = st.one_of(st.none(), st.booleans(), st.text(max_size=3), st.integers(), finite())
categories = st.builds(
    Categorical,
    st.lists(
        st.one_of(scalars, st.lists(scalars, max_size=2).map(tuple)), min_size=1, max_size=5, unique=True
    ),
    ordered=st.booleans(),
)
variables = st.lists(st.one_of(floats, integers, categories), min_size=1, max_size=5)
spaces = st.one_of(variables, variables.map(lambda v: {f"v{i}": x for i, x in enumerate(v)})).filter(
    lambda v: any(x.dim for x in (v.values() if isinstance(v, dict) else v))
)


def same(one: Any, other: Any) -> bool:
    """Whether two points are equal, types and all."""
    values = (tuple(point.values()) if isinstance(point, dict) else point for point in (one, other))
    return one == other and all(type(a) is type(b) for a, b in zip(*values, strict=True))


@calm
@given(spaces, st.data())
def test_what_is_decoded_is_encoded_and_decoded_again(inside: Any, data: st.DataObject) -> None:
    space = Space(inside)
    row = np.array(data.draw(st.lists(st.floats(0, 1), min_size=space.dim, max_size=space.dim)))
    point = space.decode(row)
    there = space.encode(point)
    assert space.bounds.contains(there)
    assert same(space.decode(there), point)


@calm
@given(spaces)
def test_spaces_are_written_down_and_travel(inside: Any) -> None:
    space = Space(inside)
    written = Space.read(json.loads(json.dumps(space.describe())))
    assert written == space == pickle.loads(pickle.dumps(space))
    assert repr(written) == repr(space)
    assert hash(written) == hash(space)
    assert eval(repr(space), vars(zoo.core.space)) == space


@calm
@given(st.integers(1, 300), st.integers(0, 300), st.booleans())
def test_every_integer_is_itself(lower: int, more: int, log: bool) -> None:
    variable = Integer(lower, lower + more, log)
    if more:
        space = Space([variable])
        assert [space.decode(space.encode([k]))[0] for k in range(lower, lower + more + 1)] == list(
            range(lower, lower + more + 1)
        )


@pytest.mark.parametrize("value", [0.1, 0.3, 1e-12, 0.123456789012, 1 / 3])
def test_numbers_as_people_write_them_are_kept(value: float) -> None:
    space = Space([Float(0, 1), Float(1e-13, 1e7, log=True)])
    linear, logarithmic = space.decode(space.encode([value, value]))
    assert linear == round(value, 14)
    assert logarithmic == float(f"{value:.11e}")


def test_ends_are_reached() -> None:
    space = Space([Float(1 / 3, 2 / 3), Float(1 / 7, math.pi, log=True), Integer(-3, 4)])
    assert space.decode(np.zeros(3)) == (1 / 3, 1 / 7, -3)
    assert space.decode(np.ones(3)) == (2 / 3, math.pi, 4)
    assert space.encode((2 / 3, math.pi, 4))[:2].tolist() == [1, 1]


def test_types_are_those_of_python() -> None:
    point = SPACE.decode(SPACE.x0)
    assert [type(value) for value in point.values()] == [float, int, int, str, float, bool, int, int]
    assert list(point) == list(SPACE.names or ())
    encoded = SPACE.encode({**POINT, "lr": np.float32(0.5), "layers": np.int8(2), "act": np.str_("relu")})
    assert same(SPACE.decode(encoded), {**POINT, "lr": 0.5, "act": "relu"})
    assert SPACE.encode({**POINT, "layers": 2.0}).tolist() == SPACE.encode(POINT).tolist()


def test_the_layout_of_a_row() -> None:
    assert SPACE.dim == 9
    assert len(SPACE) == 8
    grid = SPACE.grid
    assert grid is not None
    assert grid.counts.tolist() == [0, 8, 4081, 0, 0, 0, 0, 2, 4]
    assert grid.groups.tolist() == [-1, -1, -1, 3, 3, 3, -1, -1, -1]
    assert grid.ratios[2] == 4096.5 / 15.5
    assert Space([Float(0, 1)]).grid is None
    assert SPACE.scale.tolist() == [0.3] * 9


def test_the_start_is_the_middle_and_the_first_choice() -> None:
    start = SPACE.decode(SPACE.x0)
    assert start == {
        "lr": 0.00316227766017,
        "layers": 4,
        "width": 252,
        "act": "relu",
        "dropout": 0.25,
        "bias": True,
        "batch": 32,
        "seed": 3,
    }


def test_uniform_rows_are_uniform_points() -> None:
    rows = Key(0).uniform(0, 60_000, SPACE.dim)
    found = SPACE.columns(rows)
    for name, count in (("layers", 8), ("act", 3), ("bias", 2), ("batch", 4)):
        _, counts = np.unique(found[name].astype(str), return_counts=True)
        assert len(counts) == count
        # Five deviations of a binomial distribution.
        assert abs(counts - 60_000 / count).max() < 5 * math.sqrt(60_000 / count)
    for value in (np.log(found["lr"] / 1e-5) / np.log(1e5), found["dropout"] / 0.5):
        assert abs(np.sort(value) - np.arange(60_000) / 60_000).max() < 2 / math.sqrt(60_000)
    small = np.mean(found["width"] <= 255)  # half of the way from log 15.5 to log 4096.5
    assert abs(small - math.log(255.5 / 15.5) / math.log(4096.5 / 15.5)) < 5 / math.sqrt(60_000)


def test_points_and_columns_agree() -> None:
    rows = Key(1).uniform(0, 50, SPACE.dim)
    points, columns = SPACE.points(rows), SPACE.columns(rows)
    assert points == [SPACE.decode(row) for row in rows]
    assert points == [{name: columns[name].tolist()[i] for name in columns} for i in range(50)]
    assert [columns[name].dtype.kind for name in columns] == list("fiiOfOOi")
    plain = Space([Float(0, 1), Categorical(["a", "b"])])
    assert type(plain.columns(rows[:, :2])) is tuple
    assert plain.values(rows[:2, :2]) == plain.points(rows[:2, :2])


def test_the_largest_of_a_group_wins_and_the_first_of_equal_ones() -> None:
    space = Space([Categorical(["a", "b", "c", "d"])])
    assert space.decode([0.1, 0.9, 0.3, 0.9]) == ("b",)
    assert space.decode([0.5] * 4) == ("a",)
    assert space.encode(["c"]).tolist() == [0.25, 0.25, 0.75, 0.25]


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Float("a", 1), TypeError, "`lower` must be a number"),
        (lambda: Float(0, True), TypeError, "`upper` must be a number, got True"),
        (lambda: Float(0, math.inf), ValueError, "must be finite"),
        (lambda: Float(math.nan, 1), ValueError, "must be finite"),
        (lambda: Float(-1e308, 1e308), ValueError, "must be finite"),
        (lambda: Float(1, 0), ValueError, "`lower` must not be above `upper`, got 1.0 and 0.0"),
        (lambda: Float(0, 1, log=True), ValueError, "`lower` must be above 0 where `log` is True, got 0"),
        (lambda: Float(0, 1, log=1), TypeError, "`log` must be True or False"),
        (lambda: Integer(0.0, 1), TypeError, "`lower` must be an integer, got 0.0"),
        (lambda: Integer(False, 1), TypeError, "`lower` must be an integer, got False"),
        (lambda: Integer(3, 1), ValueError, "`lower` must not be above"),
        (lambda: Integer(0, 9, log=True), ValueError, "`lower` must be at least 1 where `log` is True"),
        (lambda: Integer(0, 2**40), ValueError, "at most 2.40 values"),
        (lambda: Categorical([]), ValueError, "`choices` must hold at least one value"),
        (lambda: Categorical("abc"), TypeError, "`choices` must be a list of values"),
        (lambda: Categorical({"a": 1}), TypeError, "`choices` must be a list of values"),
        (lambda: Categorical(["a", "b", "a"]), ValueError, "must differ from each other, got 'a' twice"),
        (lambda: Categorical([0, False]), ValueError, "must differ from each other, got False twice"),
        (lambda: Categorical([0.5, math.nan]), ValueError, "must be finite"),
        (lambda: Categorical([len]), TypeError, "give names here, and look them up"),
        (lambda: Categorical(["a"], ordered=1), TypeError, "`ordered` must be True or False"),
        (lambda: Space({}), ValueError, "must hold one at least that has more than one value"),
        (lambda: Space([Integer(2, 2)]), ValueError, "must hold one at least that has more than one value"),
        (lambda: Space({"a": (0, 1)}), TypeError, r"`variables\['a'\]` must be a zoo.Float"),
        (lambda: Space([Float(0, 1), 3]), TypeError, r"`variables\[1\]` must be a zoo.Float"),
        (lambda: Space({1: Float(0, 1)}), TypeError, "must have strings for names, got 1"),
        (lambda: Space(Float(0, 1)), TypeError, "must be a dictionary or a list of variables"),
    ],
)
def test_refuses_variables(make: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"lr": 2.0}, ValueError, "'lr' must be from 1e-05 to 1.0, got 2.0"),
        ({"lr": "a"}, TypeError, "'lr' must be a number, got 'a'"),
        ({"lr": True}, TypeError, "'lr' must be a number, got True"),
        ({"lr": math.nan}, ValueError, "'lr' must be from"),
        ({"layers": 2.5}, ValueError, "'layers' must be an integer from 1 to 8, got 2.5"),
        ({"layers": True}, TypeError, "'layers' must be an integer, got True"),
        ({"layers": 9}, ValueError, "'layers' must be an integer from 1 to 8, got 9"),
        (
            {"act": "rely"},
            ValueError,
            "'act' must be one of 'relu', 'tanh', 'gelu', got 'rely'. Did you mean 'relu'",
        ),
        ({"batch": [1]}, ValueError, "'batch' must be one of 16, 32, 64, 128"),
        ({"batch": len}, ValueError, "'batch' must be one of"),
        ({"seed": 4}, ValueError, "'seed' must be an integer from 3 to 3, got 4"),
        ({"layer": 2}, TypeError, "unknown variable 'layer'. Did you mean 'layers'"),
    ],
)
def test_refuses_points(change: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        SPACE.encode({**POINT, **change})


def test_refuses_points_of_another_shape() -> None:
    with pytest.raises(ValueError, match="must have a value for 'bias', 'batch', 'seed'"):
        SPACE.encode({name: POINT[name] for name in list(POINT)[:5]})
    with pytest.raises(TypeError, match="a point of this space is a dictionary of 'lr', "):
        SPACE.encode(list(POINT.values()))
    plain = Space([Float(0, 1), Integer(0, 1)])
    with pytest.raises(ValueError, match="has 2 values, got 3"):
        plain.encode([0.1, 1, 1])
    with pytest.raises(TypeError, match="is a list of values, got"):
        plain.encode({"a": 0.1})
    with pytest.raises(ValueError, match=r"\[1\] must be an integer from 0 to 1, got 7"):
        plain.encode([0.1, 7])
    with pytest.raises(ValueError, match="rows of this space have 2 coordinates"):
        plain.decode([0.1, 0.2, 0.3])


def test_a_space_differs_from_others() -> None:
    assert Space(dict(zip(SPACE.names or (), SPACE.variables, strict=True))) == SPACE
    for other in (
        Space(SPACE.variables),
        Space({**dict(zip(SPACE.names or (), SPACE.variables, strict=True)), "lr": Float(0.1, 1)}),
        Space([Categorical([1, 2, 3])]),
        Space([Categorical([1.0, 2.0, 3.0])]),
    ):
        assert other != SPACE
    assert Space([Categorical([1, 2, 3])]) != Space([Categorical([1, 2, 3], ordered=True)])
    assert Space([Categorical([0, 1])]) != Space([Categorical([False, True])])


def test_a_logarithmic_range_may_be_wider_than_any_number():
    wide = Float(1e-200, 1e200, log=True)
    assert wide.from_unit([0.0, 0.25, 0.5, 1.0]) == [1e-200, 1e-100, 1.0, 1e200]
    assert wide.to_unit(1e100) == pytest.approx(0.75)
