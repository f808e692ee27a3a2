"""Neuroevolution on workers that die, under drivers that are killed: the same generations, bit for bit."""

from __future__ import annotations

import functools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import evolution
import zoo
from evolution.deep_ga import DeepGA
from evolution.descendants import clear_cache
from evolution.environments.lookup import as_environment
from evolution.episodes import Episodic
from evolution.genome import Codec, SharedTable
from evolution.job import KEYFRAMED, EvolutionJob
from evolution.keyframes import Keyframes
from evolution.novelty_ga import NoveltyGA
from evolution.rollouts import episode_seed
from tests.distributed import evolving
from tests.distributed.evolving import RUNS
from tests.distributed.fake import Fake, Faults
from zoo.core.rng import Key, NoiseTable
from zoo.execution.executor import Serial
from zoo.run.digest import digest_of_run
from zoo.run.directory import read_events
from zoo.run.loop import run

ROOT = Path(__file__).parents[2]

all_runs = pytest.mark.parametrize("name", RUNS)


@functools.cache
def alone(name: str) -> list[tuple[str, ...]]:
    """Return the digests of a run's generations in one process to which nothing happens."""
    return evolving.generations(name)


@all_runs
def test_generations_differ(name: str) -> None:
    """Digests that were all the same would say nothing."""
    found = alone(name)
    assert len({whole for *_, whole in found}) == len(found) >= evolving.GENERATIONS
    archives = len({archive for _, _, archive, _ in found})
    assert archives == (evolving.GENERATIONS if "novelty" in name else 1)


@all_runs
@pytest.mark.parametrize("number", [1, 2, 3])
def test_any_number_of_workers_in_any_order(name: str, number: int) -> None:
    faults = Faults(kill_before=(4, 13), kill_after=(9,), kill_all=(17,), duplicate=0.2, cut=0.2, delay=0.1)
    assert evolving.generations(name, Fake(number, seed=number, faults=faults)) == alone(name)


@pytest.mark.parametrize("name", ["deep-ga, poles", "novelty-ga, maze"])
def test_workers_that_breed_themselves(name: str) -> None:
    assert evolving.generations(name, Fake(2, replicated=True)) == alone(name)


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("deep-ga, poles", 1),
        ("deep-ga, poles", 2),
        ("novelty-ga, maze", 3),
        ("normalized, poles", 2),
        ("openai-es, poles", 3),
    ],
)
def test_processes(name: str, number: int) -> None:
    assert evolving.generations(name, zoo.Processes(number)) == alone(name)


@pytest.mark.ray
@pytest.mark.parametrize("number", [1, 2, 3])
@pytest.mark.parametrize("name", ["deep-ga, poles", "novelty-ga, maze"])
def test_ray(cluster: Any, name: str, number: int) -> None:
    assert evolving.generations(name, zoo.Ray(number)) == alone(name)


class Kills(zoo.Watcher):
    """Kills a worker at the first results of some steps, when there are more to come."""

    def __init__(self, executor: Any, steps: tuple[int, ...]) -> None:
        self.executor, self.left, self.killed = executor, list(steps), 0

    def begin(self, run: Any) -> None:
        self._step = run.state.step

    def arrived(self, number: int) -> None:
        if self.left and self._step == self.left[0]:
            del self.left[0]
            os.kill(self.executor.pids()[0], signal.SIGKILL)
            self.killed += 1

    def step(self, state: Any, metrics: Any) -> None:
        self._step = state.step


def killed_three_times(name: str, executor: Any) -> None:
    kills = Kills(executor, (0, 2, 4))
    account: dict[str, Any] = {}

    class Ends(zoo.Watcher):
        def begin(self, run: Any) -> None:
            account["job"] = run.job

    assert evolving.generations(name, executor, callback=[kills, Ends()]) == alone(name)
    assert kills.killed == account["job"].account.restarts == 3
    assert not account["job"].account.quarantined


