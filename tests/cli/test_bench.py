"""`helix-kit bench`: JSON, files, and refusals."""

from __future__ import annotations

import json

from stub_server import Stub


def test_json_and_files(helix_kit, tmp_path):
    paths = [tmp_path / name for name in ("rows.csv", "vllm.json", "aiperf.jsonl")]
    files = ("--records", paths[0], "--vllm-json", paths[1], "--aiperf-jsonl", paths[2])
    load = ("--workload", "constant", "--rate", 20, "--duration", 0.3, "--input-tokens", 20, "--output-tokens", 3)
    with Stub() as stub:
        code, out, err = helix_kit("bench", stub.url, *load, *files, "--goodput", "ttft:30", "--json")
        assert code == 0, err
        code, text, _ = helix_kit("bench", stub.url, *load, "--concurrency", 2)
    summary = json.loads(out)
    assert summary["finished"] == 6 and summary["goodput"]["kept"] == 6 and summary["engine"] == "endpoint"
    assert all(path.stat().st_size for path in paths)
    assert json.loads(paths[1].read_text())["completed"] == 6
    assert code == 0 and "6 of 6 requests finished, 0 failed, 0 were rejected" in text and "closed loop" in text


def test_refusals(helix_kit):
    for option, words in [
        (("--workload", "azure"), "--workload"),
        (("--extra-body", "top_k=1"), "--extra-body"),
        (("--prompts", "words"), "prompts"),
        (("--records", "/nowhere/rows.csv"), "--records"),
    ]:
        code, _, err = helix_kit("bench", "http://127.0.0.1:9", *option)
        assert code == 2 and words in err, err
    code, _, err = helix_kit("bench", "http://127.0.0.1:9")
    assert code == 1 and "does not answer" in err
