"""The tables of an experiment file and their keys: what each may be, and what it means.

The tables in `docs/experiment_files.md` are made of what is said here.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, GetCoreSchemaHandler, ValidationError
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from zoo.core.validation import MOST_VARIABLES
from zoo.loggers import NAMES
from zoo.run.kinds import names

TIMES = re.compile(r"([-+]?(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?)x(\d+)", re.IGNORECASE)
"""As in 0x10, ten zeros."""


class Must:
    """What a value must be, in the words of errors and of the documentation.

    Args:
        words: Completing "must be ...".
        check: Returns the value as it is kept, or raises `Wrong`; by default the type is all.
        choices: All that it can be, where these are few.
    """

    def __init__(
        self, words: str, check: Callable[[Any], Any] | None = None, choices: tuple[str, ...] = ()
    ) -> None:
        self.words, self.check, self.choices = words, check, choices

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_wrap_validator_function(self._checked, handler(source))

    def _checked(self, value: Any, handler: Callable[[Any], Any]) -> Any:
        try:
            if self.choices and value not in self.choices:
                raise Wrong
            return handler(value) if self.check is None else self.check(value)
        except ValidationError as error:
            if any(one["loc"] for one in error.errors()):
                raise  # which says it of what is inside
            raise self._error(self.words) from None
        except Wrong as error:
            raise self._error(error.words or self.words, *error.at) from None

    def _error(self, words: str, *at: int) -> PydanticCustomError:
        return PydanticCustomError(
            "must", "must be {words}", {"words": words, "at": at, "choices": self.choices}
        )


class Wrong(Exception):
    """A value is not what it must be, because of an element at some place inside.

    Attributes:
        at: Indices down to that element.
        words: What it must be, or "" for the value itself.
    """

    def __init__(self, *at: int, words: str = "") -> None:
        super().__init__(*at)
        self.at, self.words = at, words


def _text(value: Any) -> str:
    # Nothing of the system takes a NUL; bytes of a name that are no UTF-8, which pydantic refuses, it does.
    if not isinstance(value, str) or not value:
        raise Wrong
    if "\0" in value:
        raise Wrong(words="text without NUL")
    return value


def _number(value: Any, *at: int) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise Wrong(*at, words="a number" if at else "")
    try:
        return float(value)
    except OverflowError:  # an integer of more than 308 digits
        raise Wrong(*at, words="a number" if at else "") from None


def _list(value: Any, *at: int) -> list[Any]:
    if not isinstance(value, list) or not value:
        raise Wrong(*at, words="a list of numbers" if at else "")
    return value


def _start(value: Any) -> Any:
    if not isinstance(value, str):
        return value if isinstance(value, dict) else _row(value)
    found = TIMES.fullmatch(value)
    if found is None or not (dim := found[2].lstrip("0")):
        raise Wrong
    if len(dim) > len(str(MOST_VARIABLES)) or int(dim) > MOST_VARIABLES:
        raise Wrong(words=f"VALUExDIM with DIM up to {MOST_VARIABLES}")
    return f"{found[1]}x{dim}"


def _row(value: Any, *at: int) -> list[float]:
    return [_number(item, *at, i) for i, item in enumerate(_list(value, *at))]


def _pairs(value: Any) -> Any:
    pairs = _list(value)
    if not isinstance(pairs[0], list):
        return _pair(pairs)
    return [_pair(pair, i) for i, pair in enumerate(pairs)]


def _pair(value: Any, *at: int) -> list[float]:
    if not isinstance(value, list) or len(value) != 2:
        raise Wrong(*at, words="a pair [lower, upper]" if at else "")
    return _row(value, *at)


def _scale(value: Any) -> Any:
    return _row(value) if isinstance(value, list) else _number(value)


def _points(value: Any) -> Any:
    points = _list(value)
    return [point if isinstance(point, dict) else _row(point, i) for i, point in enumerate(points)]


def _workers(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or (value < 1 and value != -1):
        raise Wrong
    return value


def spread(x0: Any) -> Any:
    """Return a start with "0x3" written out: [0.0, 0.0, 0.0]."""
    if not isinstance(x0, str):
        return x0
    found = TIMES.fullmatch(x0)
    assert found is not None
    return [float(found[1])] * int(found[2])


class Table(BaseModel):
    """What all tables have in common: none takes a key that it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


