"""Opens pages in a headless Chromium as a phone and a desk see them, light and dark, and says what is wrong with them.

    apt-get install chromium-driver
    python -m tests.browser_check RUN/report.html --pictures=/tmp/pages

Wrong is: a page that is wider than the window, a picture that is not drawn, a choice among pictures that shows another,
a message of the console, a request to anything but the page itself. Ends with 1 if there is any. With --pictures, the
whole page is kept as PNG files.
"""

import argparse
import base64
import contextlib
import json
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

WIDTHS = (390, 1280)
SCHEMES = ("light", "dark")
_LOOK = """
const width = arguments[0];  // a phone makes its window wider where the page is
const wide = document.documentElement.scrollWidth - width;
const broken = [...document.images].filter(one => !one.complete || one.naturalWidth === 0).map(one => one.alt);
const out = [...document.querySelectorAll('main *')].filter(one => {
  if (one.closest('.box, .picture, pre, svg, .plotly-graph-div')) return false;
  return one.getBoundingClientRect().right > width + 1;
}).map(one => one.tagName + '.' + one.className);
const stuck = [...document.querySelectorAll('.film')].flatMap(film => {
  const inputs = [...film.querySelectorAll('input')], chosen = inputs.findIndex(one => one.checked);
  const seen = inputs.map(one => {
    one.click();
    return [...film.querySelectorAll('figure')].findIndex(figure => figure.offsetParent !== null);
  });
  if (chosen >= 0) inputs[chosen].click();
  return seen.flatMap((which, place) => which === place ? [] : [place]);
});
return {wide, broken, stuck, out: out.slice(0, 5), height: document.documentElement.scrollHeight,
  images: document.images.length, points: document.querySelectorAll('svg.points circle').length,
  turned: document.querySelectorAll('.plotly-graph-div canvas').length};
"""


class Browser:
    """A session of chromedriver, by its HTTP interface."""

    def __init__(self, port: int) -> None:
        options = {
            "args": ["--headless=new", "--no-sandbox", "--hide-scrollbars", "--enable-unsafe-swiftshader"],
        }
        wanted = {
            "browserName": "chrome",
            "goog:chromeOptions": options,
            "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"},
        }
        self._root = f"http://127.0.0.1:{port}/session"
        answer = _call("POST", self._root, {"capabilities": {"alwaysMatch": wanted}})
        self._root += "/" + answer["sessionId"]

    def close(self) -> None:
        _call("DELETE", self._root)

    def cdp(self, command: str, **parameters: Any) -> Any:
        return _call("POST", f"{self._root}/goog/cdp/execute", {"cmd": command, "params": parameters})

    def look(self, page: Path, width: int, scheme: str, picture: Path | None) -> list[str]:
        """What is wrong with the page at a width; keeps it as a picture."""
        self.cdp("Emulation.setDeviceMetricsOverride", width=width, height=844, deviceScaleFactor=1, mobile=width < 600)
        self.cdp("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self._log("performance")
        _call("POST", f"{self._root}/url", {"url": page.resolve().as_uri()})
        time.sleep(1.0)  # plotly draws after the page is loaded
        found = _call("POST", f"{self._root}/execute/sync", {"script": _LOOK, "args": [width]})
        wrong = [f"{found['wide']} px wider than the window: {found['out']}"] if found["wide"] > 0 else []
        wrong += [f"picture not drawn: {alt}" for alt in found["broken"]]
        wrong += [f"choice {place} shows another picture" for place in found["stuck"]]
        wrong += [f"console: {line['message']}" for line in self._log("browser") if not _is_speed(line["message"])]
        wrong += [f"request: {url[:100]}" for url in self._requests() if not url.startswith(("data:", "blob:"))
                  and url.split("#")[0] != page.resolve().as_uri()]  # fmt: skip
        if picture is not None:
            clip = {"x": 0, "y": 0, "width": width, "height": found["height"], "scale": 1}
            shot = self.cdp("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)
            picture.write_bytes(base64.b64decode(shot["data"]))
        seen = f"{found['images']} pictures, {found['points']} points, {found['turned']} canvases"
        print(f"{page} at {width} px, {scheme}: {seen}, {found['height']} px high; {len(wrong)} faults")
        return wrong

    def _log(self, kind: str) -> list[dict[str, Any]]:
        return _call("POST", f"{self._root}/se/log", {"type": kind})

    def _requests(self) -> list[str]:
        messages = [json.loads(line["message"])["message"] for line in self._log("performance")]
        return [one["params"]["request"]["url"] for one in messages if one["method"] == "Network.requestWillBeSent"]


def _is_speed(message: str) -> bool:
    """A remark of the driver on graphics in software, as there are on a machine without a GPU."""
    return "GPU stall due to ReadPixels" in message or "willReadFrequently" in message


def _call(method: str, url: str, content: Any = None) -> Any:
    body = None if content is None else json.dumps(content).encode()
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"}, method=method)
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.loads(answer.read())["value"]


@contextlib.contextmanager
def browser() -> Iterator[Browser]:
    """A headless Chromium; ended at the end."""
    if shutil.which("chromedriver") is None:
        sys.exit("chromedriver is needed: apt-get install chromium-driver")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    driver = subprocess.Popen(["chromedriver", f"--port={port}"], stdout=subprocess.DEVNULL)
    try:
        for _ in range(100):
            with contextlib.suppress(urllib.error.URLError):
                _call("GET", f"http://127.0.0.1:{port}/status")
                break
            time.sleep(0.1)
        session = Browser(port)
        try:
            yield session
        finally:
            session.close()
    finally:
        driver.terminate()
        driver.wait()


def main() -> int:
    """Looks at every page; 1 if anything is wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("pages", nargs="+", type=Path)
    parser.add_argument("--pictures", type=Path)
    given = parser.parse_args()
    missing = [str(page) for page in given.pages if not page.is_file()]
    if missing:
        sys.exit(f"no such page: {', '.join(missing)}")
    faults = 0
    if given.pictures:
        given.pictures.mkdir(parents=True, exist_ok=True)
    with browser() as session:
        for number, page in enumerate(given.pages):
            for width in WIDTHS:
                for scheme in SCHEMES:
                    picture = given.pictures and given.pictures / f"{number}_{page.stem}_{width}_{scheme}.png"
                    wrong = session.look(page, width, scheme, picture)
                    print("".join(f"  {one}\n" for one in wrong), end="")
                    faults += len(wrong)
    return int(faults > 0)


if __name__ == "__main__":
    sys.exit(main())
