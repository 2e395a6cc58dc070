"""One walk through JupyterLab: run a notebook, see the widget, click it, read the answer; reload without a kernel."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("jupyterlab", reason="needs the notebooks extra")

import nbformat

KERNEL_IS_CONNECTED = """() => {
  const context = window.jupyterapp?.shell.currentWidget?.sessionContext;
  return context?.isReady && context.session?.kernel?.connectionStatus === "connected";
}"""
CELLS = [
    """
import helix_kit as hk
problem = hk.Problem.of(hk.Cluster.preset("laptop"), hk.Model.preset("SmolLM2-135M"))
plan = hk.Plan.from_placement(problem, {"CPU-fast-0": (0, 15), "CPU-medium-0": (15, 30)}, method="hand")
graph = plan.show()
graph""",
    """
import ipywidgets
heard = ipywidgets.Label("nothing yet")
heard.add_class("heard")
graph.on_select(lambda name: setattr(heard, "value", f"clicked {name}"))
heard""",
    """
requests = hk.Workload.constant(rate_per_s=1.0, duration_s=5.0, input_tokens=20, output_tokens=5)
hk.simulate(plan, requests, duration_s=10.0).plot()""",
]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("lab")
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    cells = [nbformat.v4.new_code_cell(source.strip()) for source in CELLS]
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), folder / "page.ipynb")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    line = [
        sys.executable,
        "-m",
        "jupyterlab",
        "--no-browser",
        f"--port={port}",
        "--IdentityProvider.token=",
        "--ip=127.0.0.1",
    ]
    line += [f"--ServerApp.root_dir={folder}", "--LabApp.expose_app_in_browser=True", "--LabApp.news_url="]
    if os.getuid() == 0:
        line.append("--allow-root")
    # A configuration of its own, so that nothing of the user's is read or written.
    own = {
        name: str(folder / ".jupyter")
        for name in ("JUPYTER_CONFIG_DIR", "JUPYTERLAB_WORKSPACES_DIR", "JUPYTERLAB_SETTINGS_DIR")
    }
    log = folder / "log.txt"
    with log.open("wb") as out:
        process = subprocess.Popen(line, cwd=folder, stdout=out, stderr=out, env={**os.environ, **own})
    try:
        url = f"http://127.0.0.1:{port}/"
        deadline = time.monotonic() + 90
        while True:
            assert process.poll() is None and time.monotonic() < deadline, log.read_text()[-2000:]
            try:
                urllib.request.urlopen(f"{url}api", timeout=2)
                break
            except (urllib.error.URLError, OSError):
                time.sleep(0.3)
        yield url
    finally:
        process.terminate()
        process.wait(30)


@pytest.fixture(scope="module")
def opened(browser: Any, lab: str) -> Iterator[Any]:
    context = browser.new_context(viewport={"width": 1500, "height": 1100})
    page = context.new_page()
    page.requests = []
    page.on("request", lambda request: page.requests.append(request.url))
    page.goto(f"{lab}lab/tree/page.ipynb", timeout=120_000)
    # Asked earlier, "run all" is dropped without a word, or answered by a dialog that asks for a kernel.
    page.wait_for_function(KERNEL_IS_CONNECTED, timeout=120_000)
    page.evaluate("void window.jupyterapp.commands.execute('notebook:run-all-cells')")
    page.wait_for_selector("g.node", timeout=120_000)
    yield page
    context.close()


def test_widget_shows_and_a_click_reaches_the_next_cell(opened, screenshots):
    opened.wait_for_selector(".heard")
    opened.click("g.node[data-node='CPU-medium-0']")
    opened.wait_for_function("document.querySelector('.heard').textContent.includes('clicked CPU-medium-0')")
    opened.screenshot(path=screenshots / "jupyterlab.png")


def test_a_run_is_plotted_in_a_fresh_kernel(opened):
    """Nothing here has loaded pyplot's inline backend, which would draw any figure."""
    opened.wait_for_selector(".jp-OutputArea-output img", timeout=120_000)
    assert opened.locator(".jp-OutputArea-output img").last.bounding_box()["width"] > 500
    assert opened.locator("pre:has-text('Figure')").count() == 0


def test_the_widget_follows_the_labs_theme(opened):
    paper = "getComputedStyle(document.querySelector('.hk-flow')).backgroundColor"
    light = opened.evaluate(paper)
    opened.evaluate("window.jupyterapp.commands.execute('apputils:change-theme', { theme: 'JupyterLab Dark' })")
    opened.wait_for_function(f"{paper} !== '{light}'")
    opened.evaluate("window.jupyterapp.commands.execute('apputils:change-theme', { theme: 'JupyterLab Light' })")
    opened.wait_for_function(f"{paper} === '{light}'")


def test_nothing_left_the_machine(opened, lab):
    outside = [r for r in opened.requests if not r.startswith((lab, lab.replace("http", "ws", 1), "blob:", "data:"))]
    assert outside == []