Flag = Annotated[bool, Must("true or false")]
Count = Annotated[int, Field(ge=1), Must("a whole number of at least 1")]
Whole = Annotated[int, Field(ge=0), Must("a whole number of at least 0")]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False), Must("a number of seconds above 0")]
Text = Annotated[str, Must("text in quotes", _text)]
Finite = Annotated[float, Field(allow_inf_nan=False), Must("a finite number")]
Function = Annotated[
    str, Field(pattern=r"^[\w.]+:[\w.]+(\(\))?$"), Must('of the form "module:name" or "module:name()"')
]
Texts = Annotated[list[Text], Field(min_length=1), Must("a list of texts")]


def choice(*names: str) -> Any:
    """Return what a value must be that is one of few."""
    listed = ", ".join(f'"{name}"' for name in names)
    return Must(f"one of {listed}" if len(names) > 1 else listed, choices=names)


class AnyJob(Table):
    """What tables [job] of all kinds of runs have in common."""

    kind: str = Field(description="What is done.")
    seed: Whole | None = Field(
        default=None,
        description="Where all randomness comes from: the same seed gives the same bytes.",
        json_schema_extra={"absent": "a fresh one"},
    )
    out: Text | None = Field(
        default=None,
        description="Directory of the run, relative to the current one. One that holds this very run is "
        "resumed, any other is refused.",
        json_schema_extra={"absent": "`runs/` and the file's name"},
    )
    log: list[Annotated[str, choice(*NAMES)]] = Field(
        default=[], description="Where values go besides the directory of the run."
    )


class Job(AnyJob):
    """What kind of run it is, and where it is kept."""

    kind: Annotated[
        str,
        Must('"minimize", or a kind of another package such as "evolution"', choices=("minimize", *names())),
    ] = Field(
        default="minimize",
        description="What is done. Those of other packages have tables of their own.",
    )
    noise: Flag = Field(default=False, description="Whether the function is random.")


class Float(Table):
    """A real number, as `zoo.Float`."""

    type: Literal["float"] = Field(description="A real number.")
    lower: Finite = Field(description="Smallest value.")
    upper: Finite = Field(description="Largest value.")
    log: Flag = Field(default=False, description="Whether ratios count and not differences.")


class Integer(Table):
    """An integer, as `zoo.Integer`."""

    type: Literal["integer"] = Field(description="An integer.")
    lower: Annotated[int, Must("a whole number")] = Field(description="Smallest value.")
    upper: Annotated[int, Must("a whole number")] = Field(description="Largest value, included.")
    log: Flag = Field(default=False, description="Whether ratios count and not differences.")


class Categorical(Table):
    """One of several values, as `zoo.Categorical`."""

    type: Literal["categorical"] = Field(description="One of several values.")
    choices: Annotated[list[Any], Field(min_length=1), Must("a list of values")] = Field(
        description="The values: texts, numbers, true, false, or lists of these."
    )
    ordered: Flag = Field(default=False, description="Whether neighbours are alike, as for batch sizes.")


Variable = Annotated[Float | Integer | Categorical, Field(discriminator="type")]


class Known(Table):
    """What was evaluated before."""

    points: Annotated[list[Any], Must("a list of points", _points)] = Field(
        description="Points of one number for each variable, or tables where there is a `space`."
    )
    values: Annotated[list[float], Must("a list of numbers", _row)] | None = Field(
        default=None,
        description="A value for each point; nan and inf are failed evaluations.",
        json_schema_extra={"absent": "the points are evaluated first"},
    )


