"""Workers as local processes, for real: started, killed, replaced, and gone afterwards."""

import ctypes
import errno
import gc
import itertools
import os
import resource
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from tests.distributed import arrays, objectives
from tests.distributed.objectives import points
from zoo.core.command import Command
from zoo.core.errors import EvaluationError, Interrupt, WorkerError
from zoo.core.objective import as_objective
from zoo.core.rng import Key
from zoo.core.types import Rows
from zoo.execution import interrupts, processes
from zoo.execution.executor import Serial
from zoo.execution.ledger import Ledger
from zoo.execution.packing import encode, encode_objective
from zoo.execution.processes import Processes
from zoo.execution.transport import Answered, Died, Ready
from zoo.execution.worker import Given

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


class Workers:
    """Workers without a scheduler: messages go where and when a test says."""

    def __init__(self, executor, objective):
        self.transport = executor.connect(encode_objective(objective))
        self.ready, self.dead, self.answers, self.asked = set(), {}, {}, 0

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.transport.close()

    def start(self, worker):
        self.transport.start(worker)
        self.wait(lambda: worker in self.ready)

    def evaluate(self, worker, candidates, step):
        """Return what a worker answers to a step that is sent to it."""
        n = len(candidates)
        self.transport.begin(worker, encode(Given(candidates, range(n + 1), Key(0), step)))
        self.asked += 1
        self.transport.evaluate(worker, self.asked, 0, n)
        return self.answer(self.asked).reply.values.tolist()

    def call(self, worker, task):
        self.asked += 1
        self.transport.call(worker, self.asked, encode(task))
        return self.answer(self.asked)

    def answer(self, number):
        self.wait(lambda: number in self.answers)
        return self.answers.pop(number)

    def wait(self, condition):
        while not condition():
            for event in self.transport.poll(10.0):
                if isinstance(event, Ready):
                    self.ready.add(event.worker)
                elif isinstance(event, Answered):
                    self.answers[event.dispatch] = event.answer
                elif isinstance(event, Died):
                    self.dead[event.worker] = event.reason
                else:
                    raise AssertionError(event.message)


def segments(pid):
    """Return how many segments a process holds, open or mapped."""
    files = [os.path.realpath(path) for path in Path(f"/proc/{pid}/fd").iterdir()]
    return sum("memfd:gradfree" in file for file in files)


def sums(candidates):
    return candidates.rows(0, len(candidates)).sum(1).tolist()


in_memory = pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="needs files in memory")


@in_memory
def test_a_large_array_is_sent_once():
    """Not once for each worker, and not again while it stays the same."""
    size = 8 * arrays.SIZE
    with Workers(Processes(3), arrays.Sums()) as workers:
        workers.start(0), workers.start(1)
        sent = [workers.transport.sent]
        for step in range(10):
            candidates = arrays.Windows(arrays.array_of(0))  # equal, not the same
            for worker in (0, 1):
                assert workers.evaluate(worker, candidates, step) == sums(candidates)
            sent.append(workers.transport.sent)
        assert size < sent[1] - sent[0] < size + 10_000
        assert sent[-1] - sent[1] < 100_000
        workers.start(2)  # who gets what is there already
        assert workers.evaluate(2, candidates, 10) == sums(candidates)
        assert workers.transport.sent - sent[-1] < 10_000


@in_memory
def test_large_arrays_that_change_do_not_pile_up():
    with Workers(Processes(2), arrays.Sums()) as workers:
        workers.start(0), workers.start(1)
        before, base = workers.transport.sent, arrays.array_of(0)
        for step in range(200):
            base[0] = step
            # One of them reads late, and after what it needs may have been forgotten here.
            if step % 40 == 0:
                message = encode(Given(arrays.Windows(base.copy()), range(3), Key(0), step))
                workers.transport.begin(1, message)
            assert workers.evaluate(0, arrays.Windows(base, 2), step) == sums(arrays.Windows(base, 2))
        assert 200 <= (workers.transport.sent - before) / (8 * arrays.SIZE) < 201
        assert max(segments(pid) for pid in [os.getpid(), *workers.transport.pids()]) < 25
        assert workers.evaluate(1, arrays.Windows(base), 200) == sums(arrays.Windows(base))
    del workers
    assert segments(os.getpid()) == 0


