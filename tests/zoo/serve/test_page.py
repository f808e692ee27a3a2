"""The page in a real browser: it follows runs by itself, whatever happens to them, and does nothing else."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.browser import Browser, needs_chromium
from tests.zoo.serve.runs import age, event, finished, searching, step, under_way
from zoo.serve import folders as folders_module
from zoo.serve import overview as overview_module
from zoo.serve import server as server_module
from zoo.serve.server import Server

pytestmark = [needs_chromium, pytest.mark.slow]
pytest.importorskip("websockets")
pytest.importorskip("plotly")

ROOT = Path(__file__).parents[3]
DATA = "document.querySelector('#values .canvas')?.data"  # what plotly has drawn against evaluations
BEST = f"{DATA}?.at(-1).y.length"
HOSTILE = """</script><script>window.hacked=1</script><img src=x onerror="window.hacked=1">'"`&lt;<b>"""


@pytest.fixture(scope="module")
def browser():
    with Browser() as browser:
        yield browser


@pytest.fixture(autouse=True)
def at_short_intervals(monkeypatch):
    monkeypatch.setattr(overview_module, "INTERVAL", 0.2)
    monkeypatch.setattr(folders_module, "_INTERVAL", 0.2)


@contextlib.contextmanager
def serving(*directories, port=0):
    with Server(directories, port) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def opened(browser, tmp_path):
    """Return a function that opens the page of the folder `runs`."""
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(serving(tmp_path / "runs"))

        def opened(**arguments):
            page = browser.open(server.url, **arguments)
            stack.callback(page.close)
            return page

        yield opened


def status(page):
    return page.text("#list .status")


def has_status(name):
    return f"document.querySelector('#list .status')?.textContent === {name!r}"


SCRIPT = """
import sys, time, numpy, zoo

def loss(x):
    time.sleep(0.001 if sys.argv[1] == "begin" else 0)
    return float((x ** 2).sum())

if sys.argv[1] == "go on":
    zoo.resume(sys.argv[2], loss)
else:
    zoo.minimize(loss, numpy.ones(8), method="random", budget=64 * 600, rng=1, out=sys.argv[2])
"""


def start(what, path):
    (path.parents[1] / "script.py").write_text(SCRIPT)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen([sys.executable, "script.py", what, path], cwd=path.parents[1], env=environment)


def test_the_page_follows_a_run_that_is_killed_and_resumed(opened, tmp_path):
    path = tmp_path / "runs" / "first"
    page = opened()
    assert page.wait_for("document.querySelector('#empty').innerText").startswith("Waiting for runs in")
    run = start("begin", path)
    try:
        page.wait_for(has_status("running"))
        few = page.wait_for(BEST)
        page.wait_for(f"{BEST} > {few}")
        assert page.evaluate("document.title") == "1 running · Runs"
        many = page.wait_for(f"{BEST} > {few + 60} && {BEST}")
    finally:
        run.send_signal(signal.SIGKILL)
        run.wait()
    age(path, 600)  # nobody wants to wait until it is
    page.wait_for(has_status("stopped"))
    assert "zoo resume" in page.text(".card .note")
    run = start("go on", path)
    try:
        page.wait_for(has_status("running"))
        assert run.wait(60) == 0
    finally:
        run.kill()
    page.wait_for(has_status("finished"))
    steps = len((path / "metrics.jsonl").read_bytes().splitlines())
    assert steps > many
    page.wait_for(f"{BEST} === {steps}")
    assert page.evaluate(f"{DATA}.at(-1).x.every((x, i, all) => i === 0 || x > all[i - 1])")
    time_axis = "document.querySelectorAll('#values .canvas')[1].data.at(-1).x"
    page.wait_for(f"{time_axis}.length === {steps}")
    assert page.evaluate(f"{time_axis}.every((x, i, all) => i === 0 || x >= all[i - 1])")
    assert "resumed once" in page.text(".card dl")
    assert page.errors == []


