"""Federations on workers that die, under drivers that are killed: the same rounds, bit for bit."""

from __future__ import annotations

import functools
import json
import os
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import federated
import zoo
from federated import methods, part
from tests.distributed.fake import Fake, Faults, Hangs, Kills
from tests.federated import toys
from tests.federated.toys import Bowls, Descent, Together, unreliable
from zoo.run.digest import digest_of_run
from zoo.run.directory import read_events
from zoo.run.journal import read, values_by_id

ROOT = Path(__file__).parents[2]


def outcome(path: Path) -> dict[str, Any]:
    """Return all that may not depend on who had the clients and what befell them."""
    result = json.loads((path / "result.json").read_text())
    for name in ("account", "seconds"):
        del result[name]
    digest = digest_of_run(path)
    values = values_by_id(path / "evaluations.bin", digest.counters["nfev"])
    return {
        "digest": digest,
        "metrics": (path / "metrics.jsonl").read_bytes(),
        "result": result,
        "values": values.tobytes(),
    }


@functools.cache
def undisturbed(path: Path) -> dict[str, Any]:
    unreliable(out=path)
    return outcome(path)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return what comes of a run in one process to which nothing happens."""
    return undisturbed(tmp_path_factory.mktemp("alone") / "run")


def test_rounds_differ_and_every_fault_of_the_network_is_there(alone: dict[str, Any]) -> None:
    """What is the same everywhere must not be so because it is nothing."""
    result, lines = alone["result"], [json.loads(line) for line in alone["metrics"].splitlines()]
    assert len(lines) == len({line["value"] for line in lines}) == toys.ROUNDS
    assert all(result[name] for name in ("absent", "late", "stale", "duplicates"))
    per_client = result["clients"]
    assert result["nfev"] == sum(per_client["queries"]) == len(np.frombuffer(alone["values"]))
    assert (result["up"], result["down"]) == (sum(per_client["sent"]), sum(per_client["received"]))
    # 24 bytes a vector of three: one down in the first trip, two in the second, one up in each.
    assert result["up"] % 24 == result["down"] % 24 == 0


@pytest.mark.parametrize("number", [1, 2, 3])
def test_any_number_of_workers_in_any_order(tmp_path: Path, alone: dict[str, Any], number: int) -> None:
    faults = Faults(
        kill_before=(4, 13, 40), kill_after=(9, 77), kill_all=(17,), duplicate=0.2, cut=0.2, delay=0.1
    )
    executor = Fake(number, seed=number, faults=faults)
    found = unreliable(out=tmp_path / "run", workers=executor)
    assert outcome(tmp_path / "run") == alone
    assert found.account["restarts"] >= 1


@pytest.mark.parametrize("number", [1, 3])
def test_processes(tmp_path: Path, alone: dict[str, Any], number: int) -> None:
    unreliable(out=tmp_path / "run", workers=zoo.Processes(number))
    assert outcome(tmp_path / "run") == alone


class KillsOne(zoo.Watcher):
    """Kills a worker at the first answer of some rounds."""

    def __init__(self, executor: Any, rounds: tuple[int, ...]) -> None:
        self.executor, self.left, self.killed = executor, list(rounds), 0

    def begin(self, run: Any) -> None:
        self._step = run.state.step

    def arrived(self, number: int) -> None:
        if self.left and self._step == self.left[0]:
            del self.left[0]
            os.kill(self.executor.pids()[0], signal.SIGKILL)
            self.killed += 1

    def step(self, state: Any, metrics: Any) -> None:
        self._step = state.step


def killed_twice(path: Path, executor: Any) -> dict[str, Any]:
    kills = KillsOne(executor, (3, 20))
    found = unreliable(out=path, workers=executor, callback=kills)
    assert kills.killed == found.account["restarts"] == 2
    assert not found.account["quarantined"]
    return outcome(path)


def test_killed_workers_change_nothing(tmp_path: Path, alone: dict[str, Any]) -> None:
    assert killed_twice(tmp_path / "run", zoo.Processes(2)) == alone


@pytest.mark.ray
def test_killed_actors_change_nothing(cluster: Any, tmp_path: Path, alone: dict[str, Any]) -> None:
    assert killed_twice(tmp_path / "run", zoo.Ray(2)) == alone


def rounds_in(out: Path) -> int:
    path = out / "metrics.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def test_a_killed_driver_loses_nothing(tmp_path: Path, alone: dict[str, Any]) -> None:
    out = tmp_path / "run"
    process = subprocess.Popen(
        [sys.executable, ROOT / "tests" / "federated" / "toys.py", out, "2"],
        env={**os.environ, "PYTHONPATH": str(ROOT), toys.SLOW: "0.003"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    until = time.monotonic() + 90
    while rounds_in(out) < 5 and process.poll() is None:
        assert time.monotonic() < until
        time.sleep(0.01)
    assert process.poll() is None, process.stderr.read().decode()  # type: ignore[union-attr]
    process.kill()
    process.communicate()
    assert 5 <= rounds_in(out) < toys.ROUNDS
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # all that was evaluated is on record
        federated.resume(out, method=Descent())
    assert outcome(out) == alone


EVALUATED: list[tuple[int, bytes]] = []


class Noted(Bowls):
    """Takes note of every point, and sends this process a signal at one of them."""

    signal_at = -1
    looks, look_at = 0, -1

    def values(self, client: int, x: Any, *, key: Any) -> Any:
        EVALUATED.extend((client, row.tobytes()) for row in x)
        if self.signal_at in range(len(EVALUATED) - len(x), len(EVALUATED)):
            signal.raise_signal(signal.SIGINT)
        return super().values(client, x, key=key)

    def measure(self, client: int, x: Any) -> dict[str, float]:
        Noted.looks += 1
        if Noted.looks == self.look_at:
            signal.raise_signal(signal.SIGINT)
        return super().measure(client, x)


def noted(path: Path | None = None, **more: Any) -> federated.Federation:
    given = {"task_options": {"num_clients": 7}, "rounds": 4, "network": {"dropout": 0.3}, "rng": 1}
    return federated.federate(Noted, Descent(), out=path, **{**given, **more})


def resumed(path: Path, **more: Any) -> federated.Federation:
    given = {"task": Noted, "method": Descent()}
    return federated.resume(path, **{**given, **more})


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Any]:
    """Return the outcome of an undisturbed run, and what it has evaluated."""
    monkeypatch.setattr(Noted, "looks", 0)
    EVALUATED.clear()
    noted(tmp_path / "alone")
    found = {**outcome(tmp_path / "alone"), "evaluated": sorted(EVALUATED), "looks": Noted.looks}
    EVALUATED.clear()
    Noted.looks = 0
    return found


def test_nothing_is_evaluated_twice_after_a_kill(tmp_path: Path, counted: dict[str, Any]) -> None:
    """A run whose checkpoints are lost finds all its values in the journal."""
    noted(tmp_path / "run")
    evaluated = sorted(EVALUATED)
    lost = tmp_path / "run"
    for saved in sorted((lost / "checkpoints").iterdir()):
        if "000000" not in saved.name:
            saved.unlink()
    (lost / "result.json").unlink()
    resumed(lost)
    assert sorted(EVALUATED) == evaluated == counted["evaluated"]


def stops_between_trips(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Have the server send a signal as it takes in the first trip of a round, the `number`-th one."""
    original, left = Descent._take_directions, [number]

    def take(algorithm: Descent, server: Any, answers: Any) -> Any:
        left[0] -= 1
        if not left[0]:
            signal.raise_signal(signal.SIGINT)
        return original(algorithm, server, answers)

    monkeypatch.setattr(Descent, "_take_directions", take)


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("again", [1, 2])
def test_a_signal_between_two_trips(
    tmp_path: Path, counted: dict[str, Any], monkeypatch: pytest.MonkeyPatch, workers: int, again: int
) -> None:
    """The clients have done the first trip, and are not to do it again."""
    stops_between_trips(monkeypatch, 3)
    with pytest.raises(zoo.Interrupted) as stopped:
        noted(tmp_path / "run", workers=workers)
    assert stopped.value.result.rounds == 2
    saved = digest_of_run(tmp_path / "run")
    assert saved.counters["nit"] == 2
    assert saved.counters["nfev"] > stopped.value.result.queries  # those of the trip that is done
    found = resumed(tmp_path / "run", workers=again)
    assert found.success
    known = {name: value for name, value in counted.items() if name not in ("evaluated", "looks")}
    assert outcome(tmp_path / "run") == known
    if workers == again == 1:
        assert sorted(EVALUATED) == counted["evaluated"]


