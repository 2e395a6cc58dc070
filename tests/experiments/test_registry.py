"""What runs again, what does not, and that results are the same bytes."""

import json
from dataclasses import replace

import pandas as pd
import pytest
from typer.testing import CliRunner

from helix_kit.cli import app
from helix_kit.errors import InputError
from helix_kit.experiments import digests, registry, running
from helix_kit.experiments.registry import Context, Experiment, NotHereError, is_current, load, run_experiment
from helix_kit.experiments.running import _next, in_order, run_all

pytest.importorskip("matplotlib")


def _draw(table):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(2, 2))
    figure.subplots().plot(table["x"], table["y"])
    return figure


@pytest.fixture
def toy(monkeypatch):
    """Two experiments, the second reading the first's table; counts how often each is computed."""
    calls = {"first": 0, "second": 0}

    def first(context):
        calls["first"] += 1
        context.measured["seconds"] = calls["first"]
        return pd.DataFrame({"x": [0, 1], "y": [context.seed, 2 + context.fast]})

    def second(context):
        calls["second"] += 1
        return load("first", context.folder).assign(y=lambda t: 2 * t["y"])

    for function in (first, second):
        function.__module__ = "helix_kit.experiments.trace"
    known = {
        "first": Experiment("first", "First", "Table 0", first, _draw, data=("workload",)),
        "second": Experiment("second", "Second", "Table 0", second, _draw, needs=("first",), data=("workload",)),
    }
    monkeypatch.setattr(registry, "experiments", lambda: known)
    return calls


def test_finished_is_not_run_again_and_other_parameters_are(toy, tmp_path):
    assert run_experiment("first", tmp_path, Context())
    assert not run_experiment("first", tmp_path, Context())
    assert is_current("first", tmp_path, Context()) and not is_current("first", tmp_path, Context(seed=1))
    assert run_experiment("first", tmp_path, Context(seed=1))
    assert toy["first"] == 2


@pytest.mark.parametrize("fast_first", [False, True])
def test_fast_results_never_lie_among_full_ones(toy, tmp_path, fast_first):
    run_experiment("first", tmp_path, Context(fast=fast_first))
    assert bool(json.loads((tmp_path / "first.json").read_text())["note"]) == fast_first
    before = (tmp_path / "first.csv").read_bytes()
    for name in ("first", "second"):
        with pytest.raises(InputError, match=r"first\.json: inputs\.fast"):
            list(run_all([name], tmp_path, fast=not fast_first))
    assert (tmp_path / "first.csv").read_bytes() == before and toy == {"first": 1, "second": 0}


def test_a_missing_picture_is_made_again(toy, tmp_path):
    run_experiment("first", tmp_path, Context())
    (tmp_path / "first.pdf").unlink()
    assert run_experiment("first", tmp_path, Context())
    assert (tmp_path / "first.pdf").is_file()


def test_a_new_drawing_draws_again_without_computing(toy, tmp_path):
    run_experiment("first", tmp_path, Context())
    trail = json.loads((tmp_path / "first.json").read_text())
    (tmp_path / "first.json").write_text(json.dumps({**trail, "drawing": "of another day"}))
    assert run_experiment("first", tmp_path, Context())
    assert toy["first"] == 1
    assert json.loads((tmp_path / "first.json").read_text()) == trail


def test_an_interrupted_run_is_done_again(toy, tmp_path):
    run_experiment("first", tmp_path, Context())
    (tmp_path / "first.json").write_text('{"inputs": ')
    assert run_experiment("first", tmp_path, Context())


def test_needed_results_come_first_and_count(toy, tmp_path):
    assert in_order(["second"]) == ["first", "second"]
    assert [(d.name, d.ran) for d in run_all(["second"], tmp_path)] == [("first", True), ("second", True)]
    assert list(load("second", tmp_path)["y"]) == [0, 4]
    (tmp_path / "first.csv").write_text("x,y\n0,5\n1,6\n")
    assert not is_current("second", tmp_path, Context())


def test_same_seed_same_bytes_and_what_was_measured_stays_out_of_the_table(toy, tmp_path):
    for folder in ("a", "b"):
        run_experiment("first", tmp_path / folder, Context(seed=3))
    for end in ("csv", "pdf", "png"):
        assert (tmp_path / "a" / f"first.{end}").read_bytes() == (tmp_path / "b" / f"first.{end}").read_bytes()
    assert load("first", tmp_path / "a").attrs == {"seconds": 1}
    assert load("first", tmp_path / "b").attrs == {"seconds": 2}