def test_torn_lines_and_directories_that_vanish(opened, tmp_path):
    path = under_way(tmp_path / "runs" / "first", 5)
    page = opened()
    page.wait_for(f"{BEST} === 5")
    with open(path / "metrics.jsonl", "a") as file:
        file.write('{"step": 6, "nfev": 60, "be')
        file.flush()
        time.sleep(0.1)
        page.wait_for("document.querySelector('#list .best').textContent === '0.2'")
        file.write('st": 0.125}\n')
    page.wait_for(f"{BEST} === 6")
    page.wait_for("document.querySelector('#list .best').textContent === '0.125'")
    shutil.rmtree(path)
    page.wait_for(has_status("vanished"))
    assert "directory is gone" in page.text(".card .note")
    assert page.evaluate(BEST) == 6
    under_way(path, 3)
    page.wait_for(has_status("running"))
    page.wait_for(f"{BEST} === 3")
    assert page.errors == []


def test_names_and_messages_do_nothing(opened, tmp_path):
    name = HOSTILE.replace("/", "")
    path = under_way(
        tmp_path / "runs" / name,
        method=HOSTILE,
        objective={"name": HOSTILE},
        space=HOSTILE,
    )
    step(path, 4, **{HOSTILE: 1.0, "x": [HOSTILE, 1.0, {HOSTILE: 1}]})
    event(path, event=HOSTILE, message=HOSTILE)
    page = opened()
    page.wait_for(BEST)
    page.evaluate("document.querySelectorAll('details').forEach(element => { element.open = true; })")
    assert page.text("#list .name") == name
    for selector in ("#list .about", ".card .about", ".card .point", ".card .events"):
        assert HOSTILE in page.text(selector)
    titles = page.evaluate("[...document.querySelectorAll('.plot h3')].map(title => title.textContent)")
    assert HOSTILE.replace("_", " ") in titles
    # Also where plotly shows a name.
    hover = (
        "Plotly.Fx.hover(document.querySelector('#diagnostics .canvas'), [{curveNumber: 0, pointNumber: 1}])"
    )
    page.evaluate(f"{hover}, null")
    page.wait_for("document.querySelector('#diagnostics .hoverlayer').textContent.length > 5")
    assert (
        page.evaluate("document.querySelectorAll('main img, main script, main b:not(.events b)').length") == 0
    )
    assert page.evaluate("window.hacked") is None
    assert page.errors == []


def test_nothing_is_asked_of_another_machine(opened, tmp_path):
    finished(tmp_path / "runs" / "first")
    page = opened()
    page.wait_for(BEST)
    assert all(address.startswith(("http://127.0.0.1:", "data:")) for address in page.requests)
    assert any("plotly" in address for address in page.requests)


def test_what_is_no_number_is_a_gap(opened, tmp_path):
    path = under_way(tmp_path / "runs" / "first", 60)
    step(path, 61, value=None, best=None, sigma=None)
    step(path, 62, value=float("nan"), best=float("inf"), sigma=1.0)
    step(path, 63, value=None, sigma=None)
    step(path, *range(64, 70))
    page = opened()
    page.wait_for(BEST)
    trace = "document.querySelector('#diagnostics .canvas').data[0]"
    assert page.evaluate(f"{trace}.y.slice(59, 64)") == [1 / 60, None, 1.0, None, 1 / 64]
    assert page.evaluate(f"{trace}.connectgaps") is False
    # A point between two gaps has no line to be seen by.
    assert page.evaluate(f"{trace}.marker.size.slice(59, 64)") == [0, 0, 4, 0, 0]
    assert page.errors == []


