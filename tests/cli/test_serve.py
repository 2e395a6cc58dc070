"""`helix-kit serve`: with `--prompt` it prints the rates of the tokens that it shows; unknown options are refused."""

from __future__ import annotations

import json
import os
import re
import signal
import time

import pytest
import typer

pytest.importorskip("torch")

from helix_kit import Plan, Problem
from helix_kit.cli import app
from helix_kit.runtime import Engine
from helix_kit.runtime.spec import ATTENTION
from helix_kit.runtime.weights.tiny import tiny_checkpoint, tiny_plan

MINE = """
from helix_kit.scheduling import Policy

class First(Policy):
    def __init__(self, pipelines):
        self.first = pipelines[0][0]

    def route(self, request, view):
        if request.input_tokens == 3:
            raise LookupError("no prompt of three")
        return self.first
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A plan whose steps take 12 ms in each of 6 layers, and its weights."""
    folder = tmp_path_factory.mktemp("serve")
    weights = tiny_checkpoint(folder / "tiny")
    plan = folder / "plan.json"
    tiny = tiny_plan(weights, {"a": (0, 3), "b": (3, 6)}, step_ms=24.0)
    problem = Problem.of(
        tiny.cluster, tiny.model, tiny.profiles
    )  # a plan in a file has the throughputs of its profiles
    Plan.from_placement(problem, tiny.placement, method="hand").save(plan)
    (folder / "mine.py").write_text(MINE)
    return plan, weights, folder / "mine.py"


def serve(helix_kit, files, *more):
    plan, weights, _ = files
    started_s = time.monotonic()
    code, out, err = helix_kit("serve", plan, "--weights", weights, "--launcher", "inproc", *more)
    assert code == 0, err
    return out, time.monotonic() - started_s


def test_the_rate_is_that_of_the_answer_not_of_the_start(helix_kit, files):
    out, _ = serve(helix_kit, files, "--prompt", "w5 w6", "--max-new-tokens", 12)
    tokens, seconds, rate = re.search(
        r"Generated: (\d+) tokens for 1 prompt in ([\d.]+) s, ([\d.]+) tokens/s", out
    ).groups()
    decoded = float(re.search(r"Decode throughput: ([\d.]+) tokens/s", out).group(1))
    latency_s = float(re.search(r"Decode latency, s\W+([\d.]+)", out).group(1))
    assert float(rate) == pytest.approx(int(tokens) / float(seconds), rel=0.02, abs=0.06)
    assert decoded == pytest.approx(1 / latency_s, rel=0.02, abs=0.06)
    # Six layers of 12 ms a token: no more than 13.9 tokens/s.
    assert max(float(rate), decoded) <= 14
    # Not the 2 tokens/s of a clock that runs since the start: the prompt's time, and eleven decode steps.
    prompt_s = float(re.search(r"Prompt latency, s\W+([\d.]+)", out).group(1))
    assert prompt_s + 11 * latency_s == pytest.approx(float(seconds), rel=0.03, abs=0.06)


def test_json_has_the_same_numbers(helix_kit, files):
    prompts = ("--prompt", "w5 w6", "--prompt", "w7 w8 w9")
    out, whole_s = serve(helix_kit, files, *prompts, "--max-new-tokens", 8, "--json")
    told = json.loads(out)
    tokens = sum(len(answer["token_ids"]) for answer in told["completions"])
    summary = told["summary"]
    start_s, end_s = summary["window_s"]
    assert 0 < start_s < end_s < whole_s + start_s
    assert summary["output_tokens_per_s"] * (end_s - start_s) == pytest.approx(tokens)
    assert summary["decode_tokens_per_s"] > (tokens - 2) / (end_s - start_s), "counted from the first token on"


def test_one_token_is_no_decoding(helix_kit, files):
    out, _ = serve(helix_kit, files, "--prompt", "w5", "--max-new-tokens", 1)
    assert "Decode throughput: 0.0 tokens/s" in out and "Generated: 1 token for 1 prompt" in out


def test_a_policy_of_ones_own_serves(helix_kit, files):
    policy = f"{files[2]}:First"
    out, _ = serve(helix_kit, files, "--prompt", "w5", "--max-new-tokens", 2, "--policy", policy, "--json")
    assert json.loads(out)["completions"][0]["pipeline"] == [["a", 0, 3], ["b", 3, 6]]


