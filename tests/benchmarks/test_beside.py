"""The benchmark of two checkouts: the code of each is what it imports, and ratios are those of one round."""

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def beside(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return __import__("beside")


@pytest.fixture
def checkout(tmp_path):
    """Makes a checkout whose engines give `per_cpu_s` tokens, and write down what they are asked."""

    def make(name: str, per_cpu_s: float) -> Path:
        folder = tmp_path / name
        (folder / "helix_kit").mkdir(parents=True)
        (folder / "helix_kit" / "__init__.py").write_text("print('no answer')\n")
        (folder / "bench_runtime.py").write_text(
            "from pathlib import Path\n"
            "def start_engine(stack, weights, cuts):\n"
            "    return len(cuts) + 1, weights\n"
            "def run_engine(engine, batch, new_tokens):\n"
            "    with open(Path(__file__).parents[1] / 'asked', 'a') as file:\n"
            f"        print({name!r}, *engine, batch, new_tokens, file=file)\n"
            f"    return {{'per_cpu_s': {per_cpu_s} * batch / engine[0], 'coordinator_ms_per_token': 0.25}}\n"
        )
        return folder

    return make


def test_two_checkouts_take_turns_at_the_same_requests(beside, checkout, tmp_path, monkeypatch) -> None:
    program = tmp_path / "program" / "beside.py"  # a folder without this repository's `bench_runtime`
    program.parent.mkdir()
    program.write_text(Path(beside.__file__).read_text())
    monkeypatch.setattr(beside, "__file__", str(program))
    monkeypatch.setattr(beside.Checkout, "commit", "a commit")
    folders = {"now": checkout("now", 3.0), "before": checkout("before", 2.0)}
    found, _ = beside.measure(folders, Path("weights"), [1, 4], 5, rounds=2)
    asked = (tmp_path / "asked").read_text().splitlines()
    first = [f"{name} {workers} weights {batch} 5" for batch in (1, 4) for workers in (1, 4) for name in folders]
    assert asked[:8] == first
    assert sorted(asked[8:]) == sorted(first) and asked[8].startswith("before")
    assert found["now"]["four workers"]["per_cpu_s_4"] == [3.0, 3.0]
    lines = beside.table(found["now"], found["before"], [1, 4])
    assert "| one worker, before | 2.0 | 8.0 |" in lines
    assert "| one worker, now / before | 1.50x (1.50 to 1.50) | 1.50x (1.50 to 1.50) |" in lines
    assert "| coordinator, CPU ms per token, now | 0.250 | 0.250 |" in lines


def test_ratios_are_those_of_a_round(beside) -> None:
    """A slow round lowers both, which leaves the ratio as it is."""
    assert beside.ratios([10.0, 4.0, 12.0], [10.0, 5.0, 10.0]) == (1.0, 0.8, 1.2)


def test_a_folder_without_the_package_is_refused(beside, tmp_path) -> None:
    with (
        pytest.raises(ValueError, match=r"expected a checkout with a folder helix_kit; Python imports .*__init__\.py"),
        beside.Checkout(tmp_path, Path("weights")),
    ):
        pass


def test_engines_that_end_are_told(beside, checkout, tmp_path, monkeypatch) -> None:
    folder = checkout("old", 1.0)
    (folder / "helix_kit" / "__init__.py").write_text("raise SystemExit(3)\n")
    with pytest.raises(RuntimeError, match=r"old ended with exit status 3"), beside.Checkout(folder, Path("weights")):
        pass
