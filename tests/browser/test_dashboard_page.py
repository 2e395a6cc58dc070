"""The editors in a real page with a real kernel, served by Voila: what a reader does, and what the page answers."""

from __future__ import annotations

import re
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("voila", reason="needs the notebooks extra")

import nbformat

from helix_kit.widgets.dashboard import command
from helix_kit.widgets.visits import VARIABLE

CELLS = [
    """
import helix_kit as hk
from helix_kit.widgets import ClusterEditor, PlacementEditor
cluster = hk.Cluster.model_validate({
    "name": "small",
    "nodes": [{"gpu": "A100-40G", "count": 3, "region": "us"}, {"gpu": "L4", "count": 4, "region": "eu"}],
    "network": {"between_regions": {"bandwidth_gbps": 1.0, "latency_ms": 40}},
})
editor = ClusterEditor(cluster, "llama-30b", keep="test")
editor.add_class("cluster-editor")
editor""",
    """
problem = hk.Problem.of(cluster, hk.Model.preset("llama-30b"))
placement = {f"A100-40G-{i}": (12 * i, 12 * i + 12) for i in range(3)}
placement |= {f"L4-{i}": (36 + 6 * i, 42 + 6 * i) for i in range(4)}
hands_on = PlacementEditor(hk.Plan.from_placement(problem, placement, method="hand"))
hands_on.add_class("placement-editor")
hands_on""",
    """
from IPython.display import HTML
from helix_kit.widgets.visits import remembered
def solve(*args, **options):
    solved.append(1)
    return hk.plan(*args, **options)
solved = []
plan = remembered(solve, cluster, hk.Model.preset("llama-30b"), method="paper-milp", time_limit_s=4.0, prove=False)
HTML(f"<p id='last'>{plan.flow_tokens_per_s:.1f} after {len(solved)} solves</p>")""",
]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until_up(url: str, process: subprocess.Popen[bytes], log: Path, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        try:
            urllib.request.urlopen(url, timeout=2)
            return
        except urllib.error.HTTPError:
            return  # an answer, too
        except OSError:
            time.sleep(0.3)
    raise AssertionError(f"the server did not come up:\n{log.read_text()[-2000:]}")


@pytest.fixture(scope="module")
def dashboard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("dashboard")
    cells = [nbformat.v4.new_markdown_cell("# A small page")]
    cells += [nbformat.v4.new_code_cell(source.strip()) for source in CELLS]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), folder / "page.ipynb")
    port, log = free_port(), folder / "log.txt"
    line, environment = command(folder / "page.ipynb", ["--no-browser", f"--port={port}"])
    environment[VARIABLE] = str(folder / "kept")
    with log.open("wb") as out:
        process = subprocess.Popen(line, cwd=folder, stdout=out, stderr=out, env=environment)
    try:
        url = f"http://127.0.0.1:{port}/"
        # Asking for the page itself would start a kernel.
        wait_until_up(f"{url}voila/static/", process, log)
        yield url
    finally:
        process.terminate()
        process.wait(20)


@pytest.fixture(scope="module")
def opened(browser: Any, dashboard: str) -> Iterator[Any]:
    """One page for all tests here (a kernel takes seconds to start); each leaves it as it found it, or says so."""
    context = browser.new_context(viewport={"width": 1300, "height": 1900})
    page = context.new_page()
    page.requests, page.errors = [], []
    page.on("request", lambda request: page.requests.append(request.url))
    page.on("pageerror", lambda error: page.errors.append(str(error)))
    page.goto(dashboard, timeout=90_000)
    page.wait_for_selector(".cluster-editor", timeout=90_000)
    page.wait_for_selector("#last", timeout=90_000)
    yield page
    context.close()


def status(page: Any, editor: str, index: int = 0) -> str:
    return page.locator(f".{editor} div[role=status]").nth(index).inner_text()


def wait_for_status(page: Any, editor: str, pattern: str, index: int = 0, seconds: float = 60) -> str:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        text = status(page, editor, index)
        if re.search(pattern, text):
            return text
        page.wait_for_timeout(50)
    raise AssertionError(f"no {pattern!r} within {seconds} s; last: {status(page, editor, index)!r}")


