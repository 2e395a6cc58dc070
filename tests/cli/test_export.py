"""`helix-kit export`: JSON, files, refusals."""

from __future__ import annotations

import json
import re


def test_json_and_files(helix_kit, plan_file, tmp_path):
    code, out, err = helix_kit("export", plan_file, "--to", "sglang", "-o", tmp_path / "out", "--json")
    assert code == 0, err
    told = json.loads(out)
    assert told["engine"] == "sglang" and 0 < told["loss"] < 1
    assert all((tmp_path / "out" / name).is_file() for name in told["files"])
    code, out, _ = helix_kit("export", plan_file, "--to", "llama.cpp", "-o", tmp_path / "cpp", "--model", "m.gguf")
    assert code == 0 and "Replica 0:" in out and "is lost, since pipelines share nodes" in out
    assert re.search(r"Flow: [\d,.]+ tokens/s \(the plan: [\d,.]+\); [\d.]+ % of the plan's is lost", out)


def test_refusals(helix_kit, plan_file, tmp_path):
    code, _, err = helix_kit("export", plan_file, "--to", "tgi", "-o", tmp_path)
    assert code == 2 and "--to" in err and "vllm" in err
    code, _, err = helix_kit("export", plan_file, "--to", "vllm", "-o", tmp_path, "--max-loss", 0)
    assert code == 2 and "share nodes" in err
