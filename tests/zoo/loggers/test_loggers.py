"""What loggers write, read back as the tools themselves read it."""

from __future__ import annotations

import csv
import json
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import evolution
import zoo
from zoo.loggers.base import identity
from zoo.run import loop
from zoo.run.digest import digest_of_run

ALL = ["csv", "tensorboard", "mlflow", "wandb"]
DIM, BUDGET = 3, 60


@pytest.fixture(autouse=True)
def away(monkeypatch, tmp_path):
    """Keep what W&B writes besides out of the home directory."""
    monkeypatch.setenv("WANDB_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "config"))
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.delenv("MLFLOW_ALLOW_FILE_STORE", raising=False)


def uneven(x):
    """Fails at times."""
    return float("nan") if x[0] > 0.9 else float((x**2).sum())


def minimise(out, *callbacks, **more):
    arguments = {"method": "cma", "scale": 0.5, "budget": BUDGET, "rng": 1, "out": out, **more}
    return zoo.minimize(uneven, np.ones(DIM), **arguments, callback=list(callbacks))


def made(name, path):
    return zoo.loggers.make(name, path / "steps.csv" if name == "csv" else path)


def expected(out):
    """Return the finite numbers of `metrics.jsonl`, by their names and the evaluations made."""
    found = {}
    for line in map(json.loads, (out / "metrics.jsonl").read_text().splitlines()):
        numbers = {name: value for name, value in line.items() if name != "x" and value is not None}
        numbers |= {f"x.{i}": value for i, value in enumerate(line.get("x", ()))}
        found |= {(name, line["nfev"]): value for name, value in numbers.items() if name != "nfev"}
    return found


def read(name, path, run):
    """Return (numbers, configuration, result) of the one run that there is."""
    return {"csv": read_csv, "tensorboard": read_events, "mlflow": read_mlflow, "wandb": read_wandb}[name](
        path, run
    )


def read_csv(path, run):
    with open(path / "steps.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    by = list(rows[0])[1]  # how evaluations are counted
    numbers = [(n, int(row[by]), float(v)) for row in rows for n, v in row.items() if v and n != by]
    found = {(n, nfev): v for n, nfev, v in numbers}
    assert len(found) == len(numbers)
    return found, None, None


def read_events(path, run):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    events = EventAccumulator(str(path / run.name), {"scalars": 0, "histograms": 0, "tensors": 0}).Reload()
    numbers = [
        (tag, event.step, event.value) for tag in events.Tags()["scalars"] for event in events.Scalars(tag)
    ]
    found = {(tag, step): value for tag, step, value in numbers}
    assert len(found) == len(numbers)
    for tag in events.Tags()["scalars"]:
        clock = [event.wall_time for event in events.Scalars(tag)]
        assert clock == sorted(clock)
    metadata = events.SummaryMetadata("_hparams_/session_start_info")
    start = HParamsPluginData.FromString(metadata.plugin_data.content).session_start_info
    config = {name: getattr(value, value.WhichOneof("kind")) for name, value in start.hparams.items()}
    result = {tag[7:]: found.pop((tag, step)) for tag, step in list(found) if tag.startswith("result/")}
    return found, config, result


def read_mlflow(path, run):
    from mlflow import MlflowClient

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
        client = MlflowClient(tracking_uri=path.as_uri())
    (there,) = client.search_runs([client.get_experiment_by_name("gradfree").experiment_id])
    assert there.info.run_name == run.name
    metrics = {name: client.get_metric_history(there.info.run_id, name) for name in there.data.metrics}
    numbers = [(name, metric.step, metric.value) for name, history in metrics.items() for metric in history]
    found = {(name, step): value for name, step, value in numbers}
    assert len(found) == len(numbers)
    result = {name[7:]: found.pop((name, step)) for name, step in list(found) if name.startswith("result.")}
    return found, {**there.data.params, "status": there.info.status}, result


def read_wandb(path, run):
    """Read the newest offline run: blocks of 32 KiB of pieces of protocol buffers."""
    import wandb
    from wandb.proto.wandb_internal_pb2 import Record

    wandb.teardown()  # its service may still have something to write
    file = max((path / "wandb").glob("offline-run-*/run-*.wandb"), key=lambda file: file.stat().st_mtime_ns)
    data, at, pieces, records = file.read_bytes(), 7, b"", []
    while at + 7 <= len(data):
        if (left := 32768 - at % 32768) < 7:
            at += left
            continue
        _, length, kind = struct.unpack_from("<IHB", data, at)
        pieces += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last piece
            records.append(Record.FromString(pieces))
            pieces = b""
    found, config, result = {}, {}, {}
    for record in records:
        which = record.WhichOneof("record_type")
        if which == "run":
            assert record.run.run_id == identity(run)
            config |= {item.key: json.loads(item.value_json) for item in record.run.config.update}
        elif which == "history":
            items = {
                ".".join(item.nested_key) or item.key: json.loads(item.value_json)
                for item in record.history.item
            }
            by = "nfev" if "nfev" in items else "episodes"
            numbers = {n: v for n, v in items.items() if not n.startswith("_") and n != by}
            assert not {(n, items[by]) for n in numbers} & found.keys()
            found |= {(n, items[by]): v for n, v in numbers.items()}
        elif which == "summary":
            items = {".".join(item.nested_key) or item.key: item.value_json for item in record.summary.update}
            result |= {n[7:]: json.loads(v) for n, v in items.items() if n.startswith("result/")}
    return found, config, result


@pytest.mark.parametrize("name", ALL)
def test_live_replayed_and_resumed_are_the_same(name, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", -1.0)
    run = tmp_path / "run"
    result = minimise(run, made(name, tmp_path / "live"))
    minimise(tmp_path / "unwatched")
    assert digest_of_run(run) == digest_of_run(tmp_path / "unwatched")
    numbers, config, outcome = read(name, tmp_path / "live", run)
    close = 1e-6 if name == "tensorboard" else 0  # which has single precision
    assert numbers == pytest.approx(expected(run), rel=close, abs=0)
    assert {n for n, _ in numbers} > {"step", "best", "value", "failed", "sigma", "x.0", "x.2"}
    if name != "csv":
        assert (config["method"], int(config["budget"])) == ("cma", BUDGET)
        assert outcome["fun"] == pytest.approx(result.fun, rel=1e-6)
        assert outcome["nfev"] == result.nfev
        assert outcome["nit"] == result.nit

    made(name, tmp_path / "replayed").replay(run)
    assert read(name, tmp_path / "replayed", run) == (numbers, config, outcome)

    # Killed two steps after its last checkpoint, of which the tool knows more than the run that goes on.
    steps = []

    def dies(x):
        steps.append(x)
        if len(steps) == 3:
            shutil.copytree(tmp_path / "other" / "run", tmp_path / "again" / "run")
        if len(steps) == 5:
            raise KeyError

    with pytest.raises(KeyError):
        minimise(tmp_path / "other" / "run", made(name, tmp_path / "resumed"), dies)
    again = tmp_path / "again" / "run"
    zoo.resume(again, uneven, callback=made(name, tmp_path / "resumed"))
    there, parameters, ending = read(name, tmp_path / "resumed", again)
    assert there == numbers
    assert (parameters, ending) == (config, outcome)


LINES = (
    '{"step": 1, "nfev": 4, "best": null, "value": null, "failed": 4}\n'
    '{"step": 2, "nfev": 8, "best": 1e300, "value": 0.1, "failed": 4, "note": "a, \\"b\\"", "new": 3}\n'
    "damaged\n"
    '{"step": 3, "nfev": 12, "best": 0.5, "spread": [[1.0, 2.0], [null, 6.0]], "none": [], "new": true}\n'
    '{"step": 4, "nfev": 16, "be'
)


@pytest.fixture(scope="module")
def odd(tmp_path_factory):
    """A run whose log has what logs seldom have, and that is still under way."""
    run = tmp_path_factory.mktemp("runs") / "odd"
    minimise(run, budget=8)
    (run / "metrics.jsonl").write_text(LINES)
    (run / "result.json").unlink()
    (run / "meta.json").unlink()
    return run


def test_csv_of_odd_lines(odd, tmp_path):
    made("csv", tmp_path).replay(odd)
    assert (tmp_path / "steps.csv").read_text() == (
        "step,nfev,best,value,failed,x.0,x.1,x.2,note,new,spread,none\n"
        "1,4,,,4,,,,,,,\n"
        '2,8,1e+300,0.1,4,,,,"a, ""b""",3,,\n'
        '3,12,0.5,,,,,,,true,"[[1.0, 2.0], [null, 6.0]]",[]\n'
    )


def test_tensorboard_of_odd_lines(odd, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.util.tensor_util import make_ndarray

    made("tensorboard", tmp_path).replay(odd)
    numbers, _, result = read("tensorboard", tmp_path, odd)
    assert ("best", 8) not in numbers  # too large for single precision
    assert {key for key in numbers if key[0] in ("best", "new")} == {("best", 12), ("new", 8), ("new", 12)}
    assert result == {}
    (histogram,) = EventAccumulator(str(tmp_path / "odd")).Reload().Tensors("spread")
    assert make_ndarray(histogram.tensor_proto)[:, 2].sum() == 3


def test_mlflow_of_odd_lines_and_exported_twice(odd, tmp_path):
    for _ in range(2):
        made("mlflow", tmp_path).replay(odd)
        numbers, config, _ = read("mlflow", tmp_path, odd)
        assert [numbers[f"spread.{what}", 12] for what in ("min", "mean", "max")] == [1.0, 3.0, 6.0]
        assert numbers["best", 8] == 1e300
        assert config["status"] == "KILLED"


def test_wandb_of_odd_lines(odd, tmp_path):
    made("wandb", tmp_path).replay(odd)
    numbers, _, _ = read("wandb", tmp_path, odd)
    assert numbers["best", 8] == 1e300
    assert sum(numbers["spread.values", 12]) == 3


def test_points_of_a_space_by_their_names(tmp_path):
    space = zoo.Space({"rate": zoo.Float(1e-3, 1.0, log=True), "kernel": zoo.Categorical(["a", "b"])})
    log = zoo.loggers.CSV(tmp_path / "steps.csv")
    result = zoo.minimize(
        lambda x: x["rate"] + (x["kernel"] == "a"), space=space, budget=40, rng=1, callback=log
    )
    with open(tmp_path / "steps.csv", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["x.rate"]]
    assert float(rows[-1]["x.rate"]) == result.x_best["rate"]
    assert rows[-1]["x.kernel"] == result.x_best["kernel"] == "b"


def test_a_name_that_is_no_text(tmp_path):
    try:
        minimise(tmp_path / "run\udcff")
    except OSError as error:
        pytest.skip(f"this file system has no such names: {error}")
    for name in ("tensorboard", "mlflow"):
        made(name, tmp_path / name).replay(tmp_path / "run\udcff")
        assert read(name, tmp_path / name, Path("run?"))[2]["nfev"] == BUDGET


def test_another_run_of_that_name_is_another_one(tmp_path):
    """As the directory was removed and made anew: nothing of the run before is left to be seen."""
    minimise(tmp_path / "run", made("tensorboard", tmp_path), made("mlflow", tmp_path / "mlruns"))
    shutil.rmtree(tmp_path / "run")
    minimise(tmp_path / "run", made("tensorboard", tmp_path), made("mlflow", tmp_path / "mlruns"), budget=20)
    numbers, _, _ = read("tensorboard", tmp_path, tmp_path / "run")
    assert max(nfev for _, nfev in numbers) <= 20
    with pytest.raises(ValueError, match="too many values"):
        read("mlflow", tmp_path / "mlruns", tmp_path / "run")


@pytest.mark.parametrize("name", ALL)
def test_runs_of_policies_are_logged_by_their_scores(name, tmp_path):
    options = {"population_size": 6, "num_parents": 2, "elite_candidates": 2, "elite_episodes": 3}
    given = {"generations": 3, "test_episodes": 4, "rng": 0, "noise_table": 5000, "out": tmp_path / "run"}
    live = made(name, tmp_path / "live")
    done = evolution.evolve("cart-pole", options=options, **given, callback=live)
    numbers, _, outcome = read(name, tmp_path / "live", tmp_path / "run")
    made(name, tmp_path / "after").replay(tmp_path / "run")
    replayed = read(name, tmp_path / "after", tmp_path / "run")
    assert (replayed[0], replayed[2]) == (numbers, outcome)
    assert {"nfev", "value", "fun"}.isdisjoint(what for what, _ in numbers)
    for step, episodes in enumerate(done.history["episodes"].astype(int).tolist()):
        for column in ("highest", "median", "best"):
            score = done.history[column][step]
            assert numbers.get((column, episodes), np.nan) == pytest.approx(score, nan_ok=True)
    assert numbers["elite", done.episodes] == pytest.approx(done.best)
    if outcome is not None:
        assert outcome["score"] == pytest.approx(done.score)
        assert outcome["episodes"] == done.episodes + 4
    if name == "csv":  # it may be written anew, as any other
        made(name, tmp_path / "after").replay(tmp_path / "run")
        assert (tmp_path / "after" / "steps.csv").read_bytes() == (
            tmp_path / "live" / "steps.csv"
        ).read_bytes()


def test_a_file_that_is_no_log_is_left_alone(tmp_path):
    path = tmp_path / "data.csv"
    path.write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match="`path` must not hold anything but a log of steps"):
        zoo.loggers.CSV(path)
    assert path.read_text() == "a,b\n1,2\n"


@pytest.mark.parametrize("name", ALL[1:])
def test_what_is_missing_is_named(name, tmp_path, monkeypatch):
    for module in [module for module in sys.modules if module.split(".")[0] == name]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=rf'pip install "gradfree\[{name}\]"'):
        made(name, tmp_path)


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match=r"`name` must be one of .*Did you mean 'tensorboard'"):
        zoo.loggers.make("tensorbord", ".")
    with pytest.raises(AttributeError, match="no attribute 'Tensorboard'"):
        _ = zoo.loggers.Tensorboard


def test_no_tool_is_imported_before_it_is_used():
    code = """
import sys, zoo
zoo.loggers.CSV, zoo.loggers.TensorBoard, zoo.loggers.MLflow, zoo.loggers.WandB
print(sorted({"tensorboard", "mlflow", "wandb", "torch"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "[]", done.stderr


def test_the_command(tmp_path, monkeypatch, capsys):
    from zoo.cli import main

    def zoo_export(*arguments):
        monkeypatch.setattr(sys, "argv", ["zoo", "export", *map(str, arguments)])
        with pytest.raises(SystemExit) as exit_:
            main()
        monkeypatch.undo()
        return exit_.value.code, *capsys.readouterr()

    live = tmp_path / "steps.csv"
    minimise(tmp_path / "run", zoo.loggers.CSV(live))
    assert zoo_export(tmp_path / "run") == (0, live.read_text(), "")
    assert zoo_export(tmp_path / "run", "--out", tmp_path / "a.csv")[0] == 0
    assert (tmp_path / "a.csv").read_text() == live.read_text()
    code, out, error = zoo_export(tmp_path / "run", "--to", "tensorboard", "--out", tmp_path / "logs")
    assert (code, out) == (0, "")
    assert str(tmp_path / "logs") in error
    assert list(Path(tmp_path / "logs" / "run").glob("events.out.tfevents.*"))
    code, out, error = zoo_export(tmp_path / "run", "--to", "tensorbord")
    assert (code, out) == (2, "")
    assert "`--to` must be one of" in error
    code, out, error = zoo_export(tmp_path / "nothing")
    assert (code, out) == (2, "")
    assert "there is no directory" in error
