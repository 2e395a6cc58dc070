"""The demo's summary of the committed quickstart, and the demo on a notebook that fails."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.importorskip("nbformat", reason="needs the notebooks extra")

import nbformat

import helix_kit as hk
from helix_kit.experiments.machinery import demo
from helix_kit.plots.formatting import format_number, format_percent
from helix_kit.runtime.weights.demo import WeightsUnavailableError
from helix_kit.workload.request import Request, RequestRecord


def test_summary_of_the_committed_quickstart(root):
    facts = demo.facts_of(nbformat.read(root / demo.NOTEBOOK, as_version=4))
    assert facts["planned"]["flow_tokens_per_s"] >= 2045 and facts["planned"]["gap"] <= 1e-3
    assert facts["answers"] == 8
    for key, measured in facts["measured"].items():
        assert 0.3 < measured / facts["simulated"][key] < 3, f"{key}: simulated and measured are not alike"
    text = demo.summary_text(facts)
    assert "2,046 tokens/s" in text and "8 prompts answered" in text and "measured" in text


def test_a_notebook_that_stopped_early_is_told_apart():
    with pytest.raises(LookupError, match="executed to its end"):
        demo.facts_of(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1")]))


def test_a_failing_cell_leaves_the_file_unchanged(tmp_path, monkeypatch, capsys):
    (tmp_path / "notebooks").mkdir()
    path = tmp_path / demo.NOTEBOOK
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1 / 0")]), path)
    before = path.read_bytes()
    monkeypatch.setattr(demo, "CHECKOUT", tmp_path)
    monkeypatch.setattr(demo, "fetch_weights", lambda: "")
    assert demo.main() == 1
    assert not (tmp_path / "out").exists()
    assert "ZeroDivisionError" in capsys.readouterr().err and path.read_bytes() == before


def test_outside_a_checkout_the_demo_runs_a_copy_in_the_current_folder(tmp_path, monkeypatch, root):
    monkeypatch.setattr(demo, "CHECKOUT", tmp_path / "no-checkout")
    monkeypatch.chdir(tmp_path)
    copy = demo.runnable_notebook()
    assert copy == tmp_path / "00_quickstart.ipynb"
    assert copy.read_bytes() == (root / demo.NOTEBOOK).read_bytes()
    copy.write_text("edited")
    assert demo.runnable_notebook().read_text() == "edited"


def test_the_demo_leaves_the_checkouts_notebook_as_it_is(tmp_path, monkeypatch, capsys):
    """Executing it in place would leave a change that git reports."""
    (tmp_path / "notebooks").mkdir()
    path = tmp_path / demo.NOTEBOOK
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("40 + 2")]), path)
    before = path.read_bytes()
    monkeypatch.setattr(demo, "CHECKOUT", tmp_path)
    monkeypatch.setattr(demo, "fetch_weights", lambda: "")
    monkeypatch.setattr(demo, "facts_of", lambda notebook: notebook.cells[0].outputs[0].data["text/plain"])
    monkeypatch.setattr(demo, "summary_text", lambda facts: f"the answer is {facts}")
    assert demo.main() == 0
    printed = capsys.readouterr().out
    assert path.read_bytes() == before
    assert "the answer is 42" in printed and str(tmp_path / demo.EXECUTED) in printed
    assert nbformat.read(tmp_path / demo.EXECUTED, as_version=4).cells[0].outputs
    assert "/out/" in (Path(__file__).parents[3] / ".gitignore").read_text().split()


def record(number, arrival_s, tokens_in, token_times_s, tokens_out):
    return RequestRecord(
        Request(number, arrival_s, tokens_in, tokens_out), outcome="finished", first_token_s=token_times_s[0],
        finished_s=token_times_s[-1], tokens_generated=len(token_times_s), token_times_s=token_times_s,
    )  # fmt: skip


@pytest.fixture(scope="module")
def facts():
    """A cluster under a load of two requests in ten seconds, 100 + 10 and 300 + 30 tokens."""
    problem = hk.Problem.of(hk.Cluster.preset("laptop"), hk.Model.preset("SmolLM2-135M"))
    plan = hk.Plan.from_placement(problem, {"CPU-fast-0": (0, 18), "CPU-medium-0": (18, 30)}, method="hand")
    records = [
        record(0, 1.0, 100, [2.0 + i / 10 for i in range(10)], 10),
        record(1, 3.0, 300, [4.0 + i / 10 for i in range(30)], 30),
        record(2, 15.0, 999, [16.0], 99),
    ]
    run = hk.Run(records, window=(0.0, 10.0))
    return demo.summary_table(plan, run, plan, run, run).facts


def test_the_load_of_a_run_is_what_arrives_in_its_window(facts):
    load = facts["planned_load"]
    assert load == {"requests_per_s": 0.2, "input_tokens": 200.0, "output_tokens": 20.0, "tokens_per_s": 44.0}
    assert demo.load_of(hk.Run([])) == dict.fromkeys(load, 0.0)


def test_the_summary_says_why_less_is_simulated_than_planned(facts):
    text = " ".join(demo.summary_text(facts).split())
    flow = facts["planned"]["flow_tokens_per_s"]
    assert "online load: 0.2 requests/s arrive, with 200 tokens in and 20 out on average" in text
    assert f"That is 44 tokens/s, {format_percent(44 / flow)} of the plan's flow, and 4 of them are output" in text
    # Served: 40 output tokens in ten seconds, and 400 tokens of prompts: 38 decoded, 2 first tokens.
    assert "measured 4 tokens/s are output alone; with the prompts the workers computed 43.8 tokens/s" in text
    assert f"The planned {format_number(flow)} need requests that wait all the time" in text
    assert all(len(line) <= 120 for line in demo.summary_text(facts).splitlines())


def test_a_summary_without_loads_is_still_a_summary(facts):
    older = {name: value for name, value in facts.items() if not name.endswith("_load")}
    assert "why less" not in demo.summary_text(older) and "planned" in demo.summary_text(older)


def test_the_demo_changes_no_tracked_file_and_times_the_weights_apart(tmp_path, monkeypatch, capsys, facts):
    (tmp_path / "notebooks").mkdir()
    path = tmp_path / demo.NOTEBOOK
    shown = f"from IPython.display import display\ndisplay({{{demo.SUMMARY_MIME!r}: {facts!r}}}, raw=True)"
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(shown)]), path)
    before = path.read_bytes()
    monkeypatch.setattr(demo, "CHECKOUT", tmp_path)

    clock = [100.0]
    monkeypatch.setattr(demo, "time", SimpleNamespace(perf_counter=lambda: clock[0]))

    def weights(say):
        say("Fetching the demo's weights")
        clock[0] += 3
        return tmp_path / "cache"

    monkeypatch.setattr("helix_kit.runtime.weights.demo.demo_weights", weights)
    assert demo.main() == 0
    assert path.read_bytes() == before
    assert nbformat.read(tmp_path / demo.EXECUTED, as_version=4).cells[0].outputs
    told = capsys.readouterr().out
    found = re.search(r"(\d+) s to plan, simulate and serve. Before that, the weights .* took (\d+) s", told)
    assert found.groups() == ("0", "3")
    assert str(tmp_path / demo.EXECUTED) in told


def test_weights_that_are_there_already_cost_nothing(monkeypatch, tmp_path):
    monkeypatch.setattr("helix_kit.runtime.weights.demo.demo_weights", lambda say: tmp_path)
    assert "were there already" in demo.fetch_weights()


def test_without_weights_the_demo_says_so_at_once(monkeypatch, capsys):
    def none(say):
        raise WeightsUnavailableError("could not be fetched: no network")

    monkeypatch.setattr("helix_kit.runtime.weights.demo.demo_weights", none)
    assert demo.main() == 1
    assert "could not be fetched: no network" in capsys.readouterr().err