@pytest.mark.parametrize("in_frames", [False, True])
def test_who_may_write_to_a_large_array(monkeypatch, in_frames):
    """The objective to its own, a task to its copy, and nobody to what a step shares."""
    if in_frames:
        monkeypatch.delattr(os, "memfd_create", raising=False)
    array = arrays.array_of(0)
    assert steps(Processes(2), arrays.Scratch()) == steps(Serial(), arrays.Scratch())
    with Workers(Processes(2), arrays.Sums()) as workers:
        workers.start(0), workers.start(1)
        for worker in (0, 0, 1):
            found, spoilt = workers.call(worker, arrays.Spoil(array))
            assert found == array[0]
            assert (spoilt == -1.0).all()
            assert spoilt.flags.writeable
            assert workers.evaluate(worker, arrays.Windows(array), 0) == sums(arrays.Windows(array))
    executor = Processes(1)
    with executor.open(arrays.Sums()), pytest.raises(EvaluationError, match="read-only"):
        executor.evaluate(arrays.Greedy(array), Key(0), 0)


def test_torch():
    """Large tensors are arrays on their way, and tensors again."""
    torch = pytest.importorskip("torch")
    rows = torch.linspace(0, 1, 2**16, dtype=torch.float32).reshape(2, -1)
    adding = as_objective(lambda x: (x.add_(1.0) ** 2).sum() + 100 * torch.get_num_threads())
    with Workers(Processes(1), adding) as workers:
        workers.start(0)
        before = workers.transport.sent
        for step in range(6):
            rows[0, 0] = step // 2
            found = workers.evaluate(0, Rows(rows), step)
            assert found == [float(((row + 1.0) ** 2).sum() + 100) for row in rows]
        assert 3 <= (workers.transport.sent - before) / rows.nbytes < 3.1


