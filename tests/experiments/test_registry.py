"""What runs again, what does not, and that results are the same bytes."""

import json
import subprocess
import sys
from dataclasses import replace

import pandas as pd
import pytest
from typer.testing import CliRunner

from helix_kit.cli import app
from helix_kit.errors import InputError
from helix_kit.experiments.machinery import digests, registry, running
from helix_kit.experiments.machinery.registry import (
    Context,
    Experiment,
    NotHereError,
    is_current,
    load,
    redraw,
    run_experiment,
)
from helix_kit.experiments.machinery.running import _next, in_order, run_all

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
        function.__module__ = "helix_kit.experiments.figures.trace"
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


def test_an_end_in_the_middle_leaves_the_last_result_whole(toy, tmp_path, monkeypatch):
    run_experiment("first", tmp_path, Context())
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}

    def interrupted(table):
        raise KeyboardInterrupt

    entry = registry.experiments()["first"]
    monkeypatch.setitem(registry.experiments(), "first", replace(entry, draw=interrupted))
    monkeypatch.setattr(registry, "_drawing", lambda name: "another")
    with pytest.raises(KeyboardInterrupt):
        run_experiment("first", tmp_path, Context(seed=1))
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before
    monkeypatch.setitem(registry.experiments(), "first", entry)
    assert run_experiment("first", tmp_path, Context(seed=1))


def test_redrawing_computes_nothing_and_leaves_inputs_as_they_were(toy, tmp_path):
    run_experiment("first", tmp_path, Context())
    before = (tmp_path / "first.png").read_bytes()
    (tmp_path / "first.csv").write_text("x,y\n0,5\n1,0\n")
    inputs = json.loads((tmp_path / "first.json").read_text())["inputs"]
    redraw("first", tmp_path)
    assert toy["first"] == 1 and (tmp_path / "first.png").read_bytes() != before
    assert json.loads((tmp_path / "first.json").read_text())["inputs"] == inputs
    with pytest.raises(InputError, match="helix-kit reproduce second"):
        redraw("second", tmp_path)


def test_what_was_measured_is_a_table_too(toy, tmp_path, monkeypatch):
    entry = registry.experiments()["first"]
    monkeypatch.setitem(registry.experiments(), "first", replace(entry, measures=("what", "value")))
    run_experiment("first", tmp_path, Context())
    assert (tmp_path / "first-measured.csv").read_text() == "what,value\nseconds,1\n"
    nested = {"a": {"x": [[0.5, None], [1, 2]], "y": [[3, 4]]}, "b": 7}
    assert list(registry._cells(nested)) == [("a", "x", 0.5, None), ("a", "x", 1, 2), ("a", "y", 3, 4), ("b", 7)]


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
    trace = {
        p.relative_to(digests.PACKAGE).as_posix()
        for p in digests._sources("helix_kit.experiments.figures.trace", False)
    }
    assert "experiments/figures/trace.py" in trace and not any(p.startswith(("placement/", "plots/")) for p in trace)
    planning = {
        p.relative_to(digests.PACKAGE).as_posix()
        for p in digests._sources("helix_kit.experiments.figures.planning", False)
    }
    # HiGHS is loaded by name at run time: the room counts as a whole.
    assert {"placement/solvers/highs.py", "flow/network.py", "profiles/throughput.py"} <= planning
    assert not any(p.startswith(("runtime/", "widgets/", "cli/", "plots/")) for p in planning)
    drawn = {
        p.relative_to(digests.PACKAGE).as_posix()
        for p in digests._sources("helix_kit.experiments.figures.pictures.trace", True)
    }
    assert {"experiments/figures/pictures/trace.py", "plots/bars.py"} <= drawn
    assert "placement/solvers/highs.py" not in drawn


def _rooms(name):
    """Top folders and modules of the package whose change runs the experiment again."""
    sources = digests._sources(registry.get(name).compute.__module__, False)
    return {p.relative_to(digests.PACKAGE).parts[0].removesuffix(".py") for p in sources}


@pytest.mark.parametrize(
    ("name", "rooms"),
    [
        # The planner loads the search by name, `helix_kit` and `simulator` their parts at first use.
        ("own-plans", {"search", "simulator", "scheduling", "placement", "workload", "profiles", "flow"}),
        ("runtime-and-simulation", {"runtime", "simulator", "scheduling", "placement", "workload", "profiles"}),
        ("single-cluster", {"simulator", "scheduling", "placement", "workload", "profiles", "report"}),
        ("placement-deep-dive", {"simulator", "scheduling", "placement"}),
        ("equal-load", {"simulator", "scheduling", "placement", "workload"}),
        ("ablations", {"placement", "simulator", "flow"}),
        ("robustness", {"analysis", "placement", "profiles", "flow"}),
        ("scaling", {"placement", "profiles", "flow", "cluster", "model"}),
        ("convergence", {"placement", "profiles", "flow"}),
    ],
)
def test_digest_covers_rooms_that_are_loaded_by_name(name, rooms):
    assert rooms <= _rooms(name)


def test_a_change_of_the_search_makes_our_plans_stale(monkeypatch):
    before = digests.code_digest("helix_kit.experiments.figures.own_plans")
    others = digests.code_digest("helix_kit.experiments.figures.planning")
    changed, plain = digests.PACKAGE / "search" / "__init__.py", digests._syntax_digest
    monkeypatch.setattr(digests, "_syntax_digest", lambda path: "other" if path == changed else plain(path))
    assert digests.code_digest("helix_kit.experiments.figures.own_plans") != before
    assert digests.code_digest("helix_kit.experiments.figures.planning") == others


LOADED = """
import sys
from importlib import import_module
from pathlib import Path
from helix_kit.experiments.machinery.registry import Context
module, function, folder = sys.argv[1:]
getattr(import_module(module), function)(Context(fast=True, folder=Path(folder)))
print(" ".join({m.split(".")[1] for m in sys.modules if m.startswith("helix_kit.")}))
"""


@pytest.mark.parametrize("name", ["topology", "problem-sizes"])
def test_what_a_run_loads_is_in_its_digest(name, tmp_path):
    compute = registry.get(name).compute
    call = [sys.executable, "-c", LOADED, compute.__module__, compute.__name__, str(tmp_path)]
    used = set(subprocess.run(call, capture_output=True, text=True, check=True).stdout.split())
    # Pictures have a digest of their own.
    assert "placement" in used and used - {"experiments", "plots"} <= _rooms(name)


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


def test_the_command_redraws_and_tells_unknown_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    call = CliRunner().invoke
    assert call(app, ["reproduce", "gpu-catalogue", "--json"]).exit_code == 0
    (tmp_path / "figures" / "gpu-catalogue.png").unlink()
    assert json.loads(call(app, ["reproduce", "--all", "--redraw", "--json"]).stdout) == {
        "gpu-catalogue": {"redrawn": True}
    }
    assert (tmp_path / "figures" / "gpu-catalogue.png").is_file()
    wrong = call(app, ["reproduce", "gpu-catalog"])
    assert wrong.exit_code != 0 and "did you mean gpu-catalogue" in str(wrong.exception)
    listed = json.loads(call(app, ["reproduce", "--json"]).stdout)
    assert listed["gpu-catalogue"]["current"] and not listed["topology"]["current"]


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