def test_runs_are_compared_and_every_diagnostic_is_drawn(opened, tmp_path):
    for method, rng in (("cma", 1), ("cma", 2), ("de", 1)):
        finished(tmp_path / "runs" / f"{method}-{rng}", method=method, rng=rng, budget=200)
    page = opened()
    page.wait_for(BEST)
    boxes = "document.querySelectorAll('#list tbody input')"
    page.wait_for(f"{boxes}.length === 3")
    page.evaluate(f"{boxes}.forEach(box => box.checked || box.click())")
    page.wait_for(f"{DATA}.length === 3 && new Set({DATA}.map(trace => trace.line.color)).size === 3")
    titles = page.evaluate(
        "[...document.querySelectorAll('#diagnostics h3')].map(e => e.firstChild.textContent)"
    )
    assert {"sigma", "condition", "largest deviation", "population", "crossover"} <= set(titles)
    assert "failed" not in titles
    assert page.evaluate("location.hash.split(',').length") == 3
    page.click("#list .name")
    page.wait_for(f"{DATA}.length > 1 && {DATA}.at(-1).name === 'best so far'")
    page.click("#x [value=seconds]")
    page.click("#scale [value=linear]")
    page.wait_for("document.querySelector('#values .canvas').layout.yaxis.type === 'linear'")
    assert page.errors == []


def test_federations_are_shown_by_f_and_their_worst_client(opened, tmp_path):
    path = under_way(tmp_path / "runs" / "together", 0, kind="federated", method="fedzo", task="levy")
    for n in range(1, 4):
        numbers = {"value": 1 / n, "best": 1 / n, "worst": 2 / n, "median": 1 / n, "up": 80 * n}
        step(path, n, **numbers, **dict.fromkeys(("absent", "late", "hidden", "clock"), 0))
    page = opened()
    page.wait_for(f"{BEST} === 3")
    assert page.text("#values-heading") == "F"
    assert page.evaluate(f"{DATA}.map(trace => trace.name)") == ["worst client", "F", "best so far"]
    assert page.evaluate(f"{DATA}[0].y") == [2 / n for n in range(1, 4)]
    titles = "[...document.querySelectorAll('#diagnostics h3')].map(title => title.textContent)"
    assert page.evaluate(titles) == ["sigma", "up"]
    assert "levy" in page.text("#list tbody")
    # As soon as somebody does not answer, that is drawn.
    step(path, 4, value=0.2, best=0.2, worst=0.5, up=320, absent=1)
    page.wait_for(f"{BEST} === 4")
    assert page.evaluate(titles) == ["sigma", "up", "absent"]


def test_searches_for_policies_are_shown_by_their_scores(opened, tmp_path):
    searching(tmp_path / "runs" / "search", 9, dim=226)
    page = opened()
    page.wait_for(f"{BEST} === 9")
    assert page.text("#list .best") == "72"
    headings = "[...document.querySelectorAll('#list th')].map(cell => cell.textContent).slice(3, 5)"
    assert page.evaluate(headings) == ["Best score", "Episodes"]
    facts = "[...document.querySelectorAll('.card dt')].map(name => name.textContent).slice(0, 2)"
    assert page.evaluate(facts) == ["Best score", "Episodes"]
    titles = "[...document.querySelectorAll('#values h3')].map(title => title.textContent)"
    assert page.evaluate(titles) == ["Best score against episodes", "Best score against time"]
    assert page.text("#values-heading") == "Scores"
    assert page.text("#evaluations-axis") == "episodes"
    assert page.evaluate(f"{DATA}.map(trace => trace.name)") == [
        "median of a step",
        "highest of a step",
        "best so far",
    ]
    assert page.evaluate(f"{DATA}.at(-1).y") == [8.0 * n for n in range(1, 10)]
    # Scores are not drawn by logarithms unless somebody asks for that.
    step(tmp_path / "runs" / "search", 10, best=-1e4, value=-1e4, median=-2.0, elite=-1e4, frames=1000)
    page.wait_for(f"{BEST} === 10")
    layout = "document.querySelector('#values .canvas').layout"
    assert page.evaluate(f"{layout}.yaxis.type") == "linear"
    assert page.evaluate(f"{layout}.xaxis.title.text") == "episodes"
    elite = (
        "[...document.querySelectorAll('#diagnostics .canvas')].find(one => one.data?.[0].meta === 'elite')"
    )
    page.wait_for(f"{elite}.data[0].y.length === 10")
    assert page.evaluate(f"{elite}.layout.yaxis.type") == "linear"
    page.click("#scale [value=log]")
    page.wait_for(f"{layout}.yaxis.type === 'log'")
    page.click("#scale [value=auto]")
    # Beside a run of values, both are said.
    under_way(tmp_path / "runs" / "values")
    page.wait_for(
        "document.querySelectorAll('#list .name').length === 2 && "
        "document.querySelectorAll('#list tbody input:not(:checked)').length"
    )
    assert page.evaluate(headings) == ["Best score or value", "Episodes or evaluations"]
    page.click("#list tbody input:not(:checked)")
    page.wait_for(f"{DATA}.length === 2")
    assert page.evaluate(titles)[0] == "Best score or value against episodes or evaluations"
    assert (
        page.evaluate("[...document.querySelectorAll('.card dt')].map(name => name.textContent)").count(
            "Best value"
        )
        == 1
    )
    assert page.errors == []