def test_gpus_are_shared_out(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    seen = as_objective(lambda x: float(os.environ["CUDA_VISIBLE_DEVICES"] or "nan"))
    with Workers(Processes(4, gpus_per_worker=0.5), seen) as workers:
        for worker in range(4):
            workers.start(worker)
        found = [workers.evaluate(worker, points(1), 0)[0] for worker in range(4)]
        assert found == [4, 7, 4, 7]
        workers.transport.end(1)
        workers.wait(lambda: workers.dead)
        workers.start(4)
        assert workers.evaluate(4, points(1), 0) == [7]  # it has the place of the one that ended


def test_without_gpus(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")

    def opens_one(x):
        assert os.environ["CUDA_VISIBLE_DEVICES"] == ""
        raise RuntimeError("No CUDA GPUs are available")

    executor = Processes(1)
    with (
        executor.open(as_objective(opens_one)),
        pytest.raises(EvaluationError, match=r"No CUDA GPUs are available \(.* by `gpus_per_worker`\)"),
    ):
        executor.evaluate(points(1), Key(0), 0)
    with (
        pytest.raises(ValueError, match=r"^3 workers with gpus_per_worker=1 need 3 GPUs.* has 2 "),
        Processes(3, gpus_per_worker=1).open(as_objective(opens_one)),
    ):
        pass
    with pytest.raises(ValueError, match="`gpus_per_worker` must be 0, a fraction"):
        Processes(1, gpus_per_worker=1.5)
    assert Processes(1, gpus_per_worker=0.5).describe()["gpus_per_worker"] == 0.5


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


def expected(*failed, n=24):
    """Return the values of `wave` at `points(n)`, some of them failed, as bytes."""
    values = np.array([objectives.wave(x) for x in points(n).array])
    values[list(failed)] = np.nan
    return values.tobytes()


def test_hung_evaluations_end_at_the_deadline(tmp_path):
    """One that sleeps beside a child of its own, and one in native code that lets no thread run."""

    def hangs(x):
        if x[0] == 7:
            child = subprocess.Popen(["sleep", "3600"])
            (tmp_path / f"pid{child.pid}").touch()
            time.sleep(3600)
        if x[0] == 16:
            ctypes.PyDLL(None).sleep(3600)
        return objectives.wave(x)

    executor, events = Processes(2, timeout=1.0), []
    with executor.open(as_objective(hangs)):
        ledger = Ledger(range(25), event=events.append)
        done = executor.evaluate(points(), Key(0), 0, ledger)
        children = [int(path.name[3:]) for path in tmp_path.glob("pid*")]
        assert not all(map(is_alive, children))  # one may be left of an idle worker that tried the same
        assert executor.evaluate(points(7), Key(0), 1).values.tobytes() == expected(n=24)[: 8 * 7]
    wait_until(lambda: not any(map(is_alive, children)))
    assert done.values.tobytes() == expected(7, 16)
    assert [(failure.row, failure.kind, failure.message) for failure in done.failures] == [
        (7, "hung", "took more than 1 s"),
        (16, "hung", "took more than 1 s"),
    ]
    assert ledger.account.quarantined == 2
    assert {event["id"] for event in events if event["event"] == "quarantined"} == {7, 16}


def test_an_evaluation_that_needs_more_memory_than_there_is():
    def needs(x):
        if x[0] in (5, 20):
            resource.setrlimit(resource.RLIMIT_AS, (2**32, resource.RLIM_INFINITY))
            np.empty(2**29)
        return objectives.wave(x)

    executor = Processes(2)
    with executor.open(as_objective(needs)):
        ledger = Ledger(range(25))
        done = executor.evaluate(points(), Key(0), 0, ledger)
    assert done.values.tobytes() == expected(5, 20)
    assert {(failure.row, failure.kind) for failure in done.failures} == {(5, "raised"), (20, "raised")}
    assert all("MemoryError" in failure.message for failure in done.failures)
    assert ledger.account.restarts == 0


def failing(monkeypatch, error, starts):
    """Have some starts fail, by number, as if the system had nothing left."""
    real, count = subprocess.Popen, itertools.count()

    def popen(*arguments, **options):
        if next(count) in starts:
            raise error
        return real(*arguments, **options)

    monkeypatch.setattr(processes.subprocess, "Popen", popen)
    monkeypatch.setattr(processes, "_PAUSE_SECONDS", 0.1)


def test_a_start_for_which_the_system_has_nothing_left(monkeypatch):
    failing(monkeypatch, OSError(errno.ENOMEM, "no memory"), {0, 2})
    executor, events = Processes(2), []
    with executor.open(as_objective(objectives.ends_at_seven)):
        ledger = Ledger(range(25), event=events.append)
        done = executor.evaluate(points(), Key(0), 0, ledger)
    assert done.values.tobytes() == expected(7)
    reasons = [event["reason"] for event in events if event["event"] == "worker lost"]
    assert sum("could not be started: [Errno 12] no memory" in reason for reason in reasons) == 2


def test_no_start_at_all(monkeypatch):
    before = len(os.listdir("/proc/self/fd"))
    failing(monkeypatch, OSError(errno.EMFILE, "too many"), range(100))
    executor = Processes(2)
    says = r"3 workers in a row .*could not be started: .*too many; use fewer workers, or .*\(ulimit -n\)"
    with pytest.raises(WorkerError, match=says), executor.open(as_objective(objectives.wave)):
        executor.evaluate(points(), Key(0), 0)
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("kind", [KeyboardInterrupt, GeneratorExit])
def test_what_is_no_exception_costs_no_worker(kind):
    def raises(x):
        if x[0] == 7:
            raise kind("seven")
        return objectives.wave(x)

    executor = Processes(2)
    for objective in (as_objective(raises), as_objective(raises, noise=True)):
        with executor.open(objective):
            ledger = Ledger(range(25))
            done = executor.evaluate(points(), Key(0), 0, ledger)
        assert done.values.tobytes() == expected(7)
        assert [(failure.kind, failure.message) for failure in done.failures] == [
            ("raised", f"{kind.__name__}: seven")
        ]
        assert ledger.account.restarts == 0


@pytest.mark.parametrize("what", ["close", "replace", "pipe"])
def test_a_standard_output_that_takes_nothing(monkeypatch, what):
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)

    def spoils(x):
        if what == "replace":
            sys.stdout = None
        elif what == "close":
            sys.stdout.close()
        else:
            readable, writable = os.pipe()
            os.close(readable)
            os.dup2(writable, 1)
            os.close(writable)
            print("to nobody")
        return objectives.wave(x)

    executor = Processes(1)
    with executor.open(as_objective(spoils)):
        ledger = Ledger(range(25))
        assert executor.evaluate(points(), Key(0), 0, ledger).values.tobytes() == expected()
    assert ledger.account.restarts == 0


def test_messages_are_on_their_way_at_once():
    """Not only when the driver next listens."""
    with Workers(Processes(1), as_objective(objectives.wave)) as workers:
        workers.start(0)
        workers.transport.call(0, 1, encode(lambda memory: "touched"))
        process = workers.transport._processes[0]
        assert not process.outgoing
        assert workers.answer(1) == "touched"


def test_all_workers_killed_at_once():
    executor, killed = Processes(2), []

    def kill(reply):
        if step == len(killed):
            killed.append(executor.pids())
            for pid in killed[-1]:
                os.kill(pid, signal.SIGKILL)

    with executor.open(as_objective(objectives.slow_wave)):
        for step in range(3):
            ledger = Ledger(range(41), record=kill)
            values = executor.evaluate(points(40, seed=step), Key(0), step, ledger).values
            assert values.tolist() == [objectives.wave(x) for x in points(40, seed=step).array]
            assert ledger.account.restarts == 2
    assert len({pid for pids in killed for pid in pids}) == 6


def test_a_straggler_is_overtaken(tmp_path):
    began, ended = tmp_path / "began", tmp_path / "ended"

    def straggles(x):
        if x[0] == 20 and not began.exists():
            began.touch()
            time.sleep(30.0)
            ended.touch()
        time.sleep(0.01)
        return objectives.wave(x)

    executor, events = Processes(2), []
    with executor.open(as_objective(straggles)):
        ledger = Ledger(range(25), event=events.append)
        done = executor.evaluate(points(), Key(0), 0, ledger)
        assert not ended.exists()
    assert began.exists()
    assert done.values.tobytes() == expected()
    assert ledger.account.speculated > 0
    assert [event for event in events if event["event"] == "speculated"]
    assert ledger.account.restarts == 0


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
            from zoo.execution import interrupts, processes
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


def test_script_without_a_guard(tmp_path, monkeypatch):
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)  # which tears lines of two processes apart
    path = tmp_path / "script.py"
    path.write_text(SCRIPT)
    with run(path, cwd=tmp_path) as process:
        out, err = process.communicate(timeout=30)
    assert process.returncode == 0, err
    assert sorted(out.splitlines()) == sorted(["main runs", *["evaluated"] * 3, "[2.0, 3.0, 4.0]"])
    assert err.splitlines() == ["warned"] * 3


