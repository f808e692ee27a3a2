"""Routines turned inside out: turns, ends, errors, threads, and filters of warnings."""

import queue
import threading
import warnings

import numpy as np
import pytest

from zoo.core.types import Rows
from zoo.methods import inversion
from zoo.methods.inversion import Left, Routine, at_work


@pytest.fixture(autouse=True)
def _no_thread_stays():
    inversion.clear_cache()
    before = threading.active_count()
    yield
    inversion.clear_cache()
    assert threading.active_count() == before


def doubling(evaluate):
    """Ask for 1, 2, 4, ... rows of the sum told so far, until that is above 100."""
    total, count = 0.0, 1
    while total <= 100:
        total += evaluate(Rows(np.full((count, 2), total))).sum()
        count *= 2
    return f"the sum is {total:g}"


def rows_of(routine):
    return routine.candidates.rows(0, len(routine.candidates)).tolist()


def test_takes_turns_until_the_end():
    with at_work():
        routine = Routine(doubling, np.empty(0))
        assert rows_of(routine) == [[0.0, 0.0]]
        routine.tell(np.array([3.0]))
        assert rows_of(routine) == [[3.0, 3.0]] * 2
        assert routine.reason is None
        routine.tell(np.array([50.0, 51.0]))
    assert routine.candidates is None
    assert routine.reason == "the sum is 104"


def test_begins_where_the_values_told_end():
    with at_work():
        routine = Routine(doubling, np.array([3.0, 4.0, 5.0]))
        assert rows_of(routine) == [[12.0, 12.0]] * 4
        routine.close()


def test_values_are_the_routines_own():
    told = np.array([3.0])

    def spoils(evaluate):
        evaluate(Rows(np.zeros((1, 1))))[:] = 7
        evaluate(Rows(np.zeros((1, 1))))
        return "done"

    with at_work():
        for routine in (Routine(spoils, told), Routine(spoils, np.empty(0))):
            if len(told):
                routine.tell(told)
            assert told.tolist() == [3.0]
            routine.close()


def test_can_be_left_from_inside():
    def leaves(evaluate):
        try:
            evaluate(Rows(np.zeros((1, 1))))
            raise Left("enough")
        except Exception:
            return "nobody catches it"

    with at_work():
        routine = Routine(leaves, np.empty(0))
        routine.tell(np.zeros(1))
    assert routine.reason == "enough"


def test_errors_come_out_where_it_is_driven():
    def fails(evaluate):
        if evaluate(Rows(np.zeros((1, 1)))) > 0:
            raise TypeError("no such thing")
        raise np.linalg.LinAlgError("singular")

    with at_work():
        routine = Routine(fails, np.empty(0))
        with pytest.raises(TypeError, match="no such thing"):
            routine.tell(np.ones(1))
        # What odd values lead to is an end like others.
        routine = Routine(fails, np.empty(0))
        routine.tell(np.zeros(1))
        assert routine.candidates is None
        assert routine.reason == "the routine gave up: singular"


def test_errors_before_anything_was_asked_are_no_end():
    def fails(evaluate):
        raise ValueError("bad option")

    with at_work():
        with pytest.raises(ValueError, match="bad option"):
            Routine(fails, np.empty(0))
        with pytest.raises(RuntimeError, match="before it had to be told anything: at once"):
            Routine(lambda evaluate: "at once", np.empty(0))


def test_a_signal_while_it_is_at_work_ends_it(monkeypatch):
    with at_work():
        routine = Routine(doubling, np.empty(0))
        got = routine._asked

        class Interrupted(queue.SimpleQueue):
            def get(self):
                raise KeyboardInterrupt

        broken = Interrupted()
        routine._asked = broken
        with pytest.raises(KeyboardInterrupt):
            routine.tell(np.zeros(1))
    assert not routine._thread.is_alive()
    del got


def test_few_are_kept_and_all_can_be_ended():
    before = threading.active_count()
    with at_work():
        for number in range(40):
            inversion.keep(str(number), Routine(doubling, np.empty(0)))
        assert threading.active_count() - before == 16
        assert inversion.take("0") is None
        routine = inversion.take("39")
        inversion.keep("again", routine)
        inversion.keep("again", Routine(doubling, np.empty(0)))
        assert threading.active_count() - before == 16
        ended = Routine(doubling, np.array([101.0, 0, 0])[:0])
        ended.tell(np.array([101.0]))
        inversion.keep("ended", ended)
        assert inversion.take("ended") is None
    inversion.clear_cache()
    assert threading.active_count() == before


def test_filters_of_warnings_are_put_back():
    def careless(evaluate):
        for _ in range(3):
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                warnings.showwarning = print
                evaluate(Rows(np.zeros((1, 1))))
            warnings.warn("nobody is to see this", UserWarning, stacklevel=1)
        return "done"

    names = ("filters", "showwarning", "_showwarnmsg_impl")
    before = [getattr(warnings, name) for name in names]
    with at_work():
        routine = Routine(careless, np.empty(0))
    while routine.candidates is not None:
        assert [getattr(warnings, name) for name in names] == before
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            kept = list(warnings.filters)
            with at_work():
                routine.tell(np.zeros(1))
            assert warnings.filters == kept
    assert [getattr(warnings, name) for name in names] == before


def test_numpy_is_quiet_inside_and_as_it_was_outside():
    def divides(evaluate):
        evaluate(Rows(np.zeros((1, 1))))
        return str(np.ones(1) / np.zeros(1))

    with np.errstate(all="raise"), at_work():
        routine = Routine(divides, np.empty(0))
        routine.tell(np.zeros(1))
        assert routine.reason == "[inf]"
        with pytest.raises(FloatingPointError):
            np.ones(1) / np.zeros(1)
