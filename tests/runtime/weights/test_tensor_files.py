"""Which files of a folder hold the model."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from helix_kit.errors import InputError
from helix_kit.runtime.weights.tensor_files import TensorHeader, files_by_tensor, read_header


def put(folder: Path, name: str, *tensors: str) -> Path:
    save_file({tensor: np.zeros((2, 3), np.float32) for tensor in tensors}, folder / name)
    return folder / name


def test_the_whole_file_wins_over_all_others(tmp_path: Path) -> None:
    whole = put(tmp_path, "model.safetensors", "a", "b")
    put(tmp_path, "model_ema.safetensors", "a", "b")
    put(tmp_path, "model-00001-of-00001.safetensors", "a")
    put(tmp_path, "adapter_model.safetensors", "c")
    assert files_by_tensor(tmp_path) == {"a": whole, "b": whole}


def test_an_index_names_the_files(tmp_path: Path) -> None:
    first, second = put(tmp_path, "x-1.safetensors", "a"), put(tmp_path, "x-2.safetensors", "b")
    put(tmp_path, "consolidated.safetensors", "a")
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": first.name, "b": second.name}}))
    assert files_by_tensor(tmp_path) == {"a": first, "b": second}
    second.unlink()
    with pytest.raises(InputError, match=r"x-2.safetensors: no such file: model.safetensors.index.json says"):
        files_by_tensor(tmp_path)
    for wrong in ({"weight_map": []}, [], {"weight_map": {"a": 1}}):
        index.write_text(json.dumps(wrong))
        with pytest.raises(InputError, match="weight_map: expected a mapping"):
            files_by_tensor(tmp_path)
    index.write_text(json.dumps({"weight_map": {"a": "../x-1.safetensors"}}))
    with pytest.raises(InputError, match="in the same folder"):
        files_by_tensor(tmp_path)


def test_shards_without_an_index(tmp_path: Path) -> None:
    first = put(tmp_path, "model-00001-of-00002.safetensors", "a")
    put(tmp_path, "consolidated.safetensors", "a", "c")
    with pytest.raises(InputError, match=r"model-00002-of-00002.safetensors: .*missing"):
        files_by_tensor(tmp_path)
    second = put(tmp_path, "model-00002-of-00002.safetensors", "b")
    assert files_by_tensor(tmp_path) == {"a": first, "b": second}
    put(tmp_path, "model-00002-of-00002.safetensors", "a")
    with pytest.raises(InputError, match=r"'a' stands in model-00001-of-00002.safetensors and in model-00002"):
        files_by_tensor(tmp_path)
    put(tmp_path, "model-00003-of-00003.safetensors", "d")
    with pytest.raises(InputError, match="shards of several checkpoints"):
        files_by_tensor(tmp_path)


def test_a_header_tells_types_and_shapes(tmp_path: Path) -> None:
    path = put(tmp_path, "x.safetensors", "a")
    assert read_header(path) == {"a": TensorHeader("F32", (2, 3))}
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(InputError, match=r"x.safetensors: not a safetensors file"):
        read_header(path)
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 123\n")
    with pytest.raises(InputError, match=r"x.safetensors: not a safetensors file"):
        read_header(path)
    assert files_by_tensor(tmp_path / "empty") == {}
