"""The first signal asks, the second one does not."""

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
