"""Workers as local processes, for real: started, killed, replaced, and gone afterwards."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from tests.distributed import objectives
from tests.distributed.objectives import points
from zoo.core.command import Command
from zoo.core.errors import EvaluationError, Interrupt, WorkerError
from zoo.core.objective import as_objective
from zoo.core.rng import Key
from zoo.core.types import Rows
from zoo.execution import interrupts
from zoo.execution.executor import Serial
from zoo.execution.ledger import Ledger
from zoo.execution.processes import Processes

ROOT = Path(__file__).parents[2]


def steps(executor, objective, count=3, n=24):
    """Return the values of some steps as bytes."""
    with executor.open(objective):
        return [executor.evaluate(points(n, seed=i), Key(1), i).values.tobytes() for i in range(count)]


def is_alive(pid):
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


def wait_until(condition, seconds=10.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


@pytest.mark.parametrize("num_workers", [1, 2, 3])
def test_same_bytes_as_serial(num_workers):
    slow, wave = as_objective(objectives.slow_wave), as_objective(objectives.wave)
    batches = objectives.Batches()
    assert steps(Processes(num_workers), slow) == steps(Serial(), wave)
    assert steps(Processes(num_workers), batches) == steps(Serial(), batches)


def test_functions_by_value():
    shift = 3.0

    def closure(x):
        return objectives.wave(x) + shift

    assert steps(Processes(1), as_objective(closure)) == steps(Serial(), as_objective(closure))
    assert steps(Processes(1), as_objective(lambda x: x[0] + shift)) == steps(
        Serial(), as_objective(lambda x: x[0] + shift)
    )


def test_objectives_by_name_and_by_command():
    named = as_objective("tests.distributed.objectives:wave")
    assert steps(Processes(1), named) == steps(Serial(), as_objective(objectives.wave))
    program = "import sys\nfor line in sys.stdin: print(sum(map(float, line.split())), flush=True)"
    command = Command([sys.executable, "-c", program])
    try:
        assert steps(Processes(2), command) == steps(Serial(), command)
    finally:
        command.close()


def test_torch():
    torch = pytest.importorskip("torch")
    rows = Rows(torch.linspace(0, 1, 40, dtype=torch.float32).reshape(8, 5))
    executor = Processes(1)
    with executor.open(as_objective(lambda x: (x * x).sum() + 100 * torch.get_num_threads())):
        values = executor.evaluate(rows, Key(0), 0).values
    assert values.tolist() == ((rows.array**2).sum(1) + 100).double().tolist()


def test_threads():
    executor = Processes(1)
    with executor.open(as_objective(objectives.variables)):
        assert executor.evaluate(points(1), Key(0), 0).values.tolist() == [111.0]
    described = executor.describe()
    assert (described["executor"], described["num_workers"], described["threads"]) == ("Processes", 1, 1)


def test_reopened_with_another_objective():
    executor = Processes(2)
    assert steps(executor, as_objective(objectives.wave)) == steps(Serial(), as_objective(objectives.wave))
    assert steps(executor, objectives.Batches()) == steps(Serial(), objectives.Batches())
    with (
        executor.open(objectives.Batches()),
        pytest.raises(RuntimeError, match="open already"),
        executor.open(objectives.Batches()),
    ):
        pass
    with pytest.raises(RuntimeError, match="inside"):
        executor.evaluate(points(), Key(0), 0)


def test_large_steps_do_not_block():
    """Candidates and replies far above what a socket takes, in both directions at once."""
    rows = Rows(np.arange(3e6).reshape(3000, 1000))
    executor = Processes(2)
    with executor.open(as_objective(lambda x: float("nan") if x[0] % 3000 else x[0])):
        for step in range(2):
            done = executor.evaluate(rows, Key(0), step)
    assert np.isfinite(done.values).sum() == 1000
    assert len(done.failures) == 2000


def test_killed_workers_change_nothing():
    executor, objective, events = Processes(2), as_objective(objectives.slow_wave), []
    records = []
    with executor.open(objective):
        ledgers = []
        for step in range(6):
            candidates = points(40, seed=step)
            ledger = Ledger(range(41), event=events.append, record=records.append)
            if step % 2 == 0:
                pids = executor.pids()
                timer = threading.Timer(0.15, lambda pids=pids: os.kill(pids[0], signal.SIGKILL))
                timer.start()
            executor.evaluate(candidates, Key(1), step, ledger)
            if step % 2 == 0:
                timer.join()
            ledgers.append(ledger)
    assert [ledger.values.tobytes() for ledger in ledgers] == steps(
        Serial(), as_objective(objectives.wave), 6, 40
    )
    assert sum(ledger.account.restarts for ledger in ledgers) == 3
    lost = [event for event in events if event["event"] == "worker lost"]
    assert len(lost) == 3
    assert all("SIGKILL" in event["reason"] for event in lost)
    assert sum(event["units"] for event in lost) == sum(ledger.account.lost for ledger in ledgers) > 0
    assert sum(len(record.values) for record in records) == 240


@pytest.mark.parametrize(
    "function",
    [objectives.ends_at_seven, objectives.segfaults_at_seven, objectives.ends_at_seven_leaving_a_child],
)
def test_poison(function):
    executor, events = Processes(2), []
    with executor.open(as_objective(function)):
        ledger = Ledger(range(25), event=events.append)
        done = executor.evaluate(points(24), Key(0), 0, ledger)
    expected = np.array([objectives.wave(x) for x in points(24).array])
    expected[7] = np.nan
    assert done.values.tobytes() == expected.tobytes()
    assert [(f.row, f.kind, f.message) for f in done.failures] == [
        (7, "crashed", "took its worker along 3 times")
    ]
    assert ledger.account.restarts in (3, 4)
    assert [event for event in events if event["event"] == "quarantined"]


def test_an_objective_that_always_ends_its_process():
    executor = Processes(2, max_attempts=1)
    with (
        pytest.raises(WorkerError, match=r"no evaluation has succeeded yet.*\n?.*status 9"),
        executor.open(as_objective(objectives.always_ends)),
    ):
        executor.evaluate(points(24), Key(0), 0)
    assert executor.pids() == []


def test_exceptions_arrive_with_their_traceback():
    executor = Processes(2)
    with executor.open(as_objective(objectives.raises_at_seven)):
        with pytest.raises(EvaluationError, match=r"evaluation 7 raised twice: ValueError: seven") as caught:
            executor.evaluate(points(24), Key(0), 0, Ledger(range(25), on_error="raise"))
        assert "raises_at_seven" in caught.value.details
        # What was under way is forgotten, and the workers serve the next step.
        ledger = Ledger(range(25))
        values = executor.evaluate(points(24), Key(0), 1, ledger).values
        assert np.flatnonzero(np.isnan(values)).tolist() == [7]
        assert ledger.account.retries == 1


def test_what_cannot_be_sent():
    lock = threading.Lock()
    with pytest.raises(TypeError, match=r"`fun` cannot be sent to workers: .*lock.*workers=1"):
        steps(Processes(1), as_objective(lambda x: lock))


@pytest.mark.parametrize(
    ("objective", "says"),
    [
        (objectives.Unloadable(), r"could not load the objective: ImportError: libfoo.*\n\nTraceback"),
        (objectives.Fatal(), r"3 workers in a row ended before they were ready.*status 3"),
    ],
)
def test_what_cannot_be_loaded(objective, says):
    executor = Processes(2)
    with pytest.raises(WorkerError, match=says):
        steps(executor, objective)
    assert executor.pids() == []


def test_interrupt_leaves_no_process():
    executor = Processes(2)
    threading.Timer(0.7, signal.raise_signal, [signal.SIGTERM]).start()
    began = time.monotonic()
    with executor.open(as_objective(objectives.sleeps)), interrupts.handled():
        pids = executor.pids()
        with pytest.raises(Interrupt):
            executor.evaluate(points(4), Key(0), 0)
    assert time.monotonic() - began < 4
    assert len(pids) == 2
    assert not any(map(is_alive, pids))


def test_what_is_done_is_put_on_record_when_the_objective_turns_slow(tmp_path):
    """At most one evaluation of each worker is not on record, once they take longer than a dispatch."""
    log, records = tmp_path / "ends", []

    def function(x):
        if x[0] >= 400:
            time.sleep(0.25)
        with log.open("a") as file:
            file.write(f"{time.time()}\n")
        return x[0]

    def record(reply):
        records.append((time.time(), len(reply.values)))

    executor = Processes(2)
    with executor.open(as_objective(function)):
        ledger = Ledger(range(413), record=record)
        values = executor.evaluate(points(412), Key(0), 0, ledger).values
    assert values.tolist() == list(range(412))
    ends = sorted(map(float, log.read_text().split()))
    assert len(ends) == 412
    slow = ends[-12:]
    for at in [end + 0.12 for end in slow[:-2]]:  # a moment later, well before the next ones end
        on_record = sum(size for when, size in records if when <= at)
        assert sum(end <= at for end in ends) - on_record <= 2


@pytest.mark.parametrize("killed", [False, True], ids=["interrupted", "killed driver"])
def test_programs_end_with_the_run(tmp_path, killed):
    """Also one that hangs, and does not heed what it is asked for."""
    program = tmp_path / "program.py"
    program.write_text(
        "import os, pathlib, signal, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        f"pathlib.Path({str(tmp_path)!r}, f'pid{{os.getpid()}}').touch()\n"
        "time.sleep(60)\n"
    )
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent(
            f"""
            import sys
            from tests.distributed.objectives import points
            from zoo.core.errors import Interrupt
            from zoo.core.command import Command
            from zoo.core.rng import Key
            from zoo.execution import interrupts
            from zoo.execution.processes import Processes

            executor = Processes(2)
            with executor.open(Command([sys.executable, {str(program)!r}])), interrupts.handled():
                try:
                    executor.evaluate(points(), Key(0), 0)
                except Interrupt:
                    print("interrupted")
            """
        )
    )

    def pids():
        return [int(path.name[3:]) for path in tmp_path.glob("pid*")]

    with run(script) as process:
        wait_until(lambda: len(pids()) == 2)
        assert all(map(is_alive, pids()))
        process.send_signal(signal.SIGKILL if killed else signal.SIGINT)
        assert process.communicate(timeout=15)[0] == ("" if killed else "interrupted\n")
        wait_until(lambda: not any(map(is_alive, pids())), 5.0)


def test_functions_of_the_script_without_cloudpickle(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent(
            """
            import sys
            sys.modules["cloudpickle"] = None
            from tests.distributed import objectives
            from zoo.core.objective import as_objective
            from zoo.core.rng import Key
            from zoo.execution.processes import Processes

            def fun(x):
                return 0.0

            for function in (fun, lambda x: 0.0):
                try:
                    with Processes(1).open(as_objective(function)):
                        pass
                except TypeError as error:
                    print(error)
            executor = Processes(1)
            with executor.open(as_objective(objectives.wave)):
                print(len(executor.evaluate(objectives.points(2), Key(0), 0)))
            """
        )
    )
    with run(script) as process:
        said = process.communicate(timeout=30)
    lines = said[0].splitlines()
    assert len(lines) == 3, said
    assert lines[2] == "2"
    for line in lines[:2]:
        assert line.startswith("`fun` cannot be sent to workers: ")
        assert "pip install cloudpickle" in line
    assert "defined in the script or notebook itself" in lines[0]


SCRIPT = """
import numpy as np, os, sys
from zoo.core.objective import as_objective
from zoo.core.rng import Key
from zoo.core.types import Rows
from zoo.execution.processes import Processes