def test_a_prompt_at_which_the_policy_raises_does_not_cost_the_other_answers(helix_kit, files):
    plan, weights, mine = files
    options = ("--launcher", "inproc", "--policy", f"{mine}:First", "--max-new-tokens", 2)
    prompts = ("--prompt", "w5", "--prompt", "w5 w6 w7")
    code, out, err = helix_kit("serve", plan, "--weights", weights, *options, *prompts, "--json")
    answered, failed = json.loads(out)["completions"]
    assert code == 1 and "1 of 2 prompts failed" in err
    assert len(answered["token_ids"]) == 2
    assert "policy 'First': route raised LookupError: no prompt of three (mine.py, line " in failed["error"]


@pytest.mark.parametrize(
    "option, words",
    [
        (("--attention", "flash"), "attention = 'flash': expected one of auto, triton, flashinfer, varlen, sdpa"),
        (("--devices", "gpu"), "devices = 'gpu': expected plan, any, cpu"),
    ],
)
def test_unknown_words_of_serve_are_wrong_input(helix_kit, plan_file, option, words):
    code, _, err = helix_kit("serve", plan_file, "--weights", "nowhere", "--prompt", "x", *option)
    assert code == 2 and words in " ".join(err.split())


def test_a_replay_is_reported_as_a_simulation(helix_kit, files, tmp_path):
    trace = tmp_path / "short.csv"
    trace.write_text("arrival_s,input_tokens,output_tokens\n0,5,3\n0.1,4,4\n0.2,6,1\n")
    rows = tmp_path / "rows.csv"
    more = ("--replay", trace, "--records", rows, "--goodput", "ttft:30", "tpot:0.001", "--json")
    out, _ = serve(helix_kit, files, *more)
    summary = json.loads(out)
    assert summary["engine"] == "runtime" and summary["finished"] == 3
    assert summary["tpot_s"]["min"] > 0.05, "six layers of 12 ms a token"
    good = summary["goodput"]
    assert (good["decided"], good["kept"], good["kept_by_limit"]) == (3, 1, {"ttft": 3, "tpot": 1})
    assert len(rows.read_text().splitlines()) == 4


@pytest.fixture
def replayed(monkeypatch):
    """Lets a function of the engine run once a request of a replay has been answered."""
    replay = Engine.replay

    def lets(happen):
        def begin(engine, *args, progress, **options):
            left = [happen]

            def watch(done, of):
                progress(done, of)
                if done and left:
                    left.pop()(engine)

            return replay(engine, *args, progress=watch, **options)

        monkeypatch.setattr(Engine, "replay", begin)

    return lets


def steady_trace(folder):
    path = folder / "steady.csv"
    rows = "".join(f"{i / 5},5,3\n" for i in range(20))
    path.write_text(f"arrival_s,input_tokens,output_tokens\n{rows}")
    return path


def test_requests_that_fail_are_said_by_notes_and_exit_code(helix_kit, files, tmp_path, replayed):
    plan, weights, _ = files
    replayed(lambda engine: os.kill(engine.status().workers["b"].pid, signal.SIGKILL))
    code, out, err = helix_kit("serve", plan, "--weights", weights, "--replay", steady_trace(tmp_path), "--json")
    assert code == 1, err
    told = json.loads(out)
    assert told["finished"] > 0 and told["failed"] > 0 and told["lost_workers"] == 1
    lost, failed = told["notes"]
    assert re.fullmatch(r"worker b was lost at \d s: its process ended", lost)
    assert failed.startswith(f"{told['failed']} of 20 requests failed: no pipeline is left through all layers")


def test_a_replay_that_is_stopped_is_told_by_the_exit_code(helix_kit, files, tmp_path, replayed):
    plan, weights, _ = files
    replayed(lambda _: os.kill(os.getpid(), signal.SIGINT))
    command = ("serve", plan, "--weights", weights, "--launcher", "inproc", "--replay", steady_trace(tmp_path))
    code, out, err = helix_kit(*command, "--json")
    assert code == 130 and "helix-kit: stopped; this is what was served until then" in err
    told = json.loads(out)
    assert told["partial"] and 0 < told["finished"] < 20


def test_prompts_and_a_replay_exclude_each_other(helix_kit, plan_file):
    code, _, err = helix_kit("serve", plan_file, "--replay", "poisson", "--prompt", "x")
    assert code == 2 and "expected one of --http, --prompt and --replay" in err