@pytest.mark.parametrize(
    "doing",
    ["return 0.0", "time.sleep(60)", "ctypes.PyDLL(None).sleep(60)"],
    ids=["idle", "busy", "in native code"],
)
def test_workers_end_after_a_killed_driver(tmp_path, doing):
    """Also if they let no thread of Python run, and with them what they have started."""
    path = tmp_path / "script.py"
    path.write_text(
        textwrap.dedent(
            f"""
            import ctypes, os, pathlib, subprocess, time
            from tests.distributed.objectives import points, wave
            from zoo.core.objective import as_objective
            from zoo.core.rng import Key
            from zoo.execution.processes import Processes

            def stays(x):
                child = subprocess.Popen(["sleep", "60"])
                pathlib.Path({str(tmp_path)!r}, f"pid{{child.pid}}").touch()
                {doing}

            executor = Processes(2)
            with executor.open(as_objective(wave)):
                executor.evaluate(points(), Key(0), 0)
            with executor.open(as_objective(stays)):
                print(*executor.pids(), flush=True)
                executor.evaluate(points(2), Key(0), 0)
                time.sleep(60)
            """
        )
    )

    def children():
        return [int(path.name[3:]) for path in tmp_path.glob("pid*")]

    with run(path) as process:
        pids = [int(word) for word in process.stdout.readline().split()]
        wait_until(lambda: len(children()) == 2)
        pids += children()
        assert len(pids) == 4
        assert all(map(is_alive, pids))
        process.kill()
        wait_until(lambda: not any(map(is_alive, pids)))


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