class Objective(Table):
    """What is minimised, and where."""

    function: Function | None = Field(
        default=None,
        description='The function, or with "()" a factory that is called where it is evaluated.',
        json_schema_extra={"absent": "`command` is to be given"},
    )
    command: Texts | None = Field(
        default=None,
        description="A program and its arguments, which is given a line for each point.",
        json_schema_extra={"absent": "`function` is to be given"},
    )
    path: Texts | None = Field(
        default=None,
        description="Folders in which modules are looked for first, relative to the file.",
        json_schema_extra={"absent": "those of the file and of what it includes"},
    )
    vectorized: Flag = Field(default=False, description="Whether the function takes many points at once.")
    x0: (
        Annotated[Any, Must('a list of numbers, VALUExDIM in quotes as in "0x10", or a point', _start)] | None
    ) = Field(
        default=None,
        description="The start. It is a table where there is a `space`.",
        json_schema_extra={"absent": "the middle of `bounds` or `space`"},
    )
    bounds: Annotated[Any, Must("[lower, upper] or a list of such pairs", _pairs)] | None = Field(
        default=None,
        description="One pair for all variables, or one for each; inf and -inf are no limit.",
        json_schema_extra={"absent": "none"},
    )
    scale: Annotated[Any, Must("a number or a list of numbers", _scale)] | None = Field(
        default=None,
        description="How far from `x0` the optimum may be.",
        json_schema_extra={"absent": ".3 of the width of `bounds`, else 1"},
    )
    constraints: list[
        Annotated[
            str,
            Field(pattern=r"^([\w.]+:[\w.]+|returned)$"),
            Must('of the form "module:name", or "returned"'),
        ]
    ] = Field(
        default=[],
        description='Functions that are to be at least 0; "returned" if `function` returns them itself.',
    )
    known: Known | None = Field(
        default=None, description="What was evaluated before.", json_schema_extra={"absent": "nothing"}
    )
    space: dict[str, Variable] | None = Field(
        default=None,
        description="Variables by name, instead of `bounds` and `scale`: a table "
        "`[objective.space.NAME]` for each.",
        json_schema_extra={"absent": "none"},
    )


class Method(Table):
    """How it is minimised."""

    name: Text = Field(default="auto", description="One of the methods that `zoo list methods` lists.")
    options: dict[str, Any] = Field(
        default={}, description="Options of that method: `zoo list NAME` lists them."
    )


class Workers(Table):
    """Who evaluates."""

    workers: Annotated[int, Must("a whole number of at least 1, or -1 for one a core", _workers)] = Field(
        default=1, description="How many workers evaluate; -1 is one a core."
    )
    backend: Annotated[str, choice("serial", "processes", "ray")] | None = Field(
        default=None,
        description="Where workers are: in this process, in processes beside it, or on Ray.",
        json_schema_extra={"absent": '"serial" for one worker without settings, else "processes"'},
    )
    address: Text | None = Field(
        default=None,
        description='Ray cluster to join: "host:port" or "auto".',
        json_schema_extra={"absent": "a Ray on this machine"},
    )
    gpus_per_worker: Annotated[float, Field(ge=0, allow_inf_nan=False), Must("a number of at least 0")] = (
        Field(default=0.0, description="GPUs of each worker: 0, a fraction below 1, or a whole number.")
    )
    timeout: Seconds | None = Field(
        default=None,
        description="After this time an evaluation has failed, and its worker is ended.",
        json_schema_extra={"absent": "any time"},
    )
    max_attempts: Count = Field(
        default=3, description="Deaths of a worker under one evaluation alone, after which it has failed."
    )
    threads: Count = Field(default=1, description="Threads of numerical libraries in each worker.")


class Execution(Workers):
    """Who evaluates: neither where that is nor by how many workers changes a result."""

    replicated: Flag = Field(
        default=False,
        description="Whether workers run the method themselves, for candidates that are large.",
    )
    sharded: Flag = Field(
        default=False,
        description='Whether workers keep the candidates, of methods that can be put in shards ("cbo").',
    )
    on_error: Annotated[str, choice("raise", "nan")] = Field(
        default="raise",
        description='What an exception does after one retry: end the run, or be a failed evaluation ("nan").',
    )


class Stop(Table):
    """When it ends."""

    budget: Count | None = Field(
        default=None,
        description="Evaluations at most.",
        json_schema_extra={"absent": "1000 times the number of variables; none where there are `seconds`"},
    )
    target: Finite | None = Field(
        default=None,
        description="It ends as soon as a value is this or less.",
        json_schema_extra={"absent": "none"},
    )
    seconds: Seconds | None = Field(
        default=None,
        description="It ends after the first step that is done later than this.",
        json_schema_extra={"absent": "none"},
    )


class Tables(Table):
    """A whole experiment file."""

    job: Job = Job()
    objective: Objective = Objective()
    method: Method = Method()
    execution: Execution = Execution()
    stop: Stop = Stop()
