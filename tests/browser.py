"""A headless Chromium for tests of pages, driven through its DevTools protocol.

Tests that use it are marked `needs_chromium`, and a module shares one browser:

    pytestmark = needs_chromium

    @pytest.fixture(scope="module")
    def browser():
        with Browser() as browser:
            yield browser

    def test_page(browser, tmp_path):
        page = browser.open("http://127.0.0.1:8050/")
        page.wait_for("document.querySelector('h1')")
        assert page.evaluate("document.title") == "Runs"
        page.screenshot(tmp_path / "narrow.png", width=400)
        assert page.errors == []
"""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium")
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")

_FLAGS = (
    "--headless=new",
    "--no-sandbox",  # which needs rights that containers do not have
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-extensions",
    "--hide-scrollbars",
    "--no-first-run",
    "--remote-debugging-port=0",
    # Nothing but this machine can be reached: a page that asks for more has an error to show.
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)


class Browser:
    """A browser process; use it as a context manager."""

    def __enter__(self) -> Browser:
        from websockets.sync.client import connect

        with contextlib.ExitStack() as stack:
            folder = stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True))
            self._process = subprocess.Popen(
                [str(CHROMIUM), *_FLAGS, f"--user-data-dir={folder}", "about:blank"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            stack.callback(self._end)
            port, path = _address(Path(folder) / "DevToolsActivePort", self._process)
            # Pings would draw from the global generator of Python.
            self._socket = stack.enter_context(
                connect(f"ws://127.0.0.1:{port}{path}", max_size=None, compression=None, ping_interval=None)
            )
            self._numbers = itertools.count(1)
            self._pages: dict[str, Page] = {}
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def open(self, url: str, width: int = 1280, height: int = 900) -> Page:
        """Open a page in a tab of its own and wait until it is loaded."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        page = self._pages[session] = Page(self, session, target)
        for domain in ("Page", "Runtime", "Log", "Network"):
            page.call(f"{domain}.enable")
        page.resize(width, height)
        page.go(url)
        return page

    def call(self, method: str, session: str | None = None, **parameters: Any) -> dict[str, Any]:
        """Send a command of the protocol and return its answer; events on the way go to their pages."""
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": parameters}
        self._socket.send(json.dumps(message if session is None else {**message, "sessionId": session}))
        while True:
            answer: dict[str, Any] = json.loads(self._socket.recv(timeout=60))
            if answer.get("id") == number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']['message']}")
                result: dict[str, Any] = answer["result"]
                return result
            page = self._pages.get(answer.get("sessionId", ""))
            if page is not None:
                page.happened(answer.get("method", ""), answer.get("params", {}))

    def _end(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class Page:
    """A tab.

    Attributes:
        errors: What the console has as errors: exceptions, refused or failed requests, `console.error`.
        requests: Addresses of everything that was asked for.
    """

    def __init__(self, browser: Browser, session: str, target: str) -> None:
        self._browser, self._session, self._target = browser, session, target
        self.errors: list[str] = []
        self.requests: list[str] = []

    def go(self, url: str) -> None:
        """Go to an address and wait until it is loaded."""
        # Another document, even where the address is the present one.
        self.evaluate("window.stale = true")
        self.call("Page.navigate", url=url)
        self.wait_for("!window.stale && document.readyState === 'complete'")

    def evaluate(self, expression: str) -> Any:
        """Return what a JavaScript expression, or the promise it gives, comes to."""
        answer = self.call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True, userGesture=True
        )
        if "exceptionDetails" in answer:
            raise RuntimeError(f"{expression}: {_description(answer['exceptionDetails'])}")
        return answer["result"].get("value")

    def wait_for(self, expression: str, seconds: float = 30.0) -> Any:
        """Return the first value of an expression that is true in JavaScript; asked again and again."""
        until, last = time.monotonic() + seconds, "nothing"
        while time.monotonic() < until:
            try:
                found = self.evaluate(
                    f"(async () => {{ const found = await ({expression}); "
                    "return [Boolean(found), found instanceof Node ? found.nodeName : found]; })()"
                )
                if found[0]:
                    return found[1]
                last = repr(found[1])
            except RuntimeError as error:  # the document is being replaced, or has not got there
                last = str(error)
            time.sleep(0.05)
        raise TimeoutError(f"{expression} did not come true in {seconds:g} s: {last}. Console: {self.errors}")

    def text(self, selector: str = "body") -> str:
        """Return the text that is shown inside of an element."""
        return str(self.evaluate(f"document.querySelector({json.dumps(selector)}).innerText"))

    def click(self, selector: str) -> None:
        """Click on an element."""
        self.evaluate(f"document.querySelector({json.dumps(selector)}).click()")

    def resize(self, width: int, height: int = 900) -> None:
        """Give the window another size."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )

    def emulate(self, *, dark: bool = False, printed: bool = False) -> None:
        """Prefer dark colours, or be printed."""
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", media="print" if printed else "", features=[scheme])

    def screenshot(self, path: Path, width: int, height: int | None = None) -> Path:
        """Write a picture of the window, or of the whole page if `height` is None."""
        self.resize(width, height or 900)
        self._settle()
        if height is None:
            self.resize(width, max(200, int(self.evaluate("document.documentElement.scrollHeight"))))
            self._settle()
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))
        return path

    def close(self) -> None:
        """Close the tab."""
        self._browser.call("Target.closeTarget", targetId=self._target)

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command of the protocol for this tab."""
        return self._browser.call(method, self._session, **parameters)

    def happened(self, event: str, parameters: dict[str, Any]) -> None:
        """Take note of an event."""
        if event == "Runtime.exceptionThrown":
            self.errors.append(_description(parameters["exceptionDetails"]))
        elif event == "Runtime.consoleAPICalled" and parameters["type"] in ("error", "assert"):
            self.errors.append(" ".join(_spoken(argument) for argument in parameters["args"]))
        elif event == "Log.entryAdded" and parameters["entry"]["level"] == "error":
            entry = parameters["entry"]
            self.errors.append(f"{entry['text']} {entry.get('url', '')}".strip())
        elif event == "Network.requestWillBeSent":
            self.requests.append(parameters["request"]["url"])

    def _settle(self) -> None:
        """Wait until what a change of size set off is drawn."""
        frames = "requestAnimationFrame(() => requestAnimationFrame(done))"
        self.evaluate(f"new Promise(done => {frames}).then(() => new Promise(done => setTimeout(done, 250)))")


def _address(file: Path, process: subprocess.Popen[bytes]) -> list[str]:
    until = time.monotonic() + 60
    while time.monotonic() < until and process.poll() is None:
        with contextlib.suppress(FileNotFoundError):
            lines = file.read_text().splitlines()
            if len(lines) == 2:
                return lines
        time.sleep(0.05)
    raise RuntimeError(f"chromium did not start (exit status {process.poll()})")


def _description(details: dict[str, Any]) -> str:
    return str(details.get("exception", {}).get("description") or details.get("text"))


def _spoken(argument: dict[str, Any]) -> str:
    return str(argument.get("value", argument.get("description", argument.get("type"))))
