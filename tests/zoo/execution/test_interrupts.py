"""The first signal asks, the second one does not."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from zoo.core.errors import Interrupt
from zoo.execution import interrupts

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_asked_to_stop(number):
    before = signal.getsignal(number)
    with interrupts.handled():
        interrupts.check()
        signal.raise_signal(number)
        assert interrupts.requested() == number
        with pytest.raises(Interrupt):
            interrupts.check()
    assert signal.getsignal(number) is before
    assert interrupts.requested() is None
    interrupts.check()


def test_breaking_in():
    with interrupts.handled():
        with pytest.raises(Interrupt), interrupts.interruptible():
            signal.raise_signal(signal.SIGTERM)
        # One that came before the block would otherwise wait for its end.
        with pytest.raises(Interrupt), interrupts.interruptible():
            pytest.fail("not reached")
    with interrupts.interruptible():
        pass


class Came(Exception):
    """Raised by the handlers that a test sets."""


@pytest.fixture
def came():
    """Have both signals raise `Came`, where nobody else handles them."""

    def raising(number, frame):
        raise Came(number)

    before = {number: signal.signal(number, raising) for number in (signal.SIGINT, signal.SIGTERM)}
    yield raising
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_nobody_was_told_of_goes_to_who_was_there_before(number, came):
    def run():
        with interrupts.handled():
            signal.raise_signal(number)
            assert interrupts.requested() == number  # to look is not to heed

    with pytest.raises(Came, match=str(int(number))):
        run()
    assert signal.getsignal(number) is came
    assert interrupts.requested() is None
    with interrupts.handled():
        interrupts.check()


def test_a_signal_whose_interrupt_was_swallowed(came):
    def run():
        with interrupts.handled(), interrupts.interruptible(), contextlib.suppress(BaseException):
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(Came):
        run()


def test_a_signal_beside_an_exception(came):
    def run(error):
        with interrupts.handled():
            signal.raise_signal(signal.SIGINT)
            raise error

    with pytest.raises(Came) as caught:
        run(ZeroDivisionError)
    assert isinstance(caught.value.__context__, ZeroDivisionError)
    with pytest.raises(KeyboardInterrupt):
        run(KeyboardInterrupt)


def test_nested(came):
    """The signal ends the inner block, and then the outer one."""

    def inner():
        with interrupts.handled():
            signal.raise_signal(signal.SIGTERM)
            with pytest.raises(Interrupt):
                interrupts.check()

    def outer():
        with interrupts.interruptible():
            with interrupts.handled():
                interrupts.check()
            assert interrupts._inside
            inner()
            assert interrupts.requested() == signal.SIGTERM
            with pytest.raises(Interrupt), interrupts.handled():
                interrupts.check()  # a run begun after all
            interrupts.check()

    with interrupts.handled():
        with pytest.raises(Interrupt):
            outer()
        assert interrupts.requested() == signal.SIGTERM
    assert interrupts.requested() is None


def test_nested_and_missed(came):
    """What the inner block did not see goes to the outer one, which it breaks into if that is allowed."""

    def inner():
        with interrupts.handled():
            signal.raise_signal(signal.SIGINT)

    def outer():
        with interrupts.handled():
            inner()
            assert interrupts.requested() == signal.SIGINT

    with interrupts.handled():
        with pytest.raises(Interrupt), interrupts.interruptible():
            inner()
        with pytest.raises(Interrupt):
            interrupts.check()
    with pytest.raises(Came):
        outer()


def test_other_threads_are_not_asked():
    seen = []

    def work():
        with interrupts.handled(), interrupts.interruptible():
            interrupts.check()
            seen.append(interrupts.requested())

    def run_thread():
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()

    with interrupts.handled():
        with contextlib.suppress(Interrupt), interrupts.interruptible():
            run_thread()
            assert interrupts._inside
            signal.raise_signal(signal.SIGINT)
        assert interrupts.requested() == signal.SIGINT
        run_thread()
    assert seen == [None, None]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_process_is_its_own(came):
    """What the objective forks ends as if no run had started it."""
    with interrupts.handled(), interrupts.handled(), interrupts.interruptible():
        child = os.fork()
        if child == 0:
            try:
                signal.raise_signal(signal.SIGTERM)
            except Came:
                os._exit(7 if interrupts.requested() is None else 1)
            except BaseException:
                os._exit(2)
            os._exit(3)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        assert interrupts.requested() is None
        assert interrupts._inside


def two_postponed(reached):
    with interrupts.postponed():
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGTERM):
            signal.raise_signal(number)
        reached.append(True)


def test_postponed_until_the_end_of_a_block(came):
    reached = []
    with pytest.raises(Came) as caught:
        two_postponed(reached)
    assert reached == [True]
    assert caught.value.args == (signal.SIGINT,)  # the last one, while the first one was under way
    for number in (signal.SIGINT, signal.SIGTERM):
        assert signal.getsignal(number) is came


def test_postponed_within_a_run():
    with interrupts.handled():
        with interrupts.postponed():
            signal.raise_signal(signal.SIGTERM)
            assert interrupts.requested() is None
        with pytest.raises(Interrupt):
            interrupts.check()


def test_handlers_come_back_after_an_exception():
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(Interrupt), interrupts.handled(), interrupts.interruptible():
        signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before
    assert interrupts.requested() is None


def test_outside_of_the_main_thread():
    handlers = []

    def work():
        with interrupts.handled():
            handlers.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert handlers == [signal.getsignal(signal.SIGINT)]


@pytest.mark.parametrize("numbers", [(signal.SIGINT, signal.SIGINT), (signal.SIGTERM, signal.SIGINT)])
def test_the_second_signal_leaves_at_once(numbers):
    code = (
        "import os, signal, time\n"
        "from zoo.execution import interrupts\n"
        "with interrupts.handled():\n"
        f"    for number in {tuple(map(int, numbers))}:\n"
        "        print(number, flush=True)\n"
        "        os.kill(os.getpid(), number)\n"
        "    print('still here', flush=True)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == -numbers[1]
    assert done.stdout.split() == [str(int(number)) for number in numbers]