def choose(page: Any, option: str) -> None:
    """Pick `option` in the drop-down list of the cluster editor that has it."""
    for select in page.locator(".cluster-editor select").all():
        if option in select.evaluate("s => [...s.options].map(o => o.text)"):
            select.select_option(option)
            return
    raise AssertionError(f"no list offers {option}")


def wait_for_progress(page: Any) -> str:
    page.wait_for_selector("#hk-progress", timeout=30_000)
    return page.inner_text("#hk-progress")


def test_the_page_says_what_it_computes_and_stops_saying_so(browser, dashboard, opened):
    """The text stands there, with a line that counts, before the kernel has computed anything."""
    opened.wait_for_selector("#hk-progress", state="detached", timeout=10_000)
    context = browser.new_context(viewport={"width": 1300, "height": 900})
    page = context.new_page()
    page.goto(dashboard, timeout=90_000, wait_until="commit")
    page.wait_for_selector("h1:visible", timeout=60_000)
    text = wait_for_progress(page)
    assert re.fullmatch(r"Computing “A small page” \(\d+ s\); \d outputs to come", text)
    page.wait_for_selector("#last", timeout=60_000)
    page.wait_for_selector("#hk-progress", state="detached", timeout=10_000)
    flow = opened.inner_text("#last").split()[0]
    assert opened.inner_text("#last") == f"{flow} after 1 solves"
    assert page.inner_text("#last") == f"{flow} after 0 solves", "kept since the first visit"
    context.close()


def gap_shown(page: Any) -> str:
    text = " ".join(page.locator(".cluster-editor .hk-flow svg text").all_text_contents())
    return re.search(r"gap [\d.]+%", text)[0]


def number(page: Any, index: int) -> Any:
    """The number of the rule for links within a region (0) or between regions (2)."""
    return page.locator(".cluster-editor .hk-link input[type=number]").nth(index)


def test_solve_and_see_the_flow_then_move_a_link(opened, screenshots):
    opened.click(".cluster-editor button:has-text('Solve')")
    text = wait_for_status(opened, "cluster-editor", "Done in")
    assert "value" in text and "gap" in text
    opened.wait_for_selector(".cluster-editor g.node")
    assert opened.locator(".cluster-editor g.node").count() == 7
    opened.screenshot(path=screenshots / "cluster-editor.png")
    assert "value" in opened.locator(".cluster-editor .hk-solve").text_content()
    # The browser has drawn the sliders and rounded their positions. That must not cost the proven bound.
    proven = re.search(r"gap [\d.]+%", text)[0]
    opened.wait_for_timeout(700)
    assert gap_shown(opened) == proven and "Done in" in status(opened, "cluster-editor")
    before = opened.locator(".cluster-editor .hk-flow svg text", has_text="tokens/s").first.text_content()
    number(opened, 2).fill("0.002")
    number(opened, 2).press("Enter")
    text = wait_for_status(opened, "cluster-editor", "same placement over these links")
    after = opened.locator(".cluster-editor .hk-flow svg text", has_text="tokens/s").first.text_content()
    assert after != before
    flow = float(re.search(r"([\d,.]+) tokens/s", text)[1].replace(",", ""))
    assert float(after.split()[0].replace(",", "")) == pytest.approx(flow, abs=0.6)
    solved = float(before.split()[0].replace(",", ""))
    assert f"({flow / solved - 1:+.1%}"[:4] in text, "in per cent of the solved plan"
    number(opened, 2).fill("1")
    number(opened, 2).press("Enter")
    wait_for_status(opened, "cluster-editor", "links of the solved plan")
    assert gap_shown(opened) == proven


def test_a_slider_that_is_moved_and_moved_back_keeps_the_solved_bound(opened):
    proven = gap_shown(opened)
    slider = opened.locator(".cluster-editor .hk-link .noUi-handle").nth(1)
    assert opened.locator(".cluster-editor .hk-link .noUi-target").nth(1).bounding_box()["width"] > 350, "wide"
    slider.focus()
    for _ in range(3):
        slider.press("ArrowLeft")
    opened.wait_for_function(
        "0.925 < +document.querySelectorAll('.cluster-editor .hk-link input[type=number]')[2].value"
        " && +document.querySelectorAll('.cluster-editor .hk-link input[type=number]')[2].value < 0.94"
    )  # three steps of 2.3 %
    wait_for_status(opened, "cluster-editor", "against the solved plan")
    for _ in range(3):
        slider.press("ArrowRight")
    wait_for_status(opened, "cluster-editor", "links of the solved plan")
    assert gap_shown(opened) == proven and float(number(opened, 2).input_value()) == 1.0


