"""Milliseconds from a slider to the redrawn flow graph, 42 machines, in a real page with a real kernel.

    python benchmarks/bench_widget.py [--times N] [--limit-ms 150]

A notebook with the cluster editor on hetero42 is served by Voila; the bandwidth slider is moved by keys, and the time
is taken in the page from the key to the frame after the new scene is in the document. Also reported: the kernel's part,
without browser and messages. Exit status 1 when the median is above the limit.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

from helix_kit.widgets.dashboard import command

CELL = """
import helix_kit as hk
from helix_kit.widgets import ClusterEditor
plan = hk.plan(hk.Cluster.preset("hetero42"), hk.Model.preset("llama2-70b"), time_limit_s=20)
editor = ClusterEditor(plan.cluster, plan.model)
editor.show(plan)
editor"""
WATCH = """
() => {
  window.waitForChange = (begin) => new Promise((resolve) => {
    const svg = document.querySelector(".hk-canvas svg");
    const observer = new MutationObserver(() => {
      observer.disconnect();
      requestAnimationFrame(() => setTimeout(() => resolve(performance.now() - begin), 0));
    });
    observer.observe(svg, { childList: true });
  });
  const slider = document.querySelector(".noUi-handle");
  slider.addEventListener("keydown", () => { window.answer = window.waitForChange(performance.now()); }, true);
}
"""


def kernel_ms(times: int) -> list[float]:
    """Python's part alone: slider's value -> max flow -> layout -> traits."""
    import helix_kit as hk
    from helix_kit.widgets import ClusterEditor

    plan = hk.plan(hk.Cluster.preset("hetero42"), hk.Model.preset("llama2-70b"), time_limit_s=20)
    editor = ClusterEditor(plan.cluster, plan.model)
    editor.show(plan)
    taken = []
    for step in range(times):
        begin = time.perf_counter()
        editor.within_gbps.value = 10 ** (0.9 - 0.01 * (step + 1))
        taken.append(1e3 * (time.perf_counter() - begin))
    return taken


def page_ms(times: int) -> list[float]:
    """The whole way, in Chromium."""
    import nbformat
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        raise SystemExit("needs Chromium (Debian: apt-get install chromium)")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as driver:
        path = Path(folder) / "bench.ipynb"
        kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
        cells = [nbformat.v4.new_code_cell(CELL.strip())]
        nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), path)
        line, environment = command(path, ["--no-browser", f"--port={port}"])
        server = subprocess.Popen(
            line, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=folder
        )
        try:
            _wait(f"http://127.0.0.1:{port}/voila/static/")
            browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
            page = browser.new_page(viewport={"width": 1300, "height": 1200})
            page.goto(f"http://127.0.0.1:{port}/", timeout=120_000)
            page.wait_for_selector("g.node", timeout=120_000)
            page.wait_for_timeout(1000)
            page.evaluate(WATCH)
            handle = page.locator(".noUi-handle").first
            handle.focus()
            taken = []
            for step in range(times + 2):
                handle.press("ArrowLeft" if step % 2 else "ArrowRight")
                taken.append(page.evaluate("window.answer"))
                page.wait_for_timeout(50)
            browser.close()
            return taken[2:]  # the first two warm up
        finally:
            server.terminate()
            server.wait(20)


def _wait(url: str, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            urllib.request.urlopen(url, timeout=2)
            return
        except urllib.error.HTTPError:
            return
        except OSError:
            time.sleep(0.3)
    raise SystemExit("the page was not served in time")


def main() -> int:
    """Measure, print, and compare with the limit."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--times", type=int, default=30)
    parser.add_argument("--limit-ms", type=float, default=150.0)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rows = {"kernel only": kernel_ms(options.times), "slider to redraw": page_ms(options.times)}
    found = {
        name: {"median_ms": statistics.median(v), "p90_ms": sorted(v)[int(0.9 * (len(v) - 1))], "max_ms": max(v)}
        for name, v in rows.items()
    }
    if options.json:
        print(json.dumps({"machines": 42, "times": options.times, "load": os.getloadavg()[0], **found}))
    else:
        print(f"42 machines, {options.times} moves of a slider, load {os.getloadavg()[0]:.1f}")
        for name, numbers in found.items():
            print(f"  {name:18}" + "".join(f"{key[:-3]:>8} {value:6.1f} ms" for key, value in numbers.items()))
    return int(found["slider to redraw"]["median_ms"] > options.limit_ms)


if __name__ == "__main__":
    sys.exit(main())