@pytest.mark.parametrize("number", [1, 2, 3, 4, 5])
def test_a_signal_in_a_round_that_comes_to_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """What the server was at the beginning of the round is in the checkpoint, and who is busy."""
    network = {"dropout": 0.6, "latency": 1.0, "jitter": 1.0, "wait_for": 5, "min_replies": 4}
    noted(tmp_path / "alone", network=network, rounds=12)
    alone = outcome(tmp_path / "alone")
    lines = [json.loads(line) for line in alone["metrics"].splitlines()]
    begun = np.diff([0, *(line["up"] for line in lines)]) >= 4 * 24
    assert (begun & (np.diff([0, *(line["void"] for line in lines)]) > 0)).sum() >= 3
    with monkeypatch.context() as patched:
        stops_between_trips(patched, number)
        with pytest.raises(zoo.Interrupted) as stopped:
            noted(tmp_path / "run", network=network, rounds=12)
    saved = digest_of_run(tmp_path / "run")
    assert saved.counters["nfev"] > stopped.value.result.queries
    resumed(tmp_path / "run", workers=1 + number % 2)
    assert outcome(tmp_path / "run") == alone


@pytest.mark.parametrize("at", range(0, 80, 9))
def test_a_signal_at_any_query(tmp_path: Path, counted: dict[str, Any], at: int) -> None:
    with pytest.raises(zoo.Interrupted):
        noted(tmp_path / "run", task_options={"num_clients": 7}, callback=Signal(at))
    before = len(EVALUATED)
    resumed(tmp_path / "run")
    known = {name: value for name, value in counted.items() if name not in ("evaluated", "looks")}
    assert outcome(tmp_path / "run") == known
    # What was not on record yet is one client's, that was at work.
    assert before < len(EVALUATED) <= len(counted["evaluated"]) + 3