def test_timed_ones_run_alone_and_last():
    waiting = ["scaling", "azure-trace", "agreement", "gpu-catalogue"]
    assert _next(waiting, [], set(), 2) == ["azure-trace", "gpu-catalogue"]
    assert _next(["scaling", "agreement"], ["azure-trace"], set(), 2) == []
    assert _next(["scaling", "agreement"], [], set(), 2) == ["scaling"]
    assert _next(["azure-trace"], ["scaling"], set(), 2) == []


def test_what_cannot_be_run_here_is_skipped_and_said(toy, tmp_path, monkeypatch):
    def absent(context):
        raise NotHereError("no torch")

    known = registry.experiments()
    monkeypatch.setitem(known, "first", replace(known["first"], compute=absent))
    (done,) = run_all(["first"], tmp_path)
    assert not done.ran and done.skipped == "no torch" and not (tmp_path / "first.csv").exists()


def test_up_to_date_is_seen_without_starting_workers(toy, tmp_path, monkeypatch):
    list(run_all(["second"], tmp_path))
    monkeypatch.setattr(running.ProcessPoolExecutor, "submit", lambda *a: pytest.fail("a worker was asked"))
    assert [(d.name, d.ran) for d in run_all(["second"], tmp_path, jobs=2)] == [("first", False), ("second", False)]


def test_unknown_names_and_missing_results_are_said(tmp_path):
    with pytest.raises(InputError, match="azure-trace"):
        run_experiment("azur-trace", tmp_path, Context())
    with pytest.raises(InputError, match="helix-kit reproduce azure-trace"):
        load("azure-trace", tmp_path)


def test_digest_follows_imports_by_room():
    trace = {p.relative_to(digests.PACKAGE).as_posix() for p in digests._sources("helix_kit.experiments.trace", False)}
    assert "experiments/trace.py" in trace and not any(p.startswith(("placement/", "plots/")) for p in trace)
    planning = {
        p.relative_to(digests.PACKAGE).as_posix() for p in digests._sources("helix_kit.experiments.planning", False)
    }
    # HiGHS is loaded by name at run time: the room counts as a whole.
    assert {"placement/highs.py", "flow.py", "profiles/throughput.py"} <= planning
    assert not any(p.startswith(("runtime/", "widgets/", "cli/", "plots/")) for p in planning)
    drawn = {
        p.relative_to(digests.PACKAGE).as_posix()
        for p in digests._sources("helix_kit.experiments.pictures.trace", True)
    }
    assert {"experiments/pictures/trace.py", "plots/bars.py"} <= drawn and "placement/highs.py" not in drawn


def test_digest_of_a_source_ignores_comments_and_docstrings(tmp_path):
    texts = {
        "plain": "def f(x):\n    return x + 1\n",
        "commented": '"""A module."""\n\n\ndef f(x):\n    """More."""\n    # why\n    return (x + 1)\n',
        "changed": "def f(x):\n    return x + 2\n",
    }
    found = {}
    for name, text in texts.items():
        (tmp_path / f"{name}.py").write_text(text)
        found[name] = digests._syntax_digest(tmp_path / f"{name}.py")
    assert found["plain"] == found["commented"] != found["changed"]


def test_digest_changes_with_a_file(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("1")
    before = digests.files_digest([path])
    path.write_text("2")
    assert digests.files_digest([path]) != before


def test_every_experiment_says_what_it_is():
    known = registry.experiments()
    assert next(iter(known)) == "worked-example"
    for name, entry in known.items():
        assert entry.title and entry.paper and entry.text, name
        assert all(other in known for other in entry.needs), name


def test_the_command_puts_fast_results_into_their_own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for wanted in ("azure-trace --json --fast", "azure-trace --json"):
        result = CliRunner().invoke(app, ["reproduce", *wanted.split()])
        assert result.exit_code == 0 and json.loads(result.stdout)["azure-trace"]["ran"]
    trails = [
        json.loads((tmp_path / folder / "azure-trace.json").read_text()) for folder in ("figures/fast", "figures")
    ]
    assert [t["inputs"]["fast"] for t in trails] == [True, False]
    assert not json.loads(CliRunner().invoke(app, ["reproduce", "azure-trace", "--json"]).stdout)["azure-trace"]["ran"]
