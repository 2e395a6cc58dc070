"""Methods of the user's own: registered, from an installed package, from a file; each misuse is one clear message."""

from __future__ import annotations

import functools
import re
import sys

import numpy as np
import pytest

import helix_kit as hk
from helix_kit.errors import HelixKitError, InfeasibleError, InputError
from helix_kit.placement.method import Method, Placed
from helix_kit.placement.methods import BUILT_IN, METHODS, method_named, method_names, register_method
from helix_kit.placement.own_method import MethodFailedError

FIRST_FIT = """
def first_fit(task):
    placement, start = {}, 0
    for node in task.problem.cluster.nodes:
        if start < task.problem.num_layers:
            end = min(start + task.problem.max_layers(node.name), task.problem.num_layers)
            placement[node.name], start = (start, end), end
    return placement

answer = 42
"""
SPACE: dict = {}
exec(FIRST_FIT, SPACE)
first_fit = SPACE["first_fit"]


@pytest.fixture(scope="module")
def six() -> hk.Cluster:
    return hk.Cluster.model_validate({"name": "six", "nodes": [{"gpu": "L4", "count": 6}]})


@pytest.fixture(scope="module")
def model() -> hk.Model:
    return hk.Model.preset("llama-30b")


def test_a_registered_method_is_a_method_like_others(six, model):
    assert hk.register_method("first-fit", first_fit) is first_fit
    plan = hk.plan(six, model, method="first-fit")
    # Six L4 hold 11 layers each, so five are full and the last holds what is left of 60.
    assert [plan.placement[f"L4-{i}"] for i in range(6)] == [(11 * i, min(11 * i + 11, 60)) for i in range(6)]
    assert plan.method == "first-fit" and 0 < plan.flow_tokens_per_s <= plan.bound_tokens_per_s
    assert "first-fit" in method_names()
    workload = hk.Workload.constant(rate_per_s=0.5, duration_s=4, input_tokens=50, output_tokens=4)
    table = hk.compare(["first-fit", "proportional"], workload, cluster=six, model=model, duration_s=30)
    assert table["plan"].tolist() == ["first-fit", "proportional"] and table["finished"].tolist() == [2, 2]


def test_a_method_is_loaded_before_its_clock_starts(six, model, monkeypatch):
    happened = []
    loaded = Method(METHODS["swarm"].place, load=lambda: happened.append("loaded"))
    monkeypatch.setitem(METHODS, "swarm", loaded)
    hk.plan(six, model, method="swarm", progress=lambda *_: happened.append("progress"))
    assert happened[:2] == ["loaded", "progress"]


def test_a_decorator_a_partial_and_a_replacement(six, model):
    @hk.register_method("mine", options=["max_stages"])
    def place(task, width=5):
        assert task.options.max_stages in (None, 7)
        return {f"L4-{i}": (10 * i, 10 * i + 10) for i in range(6)}

    assert METHODS["mine"].options == ("max_stages",)
    assert hk.plan(six, model, method="mine", max_stages=7).placement["L4-0"] == (0, 10)
    assert hk.plan(six, model, method="pattern", max_stages=7, time_limit_s=5).placement, "others keep their options"
    with pytest.raises(InputError, match="pins"):
        hk.plan(six, model, method="mine", pins={"L4-0": (0, 10)})
    register_method("mine", functools.partial(place, width=6))
    assert METHODS["mine"].options == (), "registered again, it is another method"


def test_numbers_of_numpy_and_lists_are_ranges(six, model):
    register_method("mine", lambda task: {f"L4-{i}": np.array([10 * i, 10 * i + 10]) for i in range(6)})
    placement = hk.plan(six, model, method="mine").placement
    assert placement["L4-1"] == (10, 20) and all(type(x) is int for span in placement.values() for x in span)


def test_what_a_method_knows_is_in_the_plan(six, model):
    spans = {f"L4-{i}": (10 * i, 10 * i + 10) for i in range(6)}
    register_method("mine", lambda task: Placed(spans, bounds={"mine": 400.0}, notes=["by hand"]))
    plan = hk.plan(six, model, method="mine")
    assert plan.bounds["mine"] == 400.0 and plan.notes == ("by hand",)


def without_task():
    return {}


@pytest.mark.parametrize(
    ("name", "place", "options", "words"),
    [
        ("pattern", first_fit, (), "the package's own"),
        ("", first_fit, (), "expected a name"),
        ("my method", first_fit, (), "expected a name"),
        ("mine.py:place", first_fit, (), "expected a name"),
        (3, first_fit, (), "expected a name"),
        ("mine", 42, (), "not an object of int"),
        ("mine", Placed, (), "not a class"),
        ("mine", without_task, (), "without_task takes ()"),
        ("mine", lambda problem, options: {}, (), "takes (problem, options)"),
        ("mine", first_fit, ("width",), "options = ('width',)"),
        ("mine", first_fit, ("seed",), "all methods take the other options"),
        ("mine", first_fit, "pins", "expected a list"),
    ],
)
def test_what_is_no_method_is_refused_when_it_is_registered(name, place, options, words):
    with pytest.raises(InputError, match=re.escape(words)):
        register_method(name, place, options=options)
    assert set(METHODS) == BUILT_IN


def failing(task):
    return {}["absent"]


async def waiting(task):
    return {}