class Signal(zoo.Watcher):
    """Has the task that is about to be run send a signal."""

    def __init__(self, at: int) -> None:
        self.at = at

    def begin(self, run: Any) -> None:
        run.job.task.task.signal_at = self.at  # the one that its box is of


@pytest.mark.parametrize("at", [1, 5, 9, 20])
def test_a_signal_while_somebody_looks(tmp_path: Path, counted: dict[str, Any], at: int) -> None:
    class Looks(Signal):
        def begin(self, run: Any) -> None:
            run.job.task.task.look_at = at

    with pytest.raises(zoo.Interrupted):
        noted(tmp_path / "run", callback=Looks(at))
    resumed(tmp_path / "run")
    known = {name: value for name, value in counted.items() if name not in ("evaluated", "looks")}
    assert outcome(tmp_path / "run") == known
    assert sorted(EVALUATED) == counted["evaluated"]


def test_a_target_and_traffic_are_not_reached_in_the_middle_of_a_round(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits: dict[str, Any] = {"target": 100.0, "traffic": 1}
    for name, limit in limits.items():
        noted(tmp_path / f"alone-{name}", **{name: limit})

        with monkeypatch.context() as patched:
            stops_between_trips(patched, 1)
            with pytest.raises(zoo.Interrupted):
                noted(tmp_path / name, **{name: limit})
        resumed(tmp_path / name)
        assert outcome(tmp_path / name) == outcome(tmp_path / f"alone-{name}")
        assert outcome(tmp_path / name)["result"]["nit"] == 1


def test_what_breaks_off_behind_the_clients_leaves_no_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, counted: dict[str, Any]
) -> None:
    """Clients are a trip ahead of the server then; an earlier checkpoint and the journal have it all."""
    original, left = Descent._take_places, [3]

    def take(algorithm: Descent, server: Any, answers: Any) -> Any:
        left[0] -= 1
        if not left[0]:
            raise RuntimeError("a bug of the algorithm")
        return original(algorithm, server, answers)

    with monkeypatch.context() as patched:
        patched.setattr(Descent, "_take_places", take)
        with pytest.raises(RuntimeError, match="a bug"):
            noted(tmp_path / "run")
    resumed(tmp_path / "run")
    known = {name: value for name, value in counted.items() if name not in ("evaluated", "looks")}
    assert outcome(tmp_path / "run") == known
    assert sorted(EVALUATED) == counted["evaluated"]