print("main runs")
offset = 2.0

class Thing:
    def __call__(self, x):
        print("evaluated")
        print("warned", file=sys.stderr)
        return float(x[0]) + offset

def fun(x):
    return Thing()(x)

executor = Processes(2)
with executor.open(as_objective(fun)):
    print(executor.evaluate(Rows(np.arange(3.0)[:, None]), Key(0), 0).values.tolist())
"""


def run(script, *arguments, **options):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, script, *arguments],
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        **options,
    )


def test_script_without_a_guard(tmp_path):
    path = tmp_path / "script.py"
    path.write_text(SCRIPT)
    with run(path, cwd=tmp_path) as process:
        out, err = process.communicate(timeout=30)
    assert process.returncode == 0, err
    assert sorted(out.splitlines()) == sorted(["main runs", *["evaluated"] * 3, "[2.0, 3.0, 4.0]"])
    assert err.splitlines() == ["warned"] * 3


@pytest.mark.parametrize("busy", [True, False])
def test_workers_end_after_a_killed_driver(tmp_path, busy):
    path = tmp_path / "script.py"
    path.write_text(
        textwrap.dedent(
            f"""
            import numpy as np, time
            from tests.distributed import objectives
            from zoo.core.objective import as_objective
            from zoo.core.rng import Key
            from zoo.execution.processes import Processes

            executor = Processes(2)
            with executor.open(as_objective(objectives.wave)):
                executor.evaluate(objectives.points(), Key(0), 0)
            with executor.open(as_objective(objectives.{"sleeps" if busy else "wave"})):
                print(*executor.pids(), flush=True)
                if not {busy}:
                    executor.evaluate(objectives.points(), Key(0), 0)
                    print("done", flush=True)
                    time.sleep(60)
                executor.evaluate(objectives.points(), Key(0), 0)
            """
        )
    )
    with run(path) as process:
        pids = [int(word) for word in process.stdout.readline().split()]
        assert len(pids) == 2
        if not busy:
            process.stdout.readline()
        time.sleep(0.5)
        assert all(map(is_alive, pids))
        process.kill()
        wait_until(lambda: not any(map(is_alive, pids)), 4.0)


def test_imports_are_light():
    code = (
        "import sys, zoo.execution.pool, zoo.execution.processes, zoo.execution.worker;"
        "print([name for name in ('torch', 'ray', 'scipy', 'cloudpickle') if name in sys.modules])"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, text=True, stdout=subprocess.PIPE
    ) as process:
        assert process.communicate(timeout=30)[0].strip() == "[]"


@pytest.mark.parametrize("arguments", [{"num_workers": 0}, {"num_workers": 1, "threads": 0}])
def test_counts(arguments):
    with pytest.raises(ValueError, match="must be at least 1"):
        Processes(**arguments)
