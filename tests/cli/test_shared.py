"""Help texts come from the docstrings of the option records; outputs are checked before the work."""

import io
from types import SimpleNamespace

import pytest
from rich.console import Console

from helix_kit.cli import shared
from helix_kit.cli.shared import Status, app, check_writable, goodput_line, help_of, print_plan
from helix_kit.errors import InputError
from helix_kit.placement.served import Served
from helix_kit.search import ServedOptions


def test_help_is_the_text_under_the_options_name():
    text = help_of(ServedOptions, "rate_per_s")
    assert text.startswith("Requests/s, for mode online and objective goodput") and "``" not in text
    assert help_of(ServedOptions, "execution").startswith("Rules that plans are judged by: range")


def test_plan_help_shows_the_records_texts(helix_kit):
    code, out, _ = helix_kit("plan", "--help")
    words = " ".join(out.replace("│", " ").split())
    assert code == 0 and "Objective served: Mean decode latency in s that a plan must keep to" in words


def test_an_output_that_cannot_be_written_is_named_by_its_option(tmp_path):
    with pytest.raises(InputError, match="folder"):
        check_writable(write_lp=tmp_path)
    with pytest.raises(InputError, match="--pareto-png"):
        check_writable(pareto_png=tmp_path / "absent" / "x.png")
    check_writable(output=tmp_path / "new.json", records=None)


@pytest.mark.parametrize(("window_s", "word"), [(0.0, "predicted"), (60.0, "simulated")])
def test_a_served_figure_says_whether_it_was_simulated(overlapping_plan, capsys, window_s, word):
    served = Served(decode_tokens_per_s=10.0, window_s=window_s, mode="offline", half_width_tokens_per_s=0.25)
    print_plan(overlapping_plan.model_copy(update={"served": served}), None)
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("Served:"))
    assert "10.0 +- 0.2 decode" in line
    assert {"predicted", "simulated"} & set(line.replace("(", " ").replace(",", " ").replace(";", " ").split()) == {
        word
    }


def test_a_plan_of_replicas_has_no_bound_of_the_largest_flow(overlapping_plan, capsys):
    served = Served(decode_tokens_per_s=10.0, window_s=60.0, mode="offline", max_flow_tokens_per_s=50.0)
    print_plan(overlapping_plan.model_copy(update={"served": served}), None)
    assert "50.0 tokens/s, of the sets of replicas that were tried" in capsys.readouterr().out


def test_brackets_in_names_are_no_markup(overlapping_plan, capsys, monkeypatch):
    cluster = overlapping_plan.cluster.model_copy(update={"name": "rack [/b] [bold]"})
    plan = overlapping_plan.model_copy(update={"cluster": cluster})
    print_plan(plan, None)
    assert "on rack [/b] [bold]" in capsys.readouterr().out
    terminal = Console(file=(text := io.StringIO()), force_terminal=True)
    monkeypatch.setattr(shared, "stderr", terminal)
    with Status("Placing a model on [/b]", quiet=False) as say:
        say("[/c] done")
    assert "[/b]" in text.getvalue()


def test_more_than_a_thousand_requests_a_second_are_no_power_of_ten():
    goodput = {
        "requests_per_s": 12345.6, "output_tokens_per_s": 1.0, "kept": 9, "decided": 10, "attainment": 0.9,
        "holds": False, "kept_by_limit": {"ttft": 0.9}, "slo": {"ttft_s": 2.0, "at": 0.99},
    }  # fmt: skip
    assert goodput_line(goodput).startswith("Goodput: 12,345.6 requests/s")


def test_estimated_kinds_stand_in_one_entry_of_the_profiles(overlapping_plan, capsys):
    print_plan(overlapping_plan, None)
    out = capsys.readouterr().out
    assert "roofline estimate (A10G, T4, V100-16G)" in out and "datasheet" not in out


def test_without_a_terminal_progress_is_a_line_in_ten_seconds_and_none_twice(monkeypatch, capsys):
    now = SimpleNamespace(tenths=1000)
    monkeypatch.setattr(shared, "time", SimpleNamespace(monotonic=lambda: now.tenths / 10))
    with Status("Working", quiet=False) as say, Status("Working", quiet=True) as silent:
        for step in range(300):  # thirty seconds
            now.tenths += 1
            say("waiting" if step >= 205 else f"{step} of 300")
            silent("nothing")
    assert capsys.readouterr().err.splitlines() == ["Working: 99 of 300", "Working: 199 of 300", "Working: waiting"]


def test_help_names_the_commands(helix_kit):
    code, out, _ = helix_kit("--help")
    assert code == 0 and all(word in out for word in ("plan", "simulate", "serve", "catalog"))


def test_the_help_of_each_command_has_an_example():
    without = [
        c.name for c in app.registered_commands if f"Example: [bold]helix-kit {c.name}[/]" not in c.callback.__doc__
    ]
    assert without == []


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (["plan", "single42", "--model", "llama2-70b"], "did you mean single24"),
        (["plan", "single24", "--model", "llama2-7b"], "llama2-70b"),
        (["plan", "single24", "--model", "llama2-70b", "--time-limit", "0"], "--time-limit"),
        (["plan", "single24"], "--model"),
        (["plan", "single24", "--model", "llama2-70b", "--method", "guess"], "method = 'guess'"),
        (["plan", "single24", "--model", "llama2-70b", "--solver", "guess"], "guess"),
        (["plan", "single24", "--model", "llama2-70b", "--pin", "L4-0"], "--pin = 'L4-0'"),
        (["plan", "single24", "--model", "llama2-70b", "--pin", "L4-99=0:4"], "L4-99"),
        (["plan", "single24", "--model", "llama2-70b", "-o", "absent/plan.json"], "--output: cannot be written"),
        (["plan", "single24", "--model", "llama2-70b", "-o", "docs"], "it is a folder"),
        (["simulate", "absent.json"], "absent.json"),
        (["simulate", "absent.json", "--records", "absent/records.csv"], "--records: cannot be written"),
        (["simulate", "pyproject.toml"], "not valid JSON"),
    ],
)
def test_wrong_arguments(helix_kit, monkeypatch, root, args, expected):
    monkeypatch.chdir(root)
    code, _, err = helix_kit(*args)
    assert code == 2
    assert expected in err and "Traceback" not in err
