"""Routines turned inside out: turns, ends, errors, threads, and filters of warnings."""

import os
import queue
import subprocess
import sys
import threading
import warnings

import numpy as np
import pytest

from zoo.core.rng import Key
from zoo.core.types import Rows
from zoo.methods import inversion, replayed
from zoo.methods.inversion import Left, Routine, at_work
from zoo.methods.scipy import NelderMead


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
    @at_work
    def turn():
        routine = Routine(doubling, np.empty(0))
        assert rows_of(routine) == [[0.0, 0.0]]
        routine.tell(np.array([3.0]))
        assert rows_of(routine) == [[3.0, 3.0]] * 2
        assert routine.reason is None
        routine.tell(np.array([50.0, 51.0]))
        assert routine.candidates is None
        assert routine.reason == "the sum is 104"


def test_begins_where_the_values_told_end():
    @at_work
    def turn():
        routine = Routine(doubling, np.array([3.0, 4.0, 5.0]))
        assert rows_of(routine) == [[12.0, 12.0]] * 4
        routine.close()


def test_values_are_the_routines_own():
    told = np.array([3.0])

    def spoils(evaluate):
        evaluate(Rows(np.zeros((1, 1))))[:] = 7
        evaluate(Rows(np.zeros((1, 1))))
        return "done"

    @at_work
    def turn():
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

    @at_work
    def turn():
        routine = Routine(leaves, np.empty(0))
        routine.tell(np.zeros(1))
        assert routine.reason == "enough"


def test_errors_come_out_where_it_is_driven():
    def fails(evaluate):
        if evaluate(Rows(np.zeros((1, 1)))) > 0:
            raise TypeError("no such thing")
        raise np.linalg.LinAlgError("singular")

    @at_work
    def turn():
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

    @at_work
    def turn():
        with pytest.raises(ValueError, match="bad option"):
            Routine(fails, np.empty(0))
        with pytest.raises(RuntimeError, match="before it had to be told anything: at once"):
            Routine(lambda evaluate: "at once", np.empty(0))


def test_a_signal_while_it_is_at_work_ends_it(monkeypatch):
    @at_work
    def turn():
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

    @at_work
    def turn():
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
    routine = at_work(lambda: Routine(careless, np.empty(0)))
    while routine.candidates is not None:
        assert [getattr(warnings, name) for name in names] == before
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            kept = list(warnings.filters)
            at_work(lambda: routine.tell(np.zeros(1)))
            assert warnings.filters == kept
    assert [getattr(warnings, name) for name in names] == before


def test_numpy_is_quiet_inside_and_as_it_was_outside():
    def divides(evaluate):
        evaluate(Rows(np.zeros((1, 1))))
        return str(np.ones(1) / np.zeros(1))

    def turn():
        routine = Routine(divides, np.empty(0))
        routine.tell(np.zeros(1))
        assert routine.reason == "[inf]"
        with pytest.raises(FloatingPointError):
            np.ones(1) / np.zeros(1)

    with np.errstate(all="raise"):
        at_work(turn)


def test_a_signal_anywhere_in_a_turn_leaves_nothing_behind(monkeypatch):
    """Ctrl-C raises where a function begins or one of C's has ended: here, in turn, at each such place."""
    made = []

    class Tracked(Routine):
        def __init__(self, *args):
            made.append(self)
            super().__init__(*args)

    monkeypatch.setattr(replayed, "Routine", Tracked)
    method = NelderMead()
    state = method.init(np.ones(2), key=Key(0))
    method.ask(state)
    before = {name: getattr(warnings, name) for name in ("filters", "showwarning", "_showwarnmsg_impl")}

    def interrupted(place):
        """Whether there was a place of that number."""
        left = place

        def signal(frame, event, arg):
            nonlocal left
            here = frame.f_code.co_filename != threading.__file__  # which is not proof against it
            left -= here and event in ("call", "c_return")
            if left == 0:
                sys.setprofile(None)
                raise KeyboardInterrupt

        try:
            sys.setprofile(signal)
            method.ask(state)
            sys.setprofile(None)
        except KeyboardInterrupt:
            return True
        finally:
            sys.setprofile(None)
        return False

    place = 2  # the first one is the end of `setprofile`
    while interrupted(place):
        assert not inversion._lock.locked()
        assert all(getattr(warnings, name) is value for name, value in before.items())
        for routine in made:  # where a signal came between, nobody else knows of it
            if hasattr(routine, "_thread") and routine._thread.ident:
                routine.close()
        made.clear()
        inversion.clear_cache()
        place += 1
    assert place > 20
    assert len(method.ask(state)) == 3


def test_filters_that_an_earlier_turn_left_are_put_right():
    before = warnings.filters
    at_work(lambda: None)
    warnings.filters = [("error", None, UserWarning, None, 0), inversion._SILENT]
    at_work(lambda: None)
    assert warnings.filters is before


def test_the_end_does_not_wait_for_a_thread_at_work(monkeypatch):
    monkeypatch.setattr(inversion, "_AT_EXIT", 0.01)
    with inversion._lock:
        inversion._end()
    assert not inversion._lock.locked()
    at_work(lambda: inversion.keep("one", Routine(doubling, np.empty(0))))
    inversion._end()
    assert at_work(lambda: inversion.take("one")) is None


FORK = """
import os, sys, threading, warnings
from zoo.methods import inversion, replayed

begun, over = threading.Event(), threading.Event()
before = list(warnings.filters)
thread = threading.Thread(target=inversion.at_work, args=(lambda: (begun.set(), over.wait()),))
thread.start()
begun.wait()
child = os.fork()
if not child:
    os._exit(not (warnings.filters == before and inversion.at_work(lambda: True)))
over.set()
thread.join()
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_fork_while_another_thread_is_at_work():
    done = subprocess.run([sys.executable, "-c", FORK], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