def figures(page: Any, editor: str) -> str:
    return page.locator(f".{editor} .hk-figures").inner_text()


def wait_for_figures(page: Any, editor: str, seconds: float = 60) -> str:
    deadline = time.monotonic() + seconds
    while "simulating" in figures(page, editor) and time.monotonic() < deadline:
        page.wait_for_timeout(100)
    return figures(page, editor)


def test_latency_cost_and_kv_stand_beside_the_flow(opened):
    text = wait_for_figures(opened, "cluster-editor")
    for label in ("flow, tokens/s", "decoded under full load", "each further token, s", "KV caches", "$/h"):
        assert re.search(rf"{re.escape(label)}\S*.*\d", text), f"{label} in {text}"


def test_the_next_visit_shows_the_last_plan(browser, dashboard, opened):
    context = browser.new_context(viewport={"width": 1300, "height": 1900})
    page = context.new_page()
    page.goto(dashboard, timeout=90_000)
    page.wait_for_selector(".cluster-editor g.node", timeout=60_000)
    assert "last visit" in wait_for_status(page, "cluster-editor", "last visit")
    assert gap_shown(page) == gap_shown(opened)
    context.close()


def test_a_click_on_a_bar_reaches_python_and_comes_back(opened):
    opened.click(".placement-editor g.node[data-node='L4-2']")
    opened.wait_for_function("document.querySelector('.placement-editor select').selectedOptions[0].text === 'L4-2'")
    panel = opened.inner_text(".placement-editor .hk-panel")
    assert "L4-2" in panel and "layers 48–53" in panel and "KV cache" in panel


def test_an_invalid_edit_is_explained_and_undone(opened, screenshots):
    opened.click(".placement-editor g.node[data-node='L4-1']")
    opened.wait_for_function("document.querySelector('.placement-editor select').selectedOptions[0].text === 'L4-1'")
    opened.wait_for_function("document.querySelector('.placement-editor input[type=number]').value === '42'")
    first = opened.locator(".placement-editor input[type=number]").first
    first.fill("44")
    first.press("Enter")
    text = wait_for_status(opened, "placement-editor", "No machine holds")
    assert "No machine holds layers 42-43." in text
    opened.screenshot(path=screenshots / "placement-editor.png")
    opened.click(".placement-editor button:has-text('Undo')")
    wait_for_status(opened, "placement-editor", r"^[\d,]+ tokens/s$")
    assert re.search(r"decoded under full load, tokens/s\s+\d", wait_for_figures(opened, "placement-editor"))


def test_dragging_a_bars_end_changes_the_plan(opened):
    before = status(opened, "placement-editor")
    handle = opened.locator(".placement-editor g.node[data-node='L4-0'] .hk-handle[data-end='end']").bounding_box()
    x, y = handle["x"] + handle["width"] / 2, handle["y"] + handle["height"] / 2
    opened.mouse.move(x, y)
    opened.mouse.down()
    opened.mouse.move(x + 32, y, steps=5)
    opened.mouse.up()
    text = wait_for_status(opened, "placement-editor", "against the start")
    assert text != before
    opened.click(".placement-editor button:has-text('Start again')")
    wait_for_status(opened, "placement-editor", r"^[\d,]+ tokens/s$")


def test_a_long_solve_is_stopped_and_keeps_its_best(opened):
    choose(opened, "hetero42")
    wait_for_status(opened, "cluster-editor", "42 machines")
    choose(opened, "paper-milp")
    choose(opened, "llama2-70b")
    opened.click(".cluster-editor button:has-text('Solve')")
    wait_for_status(opened, "cluster-editor", r"value [1-9]")
    opened.click(".cluster-editor button:has-text('Stop')")
    assert "Done (stopped)" in wait_for_status(opened, "cluster-editor", r"stopped", seconds=60)
    opened.wait_for_selector(".cluster-editor g.node[data-node='A100-40G-0']")


def test_nothing_left_the_machine_and_nothing_broke(opened, dashboard):
    outside = [r for r in opened.requests if not r.startswith((dashboard, "blob:", "data:"))]
    assert outside == [] and len(opened.requests) > 5
    assert opened.errors == []
