"""`helix-kit sweep`: JSON, table, picture and refusals."""

from __future__ import annotations

import json

QUICK = ("--rates", "0.5,1", "--duration", 40, "--warmup", 5, "--seeds", 1, "--jobs", 1)


def test_json_and_files(helix_kit, plan_file, tmp_path):
    picture, table, kept = tmp_path / "curve.png", tmp_path / "curve.csv", tmp_path / "kept.jsonl"
    command = ("sweep", plan_file, *QUICK, "--slo", "ttft:5", "at:0.5")
    code, out, err = helix_kit(*command, "--json", "--plot", picture, "-o", table, "--resume", kept)
    assert code == 0, err
    told = json.loads(out)
    assert [row["rate_per_s"] for row in told["curves"][0]["rows"]] == [0.5, 1.0]
    assert told["curves"][0]["plan"] == "plan" and "attainment" in told["curves"][0]["rows"][0]
    assert picture.read_bytes().startswith(b"\x89PNG") and len(table.read_text().splitlines()) == 3
    assert len(kept.read_text().splitlines()) == 2
    code, out, _ = helix_kit(*command, "--resume", kept)
    assert code == 0 and "plan: most output" in out and "TTFT p50" in out and "SLO holds until" in out


def test_a_closed_loop_and_two_plans(helix_kit, plan_file):
    more = ("--concurrency", "1,4", *QUICK[2:], "--json")
    code, out, err = helix_kit("sweep", plan_file, plan_file, *more)
    assert code == 0, err
    curves = json.loads(out)["curves"]
    assert [c["plan"] for c in curves] == ["plan", "plan 2"] and curves[0]["rows"][1]["concurrency"] == 4


def test_the_picture_is_checked_before_the_work(helix_kit, plan_file):
    code, _, err = helix_kit("sweep", plan_file, "--rates", "1", "--plot", "curve.gif")
    assert code == 2 and "--plot = 'curve.gif': expected a file name that ends in .png" in err


def test_refusals(helix_kit, plan_file):
    for option, words in [
        (("--rates", "many"), "rates = 'many'"),
        (("--concurrency", "1,x"), "--concurrency = '1,x'"),
        (("--concurrency", "1,\u00b2"), "--concurrency = '1,\u00b2'"),
        (("--workload", "azure"), "workload"),
        (("-o", "table.txt"), "--output"),
        (("--slo", "ttft"), "slo"),
    ]:
        code, _, err = helix_kit("sweep", plan_file, *option)
        assert code == 2 and words in err, err
