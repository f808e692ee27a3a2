"""The server: it answers this machine alone, reads, and leads nowhere."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.zoo.serve.runs import finished, under_way
from zoo.serve import server as server_module
from zoo.serve.server import Server

ROOT = Path(__file__).parents[3]
SERVE = [sys.executable, "-c", "from zoo.cli import main; main()", "serve"]


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    folder = tmp_path_factory.mktemp("served")
    under_way(folder / "runs" / "one")
    (folder / "secret.json").write_text("{}")
    with Server([folder / "runs"], 0) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def ask(server, path, method="GET", body=None, **headers):
    with contextlib.closing(http.client.HTTPConnection(*server.server_address, timeout=30)) as connection:
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        return answer, answer.read()


PAGES = {
    "/": "text/html",
    "/?x=1": "text/html",
    "/page.css": "text/css",
    "/page.js": "text/javascript",
    "/plots.js": "text/javascript",
    "/api?since=": "application/json",
}
ELSEWHERE = (
    "/../secret.json",
    "/..%2fsecret.json",
    "/%2e%2e/secret.json",
    "//etc/passwd",
    "/etc/passwd",
    "/one",
    "/one/config.json",
    "/runs/one/metrics.jsonl",
    "/page.html",
    "/server.py",
    "/page.css/..",
    "/\\..\\secret.json",
    "http://127.0.0.1/../secret.json",
    "*",
    "/apix",
    "/api/../secret.json",
    "/plotly.js/..%00",
)
OTHER_NAMES = (
    "",
    "evil.example",
    "evil.example:8050",
    "127.0.0.1.evil.example",
    "localhost.evil.example",
    "localhost evil.example",
    "evil@localhost",
    "localhost:",
    "127.0.0.1:80:80",
    "0.0.0.0",
    "192.168.0.1",
    "[::2]",
)
QUESTIONS = (
    "",
    "since",
    "since=&since=a",
    "since=" + "9" * 3000,
    "runs=,,,:::",
    "runs=one:../../x",
    "runs=" + "a:1.2.3," * 400,
    "%ff=%00&runs=%ff",
    "&" * 9000,
)


@pytest.mark.parametrize(("path", "kind"), PAGES.items())
def test_pages(served, path, kind):
    answer, body = ask(served, path)
    assert answer.status == 200
    assert answer.headers["Content-Type"].startswith(kind)
    assert int(answer.headers["Content-Length"]) == len(body) > 0
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self';" in policy
    assert "http" not in policy
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert "Access-Control-Allow-Origin" not in answer.headers
    head, nothing = ask(served, path, "HEAD")
    assert (head.status, nothing) == (200, b"")


def test_plotly_is_that_of_the_package(served, monkeypatch):
    pytest.importorskip("plotly")
    answer, body = ask(served, "/plotly.js?7.0")
    assert answer.status == 200
    assert b"plotly.js v" in body[:200]
    monkeypatch.setattr(server_module, "plotly", lambda: None)
    assert ask(served, "/plotly.js")[0].status == 404
    assert json.loads(ask(served, "/api")[1])["plotly"] is None


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "MKCOL", "GETX"])
@pytest.mark.parametrize("path", ["/", "/api", "/nowhere"])
def test_there_is_nothing_to_write_to(served, method, path):
    answer, _ = ask(served, path, method, body=b"GET / HTTP/1.1\r\n\r\n")
    assert answer.status == 405
    assert answer.headers["Allow"] == "GET, HEAD"
    assert answer.headers["Connection"] == "close"


@pytest.mark.parametrize("path", ELSEWHERE)
def test_paths_lead_nowhere_else(served, path):
    assert ask(served, path)[0].status == 404


@pytest.mark.parametrize("host", OTHER_NAMES)
def test_other_names_of_this_machine_are_refused(served, host):
    assert ask(served, "/api", Host=host)[0].status == 403


@pytest.mark.parametrize("host", ["localhost", "localhost:1234", "127.0.0.1:8050", "[::1]:99"])
def test_own_names_are_not(served, host):
    # Whatever the port: it is another one where it is forwarded from another machine.
    assert ask(served, "/", Host=host)[0].status == 200


def test_no_name_is_refused(served):
    with socket.create_connection(served.server_address[:2], timeout=30) as connection:
        connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
        assert b" 403 " in connection.recv(1000)


@pytest.mark.parametrize("query", QUESTIONS)
def test_any_question_has_an_answer(served, query):
    answer, body = ask(served, f"/api?{query}")
    assert answer.status == 200
    assert len(json.loads(body)["runs"]) == 1


def test_nothing_new_is_a_short_answer_on_the_same_connection(served):
    with contextlib.closing(http.client.HTTPConnection(*served.server_address, timeout=30)) as connection:
        connection.request("GET", "/api")
        news = json.loads(connection.getresponse().read())
        for _ in range(3):
            connection.request("GET", f"/api?since={news['since']}")
            answer = connection.getresponse()
            assert (answer.status, answer.read()) == (204, b"")


def test_it_is_bound_to_this_machine(served):
    assert served.server_address[0] == "127.0.0.1"


def test_ports(monkeypatch):
    with Server([], 0) as first:
        port = first.server_address[1]
        with pytest.raises(ValueError, match=rf"port {port} cannot be used .*choose another one with --port"):
            Server([], port)
        monkeypatch.setattr(server_module, "PORT", port)
        with Server([]) as second:
            assert port < second.server_address[1] < port + 20
        monkeypatch.setattr(server_module, "_TRIED", 1)
        with pytest.raises(ValueError, match="is free; choose one"):
            Server([])
    with pytest.raises(ValueError, match="`port` must be between 0 and 65535, got 65536"):
        Server([], 65536)


def start(*arguments, cwd):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [*SERVE, *map(str, arguments)],
        cwd=cwd,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    line = process.stdout.readline()
    return process, re.search(r"http://127\.0\.0\.1:(\d+)/", line)


def test_the_command_serves_until_it_is_interrupted(tmp_path):
    finished(tmp_path / "run")
    before = sorted(tmp_path.rglob("*"))
    process, url = start(".", "later", "--port", "0", cwd=tmp_path)
    try:
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", int(url[1]))) as connection:
            connection.request("GET", "/api")
            news = json.loads(connection.getresponse().read())
            assert [run["status"] for run in news["runs"].values()] == ["finished"]
            process.send_signal(signal.SIGINT)  # while a page is connected
            out, err = process.communicate(timeout=30)
    finally:
        process.kill()
    assert (process.returncode, out) == (0, "")
    assert err == "zoo: there is no directory later yet; it is waited for.\n"
    assert sorted(tmp_path.rglob("*")) == before


def test_the_command_says_which_port_is_in_use(tmp_path):
    with Server([], 0) as other:
        done = subprocess.run(
            [*SERVE, "--port", str(other.server_address[1])],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert done.returncode == 2
    assert done.stdout == ""
    assert re.fullmatch(r"zoo: port \d+ cannot be used \(Address already in use\); choose .*\n", done.stderr)
