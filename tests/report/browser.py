"""A headless Chromium driven by its DevTools protocol over a pipe, with nothing but the standard library."""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
VARIABLE = "LRBENCH_BROWSER"
PATIENCE = 60.0
"""Seconds to wait for an answer; slow machines run tests side by side."""


def find_browser() -> str:
    """Path of a browser; skips the test where there is none."""
    for name in filter(None, (os.environ.get(VARIABLE), *NAMES)):
        if path := shutil.which(name):
            return path
    pytest.skip(f"no browser: none of {', '.join(NAMES)} is on the path, and {VARIABLE} names none")


class Browser:
    """One browser with one tab.

    Attributes:
        errors: what the console and exceptions said.
        requests: addresses that were asked for, without those of the page itself.
    """

    def __init__(self, profile: Path) -> None:
        path = find_browser()
        commands, self._commands = os.pipe()
        self._answers, answers = os.pipe()
        # the browser reads commands from descriptor 3 and answers on 4; a shell puts them there
        launch = f'exec "$0" "$@" 3<&{commands} 4>&{answers}'
        flags = [
            "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
            "--disable-background-networking", "--disable-component-update", "--hide-scrollbars",
            "--remote-debugging-pipe", f"--user-data-dir={profile}", "about:blank",
        ]  # fmt: skip
        self._process = subprocess.Popen(
            ["bash", "-c", launch, path, *flags], pass_fds=(commands, answers),
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(commands)
        os.close(answers)
        self._received = b""
        self._number = 0
        self._session = ""
        self.errors: list[str] = []
        self.requests: list[str] = []
        self._loaded = False
        try:
            tab = self._send("Target.createTarget", url="about:blank")["targetId"]
            self._session = self._send("Target.attachToTarget", targetId=tab, flatten=True)["sessionId"]
            for domain in ("Page", "Runtime", "Log", "Network"):
                self._send(f"{domain}.enable")
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Browser:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the browser."""
        os.close(self._commands)
        os.close(self._answers)
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def size(self, width: int, height: int = 800) -> None:
        """Of the window, px."""
        self._send(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 500
        )

    def scheme(self, name: str) -> None:
        """What the system is said to prefer: ``light`` or ``dark``."""
        self._send("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": name}])

    def scripts(self, allowed: bool) -> None:
        """Whether pages may run them."""
        self._send("Emulation.setScriptExecutionDisabled", value=not allowed)

    def open(self, path: Path, fragment: str = "") -> None:
        """Load a file anew, and forget what was said and asked for before."""
        self._visit("about:blank")
        self.errors.clear()
        self.requests.clear()
        self._visit(path.as_uri() + fragment)
        self.requests[:] = [url for url in self.requests if not url.startswith((path.as_uri(), "data:", "about:"))]

    def run(self, script: str) -> Any:
        """Value of an expression, awaited if it is a promise.

        Raises:
            RuntimeError: it throws.
        """
        answer = self._send("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(answer["exceptionDetails"]["exception"]["description"])
        return answer["result"].get("value")

    def act(self, script: str) -> None:
        """Run statements, and let the page react: two frames later all it does is done."""
        frames = "await new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"
        self.run(f"(async () => {{ {script}; {frames}; }})()")

    def press(self, key: str) -> None:
        """A key of the keyboard, by its DOM name."""
        text = {"Enter": "\r"}.get(key, "")
        code = {"Enter": 13, "Tab": 9, "Escape": 27}.get(key, 0)
        for kind in ("keyDown", "keyUp"):
            self._send(
                "Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code,
                **({"text": text} if text and kind == "keyDown" else {}),
            )  # fmt: skip

    def screenshot(self, path: Path, *, whole: bool = False) -> None:
        """Of the window, or of the whole page, as PNG."""
        answer = self._send("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(answer["data"]))

    def _visit(self, url: str) -> None:
        self._loaded = False
        self._send("Page.navigate", url=url)
        end = time.monotonic() + PATIENCE
        while not self._loaded:
            self._handle(self._receive(end))

    def _send(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        end = time.monotonic() + PATIENCE
        while True:
            answer = self._receive(end)
            if answer.get("id") == message["id"]:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']['message']}")
                return dict(answer["result"])
            self._handle(answer)

    def _receive(self, end: float) -> dict[str, Any]:
        while b"\0" not in self._received:
            ready, _, _ = select.select([self._answers], [], [], max(0.0, end - time.monotonic()))
            if not ready:
                raise TimeoutError(f"the browser did not answer within {PATIENCE:g} s")
            data = os.read(self._answers, 1 << 20)
            if not data:
                raise RuntimeError(f"the browser ended with status {self._process.wait()}")
            self._received += data
        message, _, self._received = self._received.partition(b"\0")
        return dict(json.loads(message))

    def _handle(self, event: dict[str, Any]) -> None:
        parameters = event.get("params", {})
        match event.get("method"):
            case "Page.loadEventFired":
                self._loaded = True
            case "Network.requestWillBeSent":
                self.requests.append(parameters["request"]["url"])
            case "Runtime.exceptionThrown":
                details = parameters["exceptionDetails"]
                self.errors.append(details.get("exception", {}).get("description", details["text"]))
            case "Log.entryAdded" if parameters["entry"]["level"] in ("error", "warning"):
                self.errors.append(parameters["entry"]["text"])
            case "Runtime.consoleAPICalled" if parameters["type"] in ("error", "warning", "assert"):
                self.errors.append(str(parameters["args"]))
