"""The benchmark of served plans: a run of some rows leaves the rest of its document alone; limits are by cluster."""

import argparse
import importlib.util
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "bench_served.py"


@pytest.fixture
def bench():
    spec = importlib.util.spec_from_file_location("bench_served", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def run(bench, monkeypatch, tmp_path):
    """Runs the program with rows that say only `value`; gives the document."""

    def run(value, *arguments):
        def rows(args, section, cluster, model):
            line = f"| {cluster} | {model} | {value} |\n"
            return line * 2 if section == "robustness" else line

        monkeypatch.setattr(bench, "rows", rows)
        monkeypatch.setattr(sys, "argv", ["bench_served", *arguments, "-o", str(tmp_path / "served.md")])
        bench.main()
        return (tmp_path / "served.md").read_text()

    return run


def titles(text):
    return [line.removeprefix("## ") for line in text.splitlines() if line.startswith("## ")]


def test_a_whole_run_has_every_section_and_ends_with_when(bench, run):
    text = run("first")
    assert titles(text) == [*(title for title, _ in bench.SECTIONS.values()), "When and where"]
    # 30B was published on two clusters, offline: 3 + 2 rows there, 3 in each other section, 6 where rivals have a row.
    assert text.count("| first |") == 5 + 3 * 4 + 6
    assert sum(line.startswith("| predictor | geo24 | llama2-70b | ") for line in text.splitlines()) == 1


def test_a_run_of_some_rows_changes_these_alone(run, tmp_path):
    before = run("first")
    note = "A sentence below the table.\n"
    before = before.replace("| geo24 | llama-30b | first |\n", f"| geo24 | llama-30b | first |\n\n{note}", 1)
    (tmp_path / "served.md").write_text(before)
    after = run("again", "--sections", "offline", "robustness", "--clusters", "geo24", "--models", "llama2-70b")
    old, new = (
        [line for line in text.splitlines() if not line.startswith(("| offline", "| robust"))]
        for text in (before, after)
    )
    changed = [(a, b) for a, b in zip(old, new, strict=True) if a != b]
    row = "| geo24 | llama2-70b |"
    assert changed == [(f"{row} first |", f"{row} again |")] * 3
    assert note in after


def test_rows_that_are_new_join_their_table(run):
    run("first", "--sections", "any", "--clusters", "geo24")
    text = run("second", "--sections", "offline", "any", "--clusters", "hetero42")
    assert "| geo24 | llama2-70b | first |\n| hetero42 | llama2-70b | second |\n" in text
    assert titles(text) == ["Offline, any maximum flow", "Offline, balanced flow", "When and where"]


def test_a_table_of_other_columns_is_refused_before_anything_is_measured(run, tmp_path, capsys):
    text = run("first").replace("| cluster | model | plans |", "| cluster | model | how many plans |")
    (tmp_path / "served.md").write_text(text)
    with pytest.raises(SystemExit):
        run("again")
    assert "served.md: the table of 'Predictor on held-out plans' has other columns" in capsys.readouterr().err
    assert (tmp_path / "served.md").read_text() == text


@pytest.mark.parametrize(
    ("cluster", "given_s", "limit_s"),
    [("single24", None, 150), ("geo24", None, 150), ("hetero42", None, 280), ("hetero42", 20.0, 20)],
)
def test_searches_are_given_time_by_cluster(bench, monkeypatch, cluster, given_s, limit_s):
    monkeypatch.setattr(bench.hk, "plan", lambda *args, **options: SimpleNamespace(args=args, options=options))
    arguments = argparse.Namespace(plans=None, time_limit=given_s, jobs=2)
    means = {"prompt_latency_s": 2.0, "decode_latency_s": 1.0}
    plan = bench.plan_of(arguments, "offline", cluster, "llama2-70b", means)
    assert plan.args == (cluster, "llama2-70b") and plan.options["time_limit_s"] == limit_s