@pytest.mark.parametrize("width", [1280, 400])
@pytest.mark.parametrize("dark", [False, True])
def test_nothing_sticks_out(opened, tmp_path, width, dark):
    long = "a-name-that-is-far-longer-than-anybody-would-wish-for-who-has-to-look-at-it-on-a-telephone"
    path = under_way(tmp_path / "runs" / long, 30)
    event(path, event="worker lost", worker=1, reason=long * 3)
    under_way(tmp_path / "runs" / "second", 3, method="de")
    page = opened(width=width)
    page.emulate(dark=dark)
    page.wait_for(BEST)
    page.evaluate("document.querySelectorAll('details').forEach(element => { element.open = true; })")
    assert page.screenshot(tmp_path / "page.png", width).stat().st_size > 10_000
    assert page.evaluate("document.documentElement.scrollWidth") == width
    ink, ground = (
        page.evaluate(f"getComputedStyle(document.body).{name}").strip("rgb()").split(",")
        for name in ("color", "backgroundColor")
    )
    assert (sum(map(int, ink)) > sum(map(int, ground))) == dark


def test_a_server_that_stopped_is_waited_for(browser, tmp_path):
    path = under_way(tmp_path / "runs" / "first")
    with serving(tmp_path / "runs") as server:
        port = server.server_address[1]
        page = browser.open(server.url)
        page.wait_for(f"{BEST} === 3")
    # Connections that are open are let go of with the server's process; here by a name that it does not know.
    page.wait_for("document.querySelector('#connection').dataset.state === 'live'")
    page.evaluate("window.kept = window.fetch; window.fetch = () => Promise.reject(new TypeError('refused'))")
    page.wait_for("document.querySelector('#connection').dataset.state === 'lost'")
    assert "the server stopped" in page.text("#connection")
    step(path, 4)
    with serving(tmp_path / "runs", port=port):
        page.evaluate("window.fetch = window.kept")
        page.wait_for("document.querySelector('#connection').dataset.state === 'live'")
        page.wait_for(f"{BEST} === 4")
        page.close()


def test_a_page_that_nobody_sees_asks_nothing(opened, tmp_path):
    path = under_way(tmp_path / "runs" / "first")
    page = opened()
    page.wait_for(f"{BEST} === 3")
    hide = "Object.defineProperty(document, 'hidden', {{value: {}, configurable: true}})"
    tell = "document.dispatchEvent(new Event('visibilitychange'))"
    page.evaluate(f"{hide.format('true')}, {tell}")
    assert page.text("#connection") == "paused"
    page.evaluate("new Promise(done => setTimeout(done, 500))")  # an answer may have been on its way
    asked = len(page.requests)
    step(path, 4)
    page.evaluate("new Promise(done => setTimeout(done, 800))")
    assert len(page.requests) == asked
    page.evaluate(f"{hide.format('false')}, {tell}")
    page.wait_for(f"{BEST} === 4")
    assert page.text("#connection") == "live"


def test_without_plotly_there_is_all_but_plots(opened, tmp_path, monkeypatch):
    monkeypatch.setattr(server_module, "plotly", lambda: None)
    under_way(tmp_path / "runs" / "first")
    page = opened()
    page.wait_for("document.querySelector('.card dl').children.length > 2")
    assert "pip install 'gradfree[serve]'" in page.text("#no-plots")
    assert page.evaluate("document.querySelector('#plots').hidden")
    assert page.errors == []