@pytest.mark.parametrize(
    ("place", "error", "words"),
    [
        (lambda task: None, InputError, "method 'mine': returned None: expected a Placed"),
        (lambda task: [("L4-0", 0, 60)], InputError, "returned an object of list"),
        (lambda task: Placed([("L4-0", (0, 60))]), InputError, "placement = 'list'"),
        (lambda task: {"L4-9": (0, 60)}, InputError, "unknown node 'L4-9'"),
        (lambda task: {0: (0, 60)}, InputError, "expected the name of a node"),
        (lambda task: {"L4-0": (0, 61)}, InputError, "expected 0 <= start < end <= 60"),
        (lambda task: {"L4-0": (9, 9)}, InputError, "expected 0 <= start < end <= 60"),
        (lambda task: {"L4-0": (0.5, 9)}, InputError, "expected (start, end) in whole layers"),
        (lambda task: {"L4-0": 9}, InputError, "expected (start, end) in whole layers"),
        (lambda task: {"L4-0": (0, 5, 9)}, InputError, "expected (start, end) in whole layers"),
        (lambda task: {"L4-0": (0, 10)}, InfeasibleError, "no placement"),
        (lambda task: {}, InfeasibleError, "no placement"),
        (lambda task: Placed(first_fit(task), bounds={"B": 1.0}), InputError, "this one carries"),
        (lambda task: Placed(first_fit(task), bounds={"B": "many"}), InputError, "expected tokens/s above 0"),
        (failing, MethodFailedError, "method 'mine' failed: KeyError: 'absent'"),
    ],
)
def test_a_wrong_result_is_told_with_the_method_s_name(six, model, place, error, words):
    register_method("mine", place)
    with pytest.raises(error, match=re.escape(words)) as caught:
        hk.plan(six, model, method="mine")
    assert isinstance(caught.value, HelixKitError) and "mine" in str(caught.value)


def test_an_error_of_a_method_names_its_line(six, model):
    register_method("mine", failing)
    with pytest.raises(MethodFailedError, match=rf"test_methods.py, line {failing.__code__.co_firstlineno + 1}\)") as e:
        hk.plan(six, model, method="mine")
    assert isinstance(e.value.__cause__, KeyError)


def test_coroutines_are_no_methods():
    with pytest.raises(InputError, match="not a coroutine"):
        register_method("mine", waiting)


def test_a_function_in_a_file_on_the_command_line(helix_kit, own_folder):
    tmp_path = own_folder
    (tmp_path / "mine.py").write_text(FIRST_FIT)
    (tmp_path / "six.yaml").write_text("name: six\nnodes: [{gpu: L4, count: 6}]\n")
    base = ("plan", "six.yaml", "--model", "llama-30b", "--json", "--method")
    code, out, err = helix_kit(*base, "./mine.py:first_fit")
    assert code == 0, err
    plan = hk.Plan.model_validate_json(out)
    assert plan.method == "./mine.py:first_fit" and plan.placement["L4-5"] == (55, 60)
    for wrong, words in [
        ("./mine.py:best_fit", "did you mean first_fit"),
        ("./mine.py:answer", "not an object of int"),
        ("absent:place", "there is no module 'absent'"),
        ("first-fit", "expected one of pattern, paper-milp"),
    ]:
        code, out, err = helix_kit(*base, wrong)
        assert (code, out) == (2, "") and words in err and f"method = {wrong!r}" in err


def test_an_installed_package_adds_a_method(helix_kit, own_folder, monkeypatch):
    tmp_path = own_folder
    (tmp_path / "fitting.py").write_text(
        "from helix_kit.placement import Method\n" + FIRST_FIT + "\nbest = Method(first_fit, ('max_stages',))\n"
    )
    info = tmp_path / "fitting-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: fitting\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[helix_kit.methods]\nfirst-fit = fitting:first_fit\nbest = fitting:best\n"
        "absent = fitting:absent\nnumber = fitting:answer\npattern = fitting:first_fit\n"
    )
    (tmp_path / "six.yaml").write_text("name: six\nnodes: [{gpu: L4, count: 6}]\n")

    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    base = ("plan", "six.yaml", "--model", "llama-30b", "--json", "--method")
    with pytest.warns(UserWarning, match="'pattern' of fitting:first_fit is left out"):
        code, out, err = helix_kit(*base, "first-fit")
    assert code == 0, err
    assert hk.Plan.model_validate_json(out).placement["L4-5"] == (55, 60)
    assert helix_kit(*base, "best", "--max-stages", "9")[0] == 0
    assert helix_kit(*base, "first-fit", "--max-stages", "9")[0] == 2
    code, _, err = helix_kit(*base, "absent")
    assert code == 2
    assert "the entry point 'fitting:absent' of package fitting cannot be loaded: AttributeError" in err
    assert "not an object of int" in helix_kit(*base, "number")[2]
    assert method_names()[-4:] == ["first-fit", "best", "absent", "number"]


def test_help_lists_the_table(helix_kit):
    words = " ".join(helix_kit("plan", "--help")[1].replace("│", " ").split())
    assert all(name in words for name in BUILT_IN)


def test_a_function_in_place_of_a_name_says_how_to_name_it(six, model):
    with pytest.raises(InputError, match=r"hk\.register_method\(name"):
        hk.plan(six, model, method=first_fit)
    assert isinstance(method_named("pattern"), Method)
