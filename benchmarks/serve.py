"""What the live page costs: CPU of `zoo serve` while a run writes its logs, beside the core that the run has.

The run does cheap steps, thousands of them a second, for a minute, and a page looks on: it asks as often as
the page in a browser does, for the list of runs and the curves of this one. The process is counted whole,
with its start. Beside other work the run gets less than a core; that is what it would have had alone.

    python benchmarks/serve.py
"""

import os

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")

import http.client
import json
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from urllib.parse import quote, urlsplit

SECONDS, GOAL = 60, 0.01
TICK = os.sysconf("SC_CLK_TCK")
RUN = """
import sys, numpy, zoo
zoo.minimize("zoo.problems:sphere", numpy.ones(5), method=sys.argv[1], budget=10**9, rng=0, out=sys.argv[2],
             seconds=float(sys.argv[3]))
"""


def cpu_seconds(process: subprocess.Popen[str]) -> float:
    """Return the CPU time of a process so far."""
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK


class Page:
    """Asks as the page does: for what is new since the answer before, over one connection."""

    def __init__(self, url: str) -> None:
        self._connection = http.client.HTTPConnection(urlsplit(url).netloc)
        self._since, self._interval, self._cursors = "", 0.0, {}
        self.received = 0

    def ask(self) -> float:
        """Ask once, and return after how many seconds to ask again."""
        runs = ",".join(f"{key}:{cursor}" for key, cursor in self._cursors.items())
        self._connection.request("GET", f"/api?since={quote(self._since)}&runs={quote(runs)}")
        answer = self._connection.getresponse()
        data = answer.read()
        self.received += len(data)
        if answer.status == 204:
            return self._interval
        news = json.loads(data)
        self._since, self._interval = news["since"], news["interval"]
        for key in news["runs"]:
            self._cursors.setdefault(key, "")
        for key, detail in news["details"].items():
            self._cursors[key] = detail["cursor"]
        return 0.05 if news["more"] else self._interval


def measure(method: str) -> dict[str, object]:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        run = subprocess.Popen([sys.executable, "-c", RUN, method, str(out), str(SECONDS)], text=True)
        server = subprocess.Popen(
            [sys.executable, "-m", "zoo", "serve", folder, "--port", "0"], stdout=subprocess.PIPE, text=True
        )
        url = next(word for word in str(server.stdout.readline()).split() if word.startswith("http"))
        start, began = cpu_seconds(server), time.monotonic()
        page, questions = Page(url), 0
        while run.poll() is None:
            delay = page.ask()
            questions += 1
            time.sleep(delay)
            if run.poll() is None:
                elapsed = time.monotonic() - began
                spent, served = cpu_seconds(run), cpu_seconds(server)
        steps = (out / "metrics.jsonl").read_bytes().count(b"\n")
        server.send_signal(signal.SIGINT)
        server.wait()
    return {
        "name": f"serve: share of a run's CPU, {method}",
        "ours": round(served / elapsed, 4),
        "goal": GOAL,
        "ok": served <= GOAL * elapsed,
        "seconds": round(elapsed, 2),
        "run_seconds": round(spent, 2),
        "serve_seconds": round(served, 2),
        "start_seconds": round(start, 2),
        "steps": steps,
        "questions": questions,
        "megabytes": round(page.received / 1e6, 2),
    }


def main() -> int:
    ok = True
    for method in ("random", "openai-es"):
        row = measure(method)
        ok &= bool(row["ok"])
        sys.stdout.write(json.dumps(row) + "\n")
        sys.stdout.flush()
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