@pytest.mark.parametrize("name", ["deep-ga, maze", "novelty-ga, poles"])
def test_killed_workers_change_nothing(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(evolving.SLOW, "0.01")
    killed_three_times(name, zoo.Processes(2))


@pytest.mark.ray
@pytest.mark.parametrize("name", ["deep-ga, poles", "novelty-ga, maze"])
def test_killed_actors_change_nothing(cluster: Any, name: str) -> None:
    killed_three_times(name, zoo.Ray(2))


@pytest.mark.parametrize(("name", "workers"), [("deep-ga, poles", 2), ("novelty-ga, maze", 1)])
def test_a_killed_driver_loses_nothing(tmp_path: Path, name: str, workers: int) -> None:
    undisturbed = evolving.grown(name, out=tmp_path / "alone", generations=10)
    out = tmp_path / "run"
    process = subprocess.Popen(
        [sys.executable, ROOT / "tests" / "distributed" / "evolving.py", name, out, str(workers)],
        env={**os.environ, "PYTHONPATH": str(ROOT), evolving.SLOW: "0.02"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    until = time.monotonic() + 90
    while generations_in(out) < 5 and process.poll() is None:
        assert time.monotonic() < until
        time.sleep(0.01)
    assert process.poll() is None, process.stderr.read().decode()  # type: ignore[union-attr]
    process.kill()
    process.communicate()
    assert 5 <= generations_in(out) < 10
    resumed = evolution.resume(out, workers=3 - workers)
    assert digest_of_run(out) == digest_of_run(tmp_path / "alone")
    assert (out / "metrics.jsonl").read_bytes() == (tmp_path / "alone" / "metrics.jsonl").read_bytes()
    assert resumed.parameters.tobytes() == undisturbed.parameters.tobytes()
    assert (resumed.score, resumed.generations) == (undisturbed.score, 10)


def generations_in(out: Path) -> int:
    """Return how many generations a run's log has whole lines of."""
    path = out / "metrics.jsonl"
    return path.read_text().count('"retrial": 0') if path.exists() else 0


@pytest.mark.parametrize("method", ["deep-ga", "novelty-ga"])
def test_a_generation_of_a_thousand_large_networks_travels_in_200_kilobytes(method: str) -> None:
    """Also where every episode takes long enough for an answer of its own."""
    policy = evolving.Idle()
    codec = Codec(NoiseTable(123, 2**23), policy.pieces)
    kind = {"deep-ga": DeepGA, "novelty-ga": NoveltyGA}[method]
    objective = evolving.Undecoded(
        as_environment(f"{evolving.HERE}:Errand"),
        policy,
        behaviour="position" if method == "novelty-ga" else None,
        shared=SharedTable(codec.noise),
    )
    start = np.zeros(policy.dim, np.float32)
    job = EvolutionJob(
        Episodic(kind(codec, population_size=1000)), objective, Fake(2, seconds=0.3), start, key=Key(0)
    )
    per_step, before = [], 0

    def told(state: Any, report: Any) -> None:
        nonlocal before
        now = job.account.sent + job.account.received
        per_step.append(now - before)
        before = now
        if len(per_step) == 6:
            raise StopIteration

    run(job, callbacks=[told])
    first, *later = per_step
    assert first < 4 * 2**23 + 200_000  # with the table, once
    together = 2 if method == "deep-ga" else 1  # steps of a generation: it is tried, and its best again
    found = [sum(later[i : i + together]) for i in range(together - 1, len(later), together)]
    assert max(found) < 200_000
    assert policy.dim * 4 * 1000 / max(found) > 80_000  # times as much, if parameters travelled


def test_workers_are_busy_however_unequal_episodes_are() -> None:
    """Lengths from 1 to 50, in an order drawn: units are pulled as workers have time for them."""
    lengths = 1 + Key(0).integers(0, 1, 5 * 200, high=50)[0].reshape(5, 200)
    slow = {(step, unit): 0.01 * lengths[step, unit] for step in range(5) for unit in range(200)}
    policy = evolving.Idle(pieces=(evolving.Piece("weights", (4,), 0.1),))
    codec = Codec(NoiseTable(1, 2**12), policy.pieces)
    method = DeepGA(codec, population_size=200, elite_candidates=0)
    objective = evolving.Rollouts(as_environment(f"{evolving.HERE}:Errand"), policy)
    executor = Fake(2, faults=Faults(slow=slow))
    job = EvolutionJob(
        Episodic(method),
        objective,
        executor,
        np.zeros(4, np.float32),
        key=Key(0),
        generations=5,
        test_episodes=0,
    )
    began = []

    def told(state: Any, report: Any) -> None:
        began.append(executor.clock.now)

    run(job, callbacks=[told])
    assert min(job.account.busy) >= 0.9
    # A generation takes hardly longer than half of what it comes to: the longest episode is 0.5 s.
    taken = np.diff(began)
    assert (taken < 0.01 * lengths[1:].sum(1) / 2 * 1.1).all()


def test_a_straggling_episode_is_given_to_another_worker_and_never_cut_off() -> None:
    policy = evolving.Idle(pieces=(evolving.Piece("weights", (4,), 0.1),))
    codec = Codec(NoiseTable(1, 2**12), policy.pieces)
    objective = evolving.Rollouts(as_environment(f"{evolving.HERE}:Errand"), policy)
    outcomes = []
    for executor in (Serial(), Fake(2, faults=Faults(slow={(1, 57): 1000.0}))):
        method = DeepGA(codec, population_size=60, elite_candidates=0)
        start = np.zeros(4, np.float32)
        job = EvolutionJob(Episodic(method), objective, executor, start, key=Key(0), generations=3)
        outcomes.append(zoo.core.state.digest(run(job).state))
        speculated, lost = job.account.speculated, job.account.lost
    assert outcomes[0] == outcomes[1]
    assert speculated >= 1
    assert lost == 0
    assert executor.clock.now < 900  # type: ignore[attr-defined]


@pytest.mark.slow
def test_a_hanging_environment_costs_an_episode() -> None:
    key = Key(10).fold("evaluation")
    hangs = [[episode_seed(key, step, row) % 20 == 7 for row in range(20)] for step in range(2)]
    found = evolution.evolve(
        f"{evolving.HERE}:Hangs",
        options={"population_size": 20, "num_parents": 5, "sigma": 0.1, "elite_candidates": 0},
        common=False,
        generations=2,
        test_episodes=0,
        workers=zoo.Processes(2, timeout=6.0),  # so that a busy machine makes none of the others late
        rng=10,
    )
    assert found.num_failed == found.account["quarantined"] == np.sum(hangs) == 1
    assert found.account["restarts"] >= 1
    assert (found.generations, found.episodes, found.success) == (2, 40, True)
    assert np.isnan(found.state.values).tolist() == hangs[1]


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_networks_of_torch_are_computed_many_members_at_once(device: str) -> None:
    found = evolution.evolve(
        "cart-pole",
        policy=f"{evolving.HERE}:network",
        policy_options={"device": device},
        options={"population_size": 64, "num_parents": 10, "sigma": 0.3, "elite_candidates": 2},
        generations=2,
        test_episodes=3,
        workers=zoo.Processes(1, gpus_per_worker=1) if device == "cuda" else 1,
        rng=0,
    )
    assert found.policy.device == device
    assert found.policy.members >= 64
    assert (found.num_failed, found.generations) == (0, 2)
    assert np.isfinite(found.history["highest"]).all()
    assert np.isfinite(found.parameters).all()
    assert found.score > 9


@pytest.mark.gpu
@pytest.mark.ray
def test_networks_on_the_gpu_of_an_actor(cluster: Any) -> None:
    found = evolution.evolve(
        "cart-pole",
        policy=f"{evolving.HERE}:network",
        policy_options={"device": "cuda"},
        options={"population_size": 64, "num_parents": 10, "sigma": 0.3, "elite_candidates": 0},
        generations=2,
        test_episodes=3,
        workers=zoo.Ray(1, gpus_per_worker=1),
        rng=0,
    )
    assert (found.num_failed, np.isfinite(found.parameters).all()) == (0, True)


class Joins(zoo.Watcher):
    """Has the process forget all at `generation`, and counts what mutations it applies in the step after."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, generation: int) -> None:
        self.generation, self.chains, self.singles, self.roots = generation, 0, 0, 0
        self._counts = False
        originals = {name: getattr(Codec, name) for name in ("advance", "children", "root")}

        def advance(codec: Codec, out: Any, seeds: Any, sigmas: Any) -> None:
            self.chains += self._counts * len(seeds)
            originals["advance"](codec, out, seeds, sigmas)

        def children(codec: Codec, out: Any, parents: Any, seeds: Any, sigmas: Any) -> None:
            self.singles += self._counts * len(seeds)
            originals["children"](codec, out, parents, seeds, sigmas)

        def root(codec: Codec, out: Any, seed: int) -> None:
            self.roots += self._counts
            originals["root"](codec, out, seed)

        for method in (advance, children, root):
            monkeypatch.setattr(Codec, method.__name__, method)

    def step(self, state: Any, metrics: Any) -> None:
        self._counts = metrics["generation"] == self.generation
        if self._counts:
            clear_cache()


def long_run(out: Path | None, joins: Joins, **more: Any) -> evolution.Evolution:
    clear_cache()
    policy = evolving.Idle(pieces=(evolving.Piece("weights", (KEYFRAMED,), 0.01),))
    options = {"population_size": 24, "num_parents": 3, "elite_candidates": 0}
    return evolution.evolve(
        f"{evolving.HERE}:Errand",
        policy=policy,
        options=options,
        generations=61,
        test_episodes=0,
        out=out,
        rng=0,
        callback=joins,
        **more,
    )


def test_who_joins_late_decodes_from_a_keyframe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    joins = Joins(monkeypatch, 60)
    found = long_run(tmp_path / "run", joins)
    names = sorted(path.name for path in (tmp_path / "run" / "keyframes").iterdir())
    assert names == ["000025.safetensors", "000050.safetensors"]
    assert joins.roots == 0
    assert 0 < joins.chains + joins.singles <= 24 + 3 * 25
    without = Joins(monkeypatch, 60)
    plain = long_run(tmp_path / "plain", without, keyframe_every=0)
    assert not (tmp_path / "plain" / "keyframes").exists()
    assert without.roots > 0
    assert without.chains + without.singles >= 24 + 50 > joins.chains + joins.singles
    assert plain.parameters.tobytes() == found.parameters.tobytes()
    assert digest_of_run(tmp_path / "plain") == digest_of_run(tmp_path / "run")


def test_a_keyframe_that_cannot_be_written_costs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Keyframes, "write", write)
    joins = Joins(monkeypatch, 60)
    assert long_run(tmp_path / "run", joins).generations == 61
    assert joins.roots > 0
    events = [event for event in read_events(tmp_path / "run") if event["event"] == "keyframe not written"]
    assert len(events) == 2
    assert "No space left" in events[0]["message"]


def test_workers_find_keyframes_of_runs_without_a_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    joins = Joins(monkeypatch, 60)
    long_run(None, joins, workers=Fake(2))
    assert joins.roots == 0
    with pytest.raises(ValueError, match="`keyframe_every` must be"):
        long_run(None, joins, keyframe_every=-1)


GROWTH = """
import os
from evolution import evolve
from evolution.environments.cart_pole import CartPole
class Brief(CartPole):
    max_steps = 20
sizes = []
def look(step):
    sizes.append(int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGESIZE"))
options = {"population_size": 40, "num_parents": 5, "sigma": 0.3, "elite_candidates": 3, "elite_episodes": 2,
           "neighbours": 5, "archive_probability": 0.1}
evolve(Brief, "novelty-ga", options=options, generations=200, test_episodes=0, rng=0, callback=look)
print(len(sizes), sizes[-1] - sizes[2 * 20 - 1])
"""


def test_memory_is_flat_over_200_generations() -> None:
    done = subprocess.run(
        [sys.executable, "-c", GROWTH],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    steps, growth = map(int, done.stdout.split())
    assert steps == 2 * 200
    assert growth < 5e6
