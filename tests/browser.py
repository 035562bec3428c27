"""Headless Chromium over its debugging pipe: open a page, ask it things, hear its requests and its errors."""

from __future__ import annotations

import json
import os
import selectors
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
# Without a sandbox, because containers often have no right to make one; and nothing that asks for a network.
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--no-default-browser-check",
    "--remote-debugging-pipe",
)
# The browser reads commands from file 3 and writes answers to file 4.
_LAUNCH = (
    "import os, sys; os.dup2(int(sys.argv[1]), 3); os.dup2(int(sys.argv[2]), 4); os.execv(sys.argv[3], sys.argv[3:])"
)


def find_chromium() -> str | None:
    """Its path: what the variable CHROMIUM names, or the first that is installed."""
    return os.environ.get("CHROMIUM") or next((found for name in NAMES if (found := shutil.which(name))), None)


class Browser:
    """One tab.

    Args:
        profile: An empty folder for the browser's own files.
    """

    def __init__(self, profile: Path, *, width: int = 1300, height: int = 900) -> None:
        chromium = find_chromium()
        assert chromium is not None, "ask find_chromium first"
        to_browser, self._write = os.pipe()
        self._read, from_browser = os.pipe()
        command = [sys.executable, "-c", _LAUNCH, str(to_browser), str(from_browser), chromium, *FLAGS]
        command += [f"--user-data-dir={profile}", f"--window-size={width},{height}", "about:blank"]
        self._process = subprocess.Popen(
            command, pass_fds=(to_browser, from_browser), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        os.close(to_browser)
        os.close(from_browser)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._read, selectors.EVENT_READ)
        self._buffer = b""
        self._number = 0
        self._session: str | None = None
        self.requests: list[str] = []  # addresses that pages asked for
        self.errors: list[str] = []  # what stands in the console as warning or error, and what was thrown
        self._events: list[dict[str, Any]] = []
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self._call(f"{domain}.enable")

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._write)  # a browser that loses its pipe ends
        try:
            self._process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._selector.close()
        os.close(self._read)

    def open(self, address: str, *, timeout_s: float = 60) -> None:
        """Go to a page and wait until it has loaded."""
        self._events.clear()
        answer = self._call("Page.navigate", url=address)
        assert "errorText" not in answer, answer["errorText"]
        if "loaderId" not in answer:  # only what stands behind the # is another: nothing is loaded
            return
        self._until(lambda: any(event["method"] == "Page.loadEventFired" for event in self._events), timeout_s, "load")

    def ask(self, expression: str) -> Any:
        """The value of a JavaScript expression, which may be a promise."""
        answer = self._call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def wait(self, expression: str, *, timeout_s: float = 60) -> Any:
        """Ask again and again until the answer is true in JavaScript's sense, and give it (True for an element)."""
        deadline = time.monotonic() + timeout_s
        plain = f"(answer => answer instanceof Node ? true : answer)({expression})"
        while not (answer := self.ask(plain)):
            assert time.monotonic() < deadline, f"not within {timeout_s:.0f} s: {expression}"
            time.sleep(0.1)
        return answer

    def move_to(self, x: float, y: float) -> None:
        """Bring the pointer to a place in the window, in px, as a hand does: in more than one step."""
        for share in (0.9, 1.0):
            self._call("Input.dispatchMouseEvent", type="mouseMoved", x=share * x, y=share * y)

    def picture(self, path: Path, *, whole: bool = True) -> Path:
        """What is to be seen, as PNG."""
        import base64

        answer = self._call("Page.captureScreenshot", captureBeyondViewport=whole, format="png")
        path.write_bytes(base64.b64decode(answer["data"]))
        return path

    def print_to(self, path: Path) -> Path:
        """The page on paper, as PDF."""
        import base64

        answer = self._call("Page.printToPDF", preferCSSPageSize=True, printBackground=True)
        path.write_bytes(base64.b64decode(answer["data"]))
        return path

    # --- the pipe ---

    def _call(self, method: str, *, timeout_s: float = 60, **params: Any) -> dict[str, Any]:
        self._number += 1
        number = self._number
        message: dict[str, Any] = {"id": number, "method": method, "params": params}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        answer: dict[str, Any] = {}

        def answered() -> bool:
            for event in self._events:
                if event.get("id") == number:
                    answer.update(event)
                    self._events.remove(event)
                    return True
            return False

        self._until(answered, timeout_s, method)
        assert "error" not in answer, f"{method}: {answer['error']}"
        result: dict[str, Any] = answer["result"]
        return result

    def _until(self, happened: Any, timeout_s: float, what: str) -> None:
        deadline = time.monotonic() + timeout_s
        while not happened():
            left = deadline - time.monotonic()
            assert left > 0, f"{what}: no answer within {timeout_s:.0f} s"
            if self._selector.select(timeout=left):
                self._hear()

    def _hear(self) -> None:
        chunk = os.read(self._read, 1 << 20)
        assert chunk, f"the browser ended with exit code {self._process.poll()}"
        *messages, self._buffer = (self._buffer + chunk).split(b"\0")
        for message in messages:
            event = json.loads(message)
            self._note(event.get("method"), event.get("params", {}))
            self._events.append({"method": None, **event})

    def _note(self, method: str | None, params: dict[str, Any]) -> None:
        if method == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
        elif method == "Log.entryAdded" and params["entry"]["level"] in ("warning", "error"):
            self.errors.append(params["entry"]["text"])
        elif method == "Runtime.consoleAPICalled" and params["type"] in ("warning", "error", "assert"):
            self.errors.append(" ".join(str(arg.get("value", arg.get("description"))) for arg in params["args"]))
        elif method == "Runtime.exceptionThrown":
            self.errors.append(params["exceptionDetails"].get("exception", {}).get("description", "an exception"))
