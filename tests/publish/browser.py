"""A real Chromium, spoken to over its DevTools protocol through two pipes: no driver, no port, no library.

Source of the protocol: Chromium's documentation of `--remote-debugging-pipe` (messages in JSON, each ended by a zero byte, read
on descriptor 3 and written on 4) and https://chromedevtools.github.io/devtools-protocol/.
"""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

SECONDS = 60.0
_NAMES = ("chromium", "chromium-browser", "google-chrome")
_FLAGS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--disable-dev-shm-usage", "--hide-scrollbars", "--force-device-scale-factor=1"),
    *("--remote-debugging-pipe", "about:blank"),
)


def missing() -> str:
    """Why there is no browser here; empty when there is one."""
    return "" if _found() else "chromium is not installed"


def _found() -> str:
    return next((path for name in _NAMES if (path := shutil.which(name))), "")


@dataclass
class Visit:
    """What one page did while it was open.

    Attributes:
        url: asked for.
        status: HTTP status of the page itself.
        headers: of the page, names in lower case.
        requested: each address that was asked for, `data:` without its content.
        complaints: what the console and the browser's log said: violations of the policy, errors, warnings.
    """

    url: str
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    requested: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)


class Browser:
    """One browser with one tab."""

    def __init__(self, read: int, write: int) -> None:
        self._read, self._write = read, write
        self._rest = b""
        self._number = 0
        self._session: str | None = None
        self._visit = Visit("about:blank")
        self._seen: set[str] = set()

    def attach(self) -> None:
        """Takes the first tab."""
        targets = self.call("Target.getTargets")["targetInfos"]
        page = next(target for target in targets if target["type"] == "page")
        answer = self.call("Target.attachToTarget", targetId=page["targetId"], flatten=True)
        self._session = answer["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log", "DOM"):
            self.call(f"{domain}.enable")

    def window(self, width: int, height: int, *, dark: bool = False, scale: float = 1.0) -> None:
        """How large the window is, and what its owner prefers."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=scale,
                  mobile=False)  # fmt: skip
        features = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.call("Emulation.setEmulatedMedia", features=features)

    def open(self, url: str) -> Visit:
        """Opens a page and waits until all that it wants is there."""
        self._visit = visit = Visit(url)
        self._seen.clear()
        answer = self.call("Page.navigate", url=url)
        assert "errorText" not in answer, f"{url}: {answer['errorText']}"
        self.wait_for("Page.loadEventFired")
        # What comes after the page has loaded: its icon, and complaints about it.
        self.evaluate("new Promise(done => requestAnimationFrame(() => setTimeout(done, 100)))")
        return visit

    def wait_for(self, event: str) -> None:
        """Until the tab has told of this."""
        deadline = time.monotonic() + SECONDS
        while event not in self._seen:
            self._take(deadline)

    def forget(self, event: str) -> None:
        """The next one is to be waited for."""
        self._seen.discard(event)

    def evaluate(self, expression: str) -> Any:
        """The value of a script; scripts of the tests' own are not bound to the page's policy."""
        answer = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def picture(self, height: float = float("inf")) -> bytes:
        """The page as PNG, at the width of the window and of no more than this height."""
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": min(size["height"], height), "scale": 1}
        answer = self.call("Page.captureScreenshot", format="png", clip=clip, captureBeyondViewport=True)
        return base64.b64decode(answer["data"])

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One call; raises where the browser refuses it."""
        self._number += 1
        number = self._number
        message = {"id": number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        content = json.dumps(message).encode() + b"\0"
        while content:
            content = content[os.write(self._write, content) :]
        deadline = time.monotonic() + SECONDS
        while True:
            answer = self._take(deadline)
            if answer.get("id") == number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']['message']}")
                result: dict[str, Any] = answer["result"]
                return result

    def _take(self, deadline: float) -> dict[str, Any]:
        while b"\0" not in self._rest:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self._read], [], [], left)[0]:
                raise TimeoutError("the browser does not answer")
            chunk = os.read(self._read, 1 << 20)
            if not chunk:
                raise RuntimeError("the browser has ended")
            self._rest += chunk
        line, _, self._rest = self._rest.partition(b"\0")
        message: dict[str, Any] = json.loads(line)
        if method := message.get("method"):
            self._seen.add(method)
            self._note(method, message["params"])
        return message

    def _note(self, method: str, told: dict[str, Any]) -> None:
        visit = self._visit
        if method == "Network.requestWillBeSent":
            url = told["request"]["url"]
            visit.requested.append(url if not url.startswith("data:") else "data:")
        elif method == "Network.responseReceived" and told["type"] == "Document":
            visit.status = told["response"]["status"]
            visit.headers = {name.lower(): value for name, value in told["response"]["headers"].items()}
        elif method == "Log.entryAdded":
            visit.complaints.append(f"{told['entry']['level']}: {told['entry']['text']}")
        elif method == "Runtime.consoleAPICalled":
            visit.complaints.append(f"{told['type']}: {[each.get('value') for each in told['args']]}")
        elif method == "Runtime.exceptionThrown":
            visit.complaints.append(told["exceptionDetails"]["text"])
        elif method == "Page.javascriptDialogOpening":
            visit.complaints.append(f"dialog: {told['message']}")


@contextmanager
def chromium(more: Sequence[str] = ()) -> Iterator[Browser]:
    """A browser with a new, empty profile; ends with the block."""
    to_read, to_browser = os.pipe()
    from_browser, to_write = os.pipe()
    with tempfile.TemporaryDirectory(prefix="kna-", ignore_cleanup_errors=True) as profile:
        # The browser wants descriptors 3 and 4, whatever they are here.
        command = ["bash", "-c", f'exec "$@" 3<&{to_read} 4>&{to_write}', "sh", _found(), *_FLAGS]
        command = [*command[:-1], f"--user-data-dir={profile}", *more, command[-1]]
        process = subprocess.Popen(
            command,
            pass_fds=(to_read, to_write),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            # Reports of crashes go below the home folder, not into the profile.
            env={**os.environ, "HOME": profile, "XDG_CONFIG_HOME": profile, "XDG_CACHE_HOME": profile},
        )
        os.close(to_read)
        os.close(to_write)
        browser = Browser(from_browser, to_browser)
        try:
            browser.attach()
            yield browser
        finally:
            # It ends all its own processes when nobody speaks to it any more.
            os.close(to_browser)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            os.close(from_browser)
