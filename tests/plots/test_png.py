"""PNG: of the size of the layout, and the same bytes whatever the hash seed."""

from __future__ import annotations

import struct
import subprocess
import sys

from helix_kit.plots import flow_graph


def test_same_bytes_whatever_the_hash_seed(tmp_path, regions_plan):
    regions_plan.save(tmp_path / "plan.json")
    code = (
        "import sys, hashlib\nfrom helix_kit import Plan\n"
        f"plan = Plan.load({str(tmp_path / 'plan.json')!r})\n"
        "sys.stdout.write(hashlib.sha256(plan.to_svg().encode() + plan.to_png()).hexdigest())"
    )
    runs = {
        subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
        ).stdout
        for seed in ("1", "2")
    }
    assert len(runs) == 1 and len(runs.pop()) == 64


def test_png_has_the_layouts_size_and_is_what_notebooks_get(overlapping_plan, tmp_path):
    png = overlapping_plan.to_png(tmp_path / "plan.png", width=800)
    assert (tmp_path / "plan.png").read_bytes() == png
    assert struct.unpack(">II", png[16:24])[0] == 1600, "two image pixels per pixel of the layout"
    data, metadata = flow_graph(overlapping_plan)._repr_mimebundle_()
    assert data["image/png"] and metadata["image/png"]["width"] == 1100
    assert len(data["text/plain"]) < 200, "the text beside the picture is a title, not the whole plan"
