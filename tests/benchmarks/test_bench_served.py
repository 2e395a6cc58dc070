"""The benchmark of served plans: its document, the plans behind it, and the README's sentence that follows from it."""

import argparse
import importlib.util
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "benchmarks" / "bench_served.py"


@pytest.fixture
def bench(monkeypatch):
    monkeypatch.syspath_prepend(SCRIPT.parent)
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
        monkeypatch.setattr(bench, "plan_row", lambda *cells: f"| {' | '.join(cells)} | 7 |\n")
        monkeypatch.setattr(sys, "argv", ["bench_served", *arguments, "-o", str(tmp_path / "served.md")])
        bench.main()
        return (tmp_path / "served.md").read_text()

    return run


def titles(text):
    return [line.removeprefix("## ") for line in text.splitlines() if line.startswith("## ")]


def titles_of(bench):
    """The sections in the order in which a whole run writes them: that of the plans follows the first one."""
    first, *rest = [title for title, _ in bench.SECTIONS.values()]
    return [first, "The plans", *rest]


def test_a_whole_run_has_every_section_and_ends_with_when(bench, run):
    text = run("first")
    assert titles(text) == [*titles_of(bench), "When and where"]
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
    assert titles(text) == [
        "Offline, the first maximum flow found",
        "The plans",
        "Offline, balanced flow",
        "When and where",
    ]


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
def test_searches_are_given_time_by_cluster_and_the_published_latencies(bench, monkeypatch, cluster, given_s, limit_s):
    monkeypatch.setattr(bench.hk, "plan", lambda *args, **options: SimpleNamespace(args=args, options=options))
    base = bench.Means(100.0, 100.0, {"prompt": 2.0, "decode": 1.0}, {"prompt": 4.0, "decode": 2.0})
    monkeypatch.setattr(bench, "base_of", lambda *row: base)
    arguments = argparse.Namespace(time_limit=given_s, jobs=2, seed=3, window=None)
    plan = bench.search(arguments, "offline", cluster, "llama2-70b")
    assert plan.args == (cluster, "llama2-70b") and plan.options["time_limit_s"] == limit_s
    assert (plan.options["prompt_latency_limit_s"], plan.options["latency_limit_s"]) == (1.94, 0.97)
    assert plan.options["seed"] == 3


def test_lines_say_what_placement_links_and_split_gain_and_which_latency_is_missed(bench):
    def means(tokens_per_s, prompt_s):
        return bench.Means(
            tokens_per_s, tokens_per_s + 1, {"prompt": prompt_s, "decode": 1.0}, {"prompt": 9.0, "decode": 3.0}
        )

    found = {"published": means(100.0, 2.0), "our split": means(125.0, 2.0), "fair base": means(120.0, 1.9)}
    found |= {"ours": means(150.0, 2.5), "ours, first split": means(110.0, 1.5)}
    lines = "".join(bench._lines("offline", ("geo24", "llama2-70b"), found)).splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert cells[0][2:5] == ["the paper's figure", "", "98.0"]
    assert [row[5:7] for row in cells[1:]] == [
        ["1.00", "0.80"], ["1.25", "1.00"], ["1.20", "0.96"], ["**1.50**", "1.20"], ["1.10", "0.88"]
    ]  # fmt: skip
    assert cells[4][3:5] == ["150.0", "151.0"] and cells[4][7:9] == ["2.50, 9.00", "1.00, 3.00"]
    assert [row[9] for row in cells[1:]] == ["none", "none", "none", "prompt: 2.50 s beside 2.00 s", "none"]
    assert {len(row) for row in cells} == {10}


def document_rows(title):
    """The rows of a table of the committed document, as lists of cells without marks."""
    text = (ROOT / "docs" / "served-bench.md").read_text().split(f"## {title}\n", 1)[1].split("\n## ", 1)[0]
    return [[cell.strip(" *") for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"][
        2:
    ]


def test_a_row_of_the_document_is_measured_again_from_its_stored_plan(bench):
    (row,) = [
        r for r in document_rows("Offline, balanced flow") if r[:3] == ["geo24", "llama2-70b", bench.LABELS["ours"]]
    ]
    plan = bench.served_plans.served_plan("offline", "geo24", "llama2-70b")
    steps = bench.comparison.variants(bench.setting_of("geo24", "llama2-70b"), plan)
    assert f"{bench.comparison.measure(steps['ours'])['decode_tokens_per_s']:.1f}" == row[4]


def test_every_plan_of_the_document_is_stored_and_its_figure_is_the_papers(bench):
    stored = {path.stem for path in (ROOT / "data" / "served_plans").glob("*.json")}
    listed = {"-".join(row[:3]) for row in document_rows("The plans")}
    assert listed and listed <= stored
    paper = {
        tuple(row[:2]): row[4] for row in document_rows("Offline, balanced flow") if row[2] == "the paper's figure"
    }
    published = {"llama2-70b": {"single24": "252.1", "geo24": "98.0", "hetero42": "645.6"}}
    published["llama-30b"] = {"single24": "339.6", "geo24": "232.7"}
    figures = {(cluster, model): value for model, values in published.items() for cluster, value in values.items()}
    assert paper.items() <= figures.items()


def test_the_readme_says_what_the_document_says(bench, tmp_path):
    document, readme = ((ROOT / name).read_text() for name in ("docs/served-bench.md", "README.md"))
    copy = tmp_path / "README.md"
    copy.write_text(readme)
    bench.write_sentence(copy, document)
    assert copy.read_text() == readme
    changed = document.replace("| 1.00 |", "| 1.01 |")
    bench.write_sentence(copy, document)
    assert changed != document and copy.read_text().count("On the published clusters") == 1