def test_long_requests_of_a_replay_are_refused_or_cut(helix_kit, files, tmp_path):
    plan, weights, _ = files
    trace = tmp_path / "long.csv"
    trace.write_text("arrival_s,input_tokens,output_tokens\n0,5,3\n0.1,600,900\n")
    options = ("serve", plan, "--weights", weights, "--launcher", "inproc", "--replay", trace)
    code, _, err = helix_kit(*options)
    told = " ".join(err.split())
    assert code == 2 and "long.csv: 1 of 2 requests do not fit into the model's context of 512 tokens" in told
    out, _ = serve(helix_kit, files, "--replay", trace, "--max-input-tokens", 20, "--max-output-tokens", 4, "--json")
    told = json.loads(out)
    assert told["finished"] == 2
    assert told["notes"] == ["1 of 2 requests were longer, and are cut to 20 tokens in and 4 tokens out"]


def test_a_replay_says_which_requests_no_pages_hold(helix_kit, files, tmp_path):
    trace = tmp_path / "pages.csv"
    trace.write_text("arrival_s,input_tokens,output_tokens\n0,5,3\n0.1,60,9\n")
    # 12 pages are 4 for each of three layers: 64 tokens.
    out, _ = serve(helix_kit, files, "--replay", trace, "--kv-pages", 12, "--json")
    told = json.loads(out)
    assert (told["finished"], told["rejected"]) == (1, 1)
    [note] = told["notes"]
    assert note.startswith("1 of 2 requests fit into the KV pages of no pipeline") and "may have 64 tokens" in note


def test_the_context_can_be_lowered_but_not_raised(helix_kit, files):
    plan, weights, _ = files
    options = ("serve", plan, "--weights", weights, "--launcher", "inproc", "--prompt", "w5 w6", "--max-new-tokens", 20)
    code, _, err = helix_kit(*options, "--max-context-tokens", 10)
    assert code == 2 and "the model's maximum context length is 10 tokens" in " ".join(err.split())
    code, _, err = helix_kit(*options, "--max-context-tokens", 2048)
    told = " ".join(err.split())
    assert code == 2 and "--max-context-tokens = 2048: the model's positions reach 512 tokens" in told
    assert "rope_type yarn, factor 4 or more, original_max_position_embeddings 512" in told


def test_how_layers_are_computed_is_said_once(helix_kit, files):
    plan, weights, _ = files
    code, _, err = helix_kit(
        "serve", plan, "--weights", weights, "--launcher", "inproc", "--prompt", "w5", "--max-new-tokens", 2
    )
    assert code == 0 and err.count("a, b: attention sdpa, layers of transformers, float32") == 1


def test_limits_of_workers_are_options(helix_kit, files, monkeypatch):
    from helix_kit import runtime

    seen = {}

    def stop(plan, **options):
        seen.update(options)
        raise runtime.EngineError("seen")

    monkeypatch.setattr(runtime, "serve", stop)
    plan, weights, _ = files
    options = ("serve", plan, "--weights", weights, "--prompt", "w5")
    helix_kit(*options, "--silence-limit", 45, "--start-limit", 7)
    assert (seen["timeouts"].start_s, seen["timeouts"].silence_s) == (7, 45)
    helix_kit(*options, "--attention", "flashinfer")
    assert (seen["timeouts"].start_s, seen["timeouts"].silence_s) == (900, 10)
    assert (seen["deterministic"], seen["attention"], seen["graphs"]) == (False, "flashinfer", True)
    helix_kit(*options, "--deterministic", "--attention", "varlen", "--no-graphs")
    assert (seen["deterministic"], seen["attention"], seen["graphs"]) == (True, "varlen", False)
    code, _, err = helix_kit(*options, "--silence-limit", 0)
    assert code == 2 and "silence_s = 0.0: expected more than 0" in err


def test_help_explains_gpu_options_in_words_of_vllm() -> None:
    """Taken from the options themselves: a terminal may break a line within a word."""
    options = typer.main.get_command(app).commands["serve"].params
    told = {option.name: option.help for option in options if hasattr(option, "help")}
    for backend in ATTENTION:
        assert f"{backend}:" in told["attention"]
    words = {
        "attention": "--attention-backend",
        "graphs": "--enforce-eager",
        "dtype": "--dtype",
        "memory_share": "--gpu-memory-utilization",
        "max_context_tokens": "--max-model-len",
        "prefix_cache": "--enable-prefix-caching",
        "deterministic": "VLLM_BATCH_INVARIANT",
    }
    assert all(f"vLLM's {word}" in told[option] for option, word in words.items())