@pytest.mark.parametrize("task", [Bowls, Together])
def test_blocks_make_no_difference(
    monkeypatch: pytest.MonkeyPatch, alone: dict[str, Any], task: type[Bowls], tmp_path: Path
) -> None:
    for blocks in (1, 3, 7):
        monkeypatch.setattr(part, "BLOCKS", blocks)
        out = tmp_path / str(blocks)
        unreliable(task=f"{toys.HERE}:{task.__name__}", out=out)
        found = outcome(out)
        for name in ("metrics", "result"):
            assert found[name] == alone[name], blocks
        assert found["digest"].state == alone["digest"].state
        # Side by side, clients ask in another order.
        assert sorted(np.frombuffer(found["values"])) == sorted(np.frombuffer(alone["values"]))


def test_answers_are_in_the_order_of_the_clients(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    original = Descent._take_places

    def take(algorithm: Descent, server: Any, answers: Any) -> Any:
        seen.append([answer.client for answer in answers])
        assert [answer.weight for answer in answers] == [1.0 + answer.client % 2 for answer in answers]
        return original(algorithm, server, answers)

    monkeypatch.setattr(Descent, "_take_places", take)
    faults = Faults(delay=0.3, cut=0.3, duplicate=0.3, kill_after=(3,))
    options = {"task_options": {"num_clients": 40}, "network": {"participation": 0.9, "dropout": 0.1}}
    noted(workers=Fake(3, seed=1, faults=faults), **options)
    assert len(seen) == 4
    assert all(clients == sorted(set(clients)) and len(clients) > 20 for clients in seen)


class Deadly(Bowls):
    """Client 2 ends its worker, client 4 never comes back, after the first round or two."""

    def values(self, client: int, x: Any, *, key: Any) -> Any:
        EVALUATED.extend((client, row.tobytes()) for row in x)
        if client == 2 and x[0, 0] < 0.5:
            raise Kills
        if client == 4 and x[0, 0] < 0.5:
            raise Hangs
        return super().values(client, x, key=key)


def test_clients_that_end_or_hang_workers_are_absent(tmp_path: Path) -> None:
    given: dict[str, Any] = {"rounds": 3, "rng": 0, "on_error": "nan", "out": tmp_path / "run"}
    options = {"directions": 40, "hidden": 0}
    found = federated.federate(Deadly, Descent(**options), workers=Fake(2, timeout=9.0), **given)
    assert found.account["quarantined"] == found.faults["absent"] == 2  # once each, and never again
    assert found.clients["answered"][[0, 1, 3, 5]].tolist() == [3] * 4
    assert found.clients["answered"][[2, 4]].max() < 3
    events = [entry for entry in read_events(tmp_path / "run") if entry["event"] == "quarantined"]
    assert {(entry["part"], entry["kind"]) for entry in events} == {(2, "crashed"), (4, "hung")}
    # The parts that were given up stay so for whoever goes on from the journal alone.
    before, EVALUATED[:] = outcome(tmp_path / "run"), []
    for saved in (tmp_path / "run" / "checkpoints").iterdir():
        if "000000" not in saved.name:
            saved.unlink()
    (tmp_path / "run" / "result.json").unlink()
    federated.resume(tmp_path / "run", task=Deadly, method=Descent(**options), workers=Fake(1, timeout=9.0))
    assert outcome(tmp_path / "run") == before
    assert not EVALUATED


@pytest.mark.slow
def test_a_client_that_hangs_in_truth_is_absent(tmp_path: Path) -> None:
    found = federated.federate(
        f"{toys.HERE}:Bowls",
        Descent(),
        task_options={"num_clients": 3, "wrong": ((1, "hangs"),)},
        rounds=1,
        workers=zoo.Processes(2, timeout=1.0, max_attempts=1),
        on_error="nan",
        rng=0,
    )
    assert (found.account["quarantined"], found.faults["absent"]) == (1, 1)
    assert found.clients["answered"].tolist() == [1, 0, 1]


def test_the_journal_has_each_part_of_each_trip(tmp_path: Path) -> None:
    noted(tmp_path / "run")
    found: dict[int, list[int]] = {}
    for record in read(tmp_path / "run" / "evaluations.bin"):
        found.setdefault(record.step, []).append(record.reply.start)
    assert sorted(found) == list(range(8))  # two trips a round
    assert all(sorted(set(parts)) == sorted(parts) for parts in found.values())
    assert max(map(max, found.values())) <= 6


def test_values_by_id_are_in_the_order_of_trips_and_clients(tmp_path: Path) -> None:
    EVALUATED.clear()
    found = noted(tmp_path / "run", workers=1, network=None)
    expected = [((np.frombuffer(x) - client / 10) ** 2).sum() for client, x in EVALUATED]
    assert values_by_id(tmp_path / "run" / "evaluations.bin", found.queries).tolist() == expected


@pytest.mark.gpu
def test_a_run_on_a_gpu_stays_there() -> None:
    options = {"like": ("torch", "float32", "cuda:0")}
    found = federated.federate(
        f"{toys.HERE}:Bowls", Descent(), task_options=options, rounds=3, rng=0, workers=1
    )
    assert (found.x.device.type, str(found.x.dtype)) == ("cuda", "torch.float32")
    assert found.state.direction.device.type == "cuda"
    assert found.value < found.history["value"][0]
    assert found.queries == 3 * 6 * 4


METHODS = ("fzoos", "fedzo", "fedprox", "scaffold-1", "scaffold-2", "fedavg", "decomfl", "fedkseed")


def test_all_methods_are_here() -> None:
    assert set(METHODS) == {method.name for method in methods._OWN}


def by_name(method: str, out: Path, workers: Any, **more: Any) -> None:
    network = {"participation": 0.8, "dropout": 0.3, "latency": 1.0, "jitter": 0.5, "duplicates": 0.2}
    federated.federate(
        "quadratic",
        method,
        task_options={"dim": 6, "num_clients": 5, "sigma": 1e-3},
        network=network,
        rounds=6,
        workers=workers,
        rng=0,
        out=out,
        **more,
    )


@pytest.mark.parametrize("method", METHODS)
def test_every_method_comes_to_the_same_bytes(tmp_path: Path, method: str) -> None:
    """On workers that die, stopped after three rounds and gone on with elsewhere."""

    def stop(one: federated.Round) -> None:
        if one.round == 3:
            raise StopIteration

    by_name(method, tmp_path / "alone", 1)
    faults = Faults(kill_before=(2, 9), kill_after=(5,), delay=0.2, duplicate=0.2)
    by_name(method, tmp_path / "run", Fake(3, seed=1, faults=faults), callback=stop)
    assert json.loads((tmp_path / "run" / "result.json").read_text())["nit"] == 3
    federated.resume(tmp_path / "run", workers=Fake(2, seed=2, faults=Faults(kill_before=(3,))))
    assert outcome(tmp_path / "run") == outcome(tmp_path / "alone")
