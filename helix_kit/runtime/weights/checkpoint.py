"""Reads a Hugging Face folder, or a model on a hub: its config, and only those tensors that are asked for.

The model families that the runtime serves are listed by `model_type`. Any other is refused by name, because a family
whose code looks the same can give wrong results silently (Granite scales its residuals, Gemma-2 caps its logits).
"""

from __future__ import annotations

import codecs
import logging
import math
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from helix_kit import _files
from helix_kit.errors import InputError
from helix_kit.hf_config import EXPERT_FAMILIES, low_bit_cache, read_context_tokens, read_sizes, with_old_names
from helix_kit.hf_config import FAMILIES as PLANNED_FAMILIES
from helix_kit.model import Model
from helix_kit.runtime.special_tokens import read_mapping
from helix_kit.runtime.weights import mxfp4
from helix_kit.runtime.weights.expected_tensors import CACHE_SCALES, HEAD, check_names, expected_tensors, is_unused
from helix_kit.runtime.weights.experts import is_expert, join_experts
from helix_kit.runtime.weights.families import FAMILIES, LAYER_NAMES
from helix_kit.runtime.weights.hub import HubFiles, local_folder
from helix_kit.runtime.weights.low_bit_files import LowBitFormat, StoredTensor, low_bit_format
from helix_kit.runtime.weights.low_bit_layers import join_low_bit_experts, read_matrices, round_layer, stored_tensors
from helix_kit.runtime.weights.rotary_lengths import BY_LENGTH, RotaryLengths, stored_rope_types
from helix_kit.runtime.weights.same_model import check_same
from helix_kit.runtime.weights.shares import LayerShare
from helix_kit.runtime.weights.tensor_files import INDEX, files_by_tensor, read_header

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)

_ROPE_TYPES = {"default", "linear", "llama3", "yarn", *BY_LENGTH}
_DTYPES = ("F64", "F32", "BF16", "F16")
"""Types of tensors whose numbers are the weights themselves; those of quantised checkpoints need scales."""


class Checkpoint:
    """Config and safetensors of a model in a local folder, or with an id on a hub.

    Raises InputError when the folder, its config or its weights are missing, or the family is not supported.
    """

    def __init__(self, folder: str | Path, quantize: str | None = None) -> None:
        """`quantize` is what the projections of its layers are rounded to when they are read: ``int4`` or ``int8``."""
        self.folder, self.quantize = local_folder(folder), quantize
        self._hub = HubFiles.of(self.folder)
        if not self.folder.is_dir():
            raise InputError("expected a folder with config.json and *.safetensors", where=self.folder)
        config = self.folder / "config.json"
        self.config = _files.read_json(config)
        if isinstance(self.config, dict):
            self.config = dict(with_old_names(self.config))
        if config.read_bytes().startswith(codecs.BOM_UTF8):
            # The workers read it with transformers, which takes the mark for a part of the text.
            raise InputError("begins with a byte order mark: expected UTF-8 without one", where=config)
        check_family(self.config, config)
        for name, value in self.config.items():
            if isinstance(value, float) and not math.isfinite(value):
                raise InputError("expected a finite number", where=config, field=name, value=value)
        self.low_bit: LowBitFormat | None = low_bit_format(self.config, config)
        if quantize is not None and self.config.get("quantization_config"):
            expected = f"expected weights that are not quantised yet: {config} has quantization_config"
            fix = "To serve them as they are, plan with this config.json, without --quantize"
            raise InputError(f"{expected}. {fix}", field="quantize", value=quantize)
        if quantize is not None and self.config["model_type"] == "gpt_oss":
            raise InputError("gpt_oss is only served with the weights of its files", field="quantize", value=quantize)
        if not self._files_by_tensor:
            raise InputError("no *.safetensors file: expected weights in that format", where=self.folder)

    @cached_property
    def _files_by_tensor(self) -> dict[str, Path]:
        return files_by_tensor(self.folder) if self._hub is None else self._hub.files_by_tensor

    @property
    def source(self) -> str:
        """What a worker, perhaps on another machine, opens the checkpoint by: its folder, or its id on the hub."""
        return str(self.folder.resolve()) if self._hub is None else self._hub.source

    @property
    def eos_ids(self) -> frozenset[int]:
        """The tokens that end an answer; empty when neither generation_config.json nor config.json names any."""
        where = self.folder / "generation_config.json"
        given = read_mapping(where).get("eos_token_id")
        if given is None:
            where = self.folder / "config.json"
            given = self.config.get("eos_token_id")
        if given is None:
            return frozenset()
        ids = given if isinstance(given, list) else [given]
        if any(isinstance(token, bool) or not isinstance(token, int) for token in ids):
            raise InputError("expected a token id, or a list of them", where=where, field="eos_token_id", value=given)
        return frozenset(ids)

    @cached_property
    def context_tokens(self) -> int:
        """How many tokens the model's positions reach, as config.json says or as transformers assumes without it."""
        where = str(self.folder / "config.json")
        default = None
        if self.config.get("max_position_embeddings") is None:
            from transformers import AutoConfig

            default = AutoConfig.from_pretrained(self.folder, trust_remote_code=False).max_position_embeddings
        tokens = read_context_tokens(self.config, where, default=default)
        assert tokens is not None
        return tokens

    @cached_property
    def rotary_lengths(self) -> RotaryLengths | None:
        """How rotary frequencies depend on the length of a sequence; None: they do not."""
        where = self.folder / "config.json"
        if not any(kind in BY_LENGTH for kind in stored_rope_types(self.config, where)):
            return None
        from transformers import AutoConfig

        try:  # with the defaults and the old names that transformers knows
            config = AutoConfig.from_pretrained(self.folder, trust_remote_code=False)
        except Exception as error:  # whatever a field of another type leads to
            told = " ".join(f"{type(error).__name__}: {error}".split())
            raise InputError(f"transformers cannot read it: {told}", where=where) from error
        return RotaryLengths.of(config, where)

    @cached_property
    def ties_embeddings(self) -> bool:
        """Whether the output projection is the embedding table.

        A config that does not say it has its family's default, as in transformers. An output projection that is stored
        wins over the config, also as in transformers: the two may differ.
        """
        return HEAD not in self._files_by_tensor and self.model().tied_embeddings

    def model(self, dtype_bytes: int | None = None) -> Model:
        """The sizes that config.json states, as `Model.from_hf` reads them."""
        where = self.folder / "config.json"
        sizes = read_sizes(self.config, where, dtype_bytes)
        return _files.validate(Model, {**sizes, "name": self.folder.name or "model"}, where)

    def check_matches(self, model: Model) -> None:
        """Raise InputError when the weights are not those of `model`, in any of the sizes or bits that it states."""
        found = self.model(model.dtype_bytes)
        where = self.folder / "config.json"
        # A GPU expands GPT-OSS when it is loaded, whatever its files hold: `check_tensors` warns of the memory.
        is_expanded = self.config["model_type"] == "gpt_oss"
        if not is_expanded and model.is_quantised:
            if self.quantize is not None:
                found = found.quantized(self.quantize)
            elif not found.is_quantised:
                check_same(found, model, self.config, where, with_bits=False)
                bits = f"{model.bits_per_weight:.3g} bits"
                expected = f"missing field: the plan's model {model.name} has weights of {bits}, and these "
                fix = "Name the quantised checkpoint, round the weights at load (--quantize int4), or plan anew"
                raise InputError(f"{expected}are not quantised. {fix}", where=where, field="quantization_config")
        check_same(found, model, self.config, where, with_bits=not is_expanded)

    def check_tensors(self) -> None:
        """Raise InputError unless the files hold the config's tensors: names, shapes, and numbers that are no codes.

        Only the headers of the files are read. A warning says that GPUs expand weights in mxfp4.
        """
        model = self.model()
        expected = expected_tensors(self.config, model, with_head=not self.ties_embeddings)
        by_tensor = self._files_by_tensor
        low_bit: dict[str, StoredTensor] = {}
        if self.low_bit is not None:
            low_bit = stored_tensors(expected, set(by_tensor), self.low_bit, self.folder)
            quantised = {f"{name.rpartition('.')[0]}.weight" for name in low_bit}
            expected = {name: shape for name, shape in expected.items() if name not in quantised}
            expected |= {name: tensor.shape for name, tensor in low_bit.items()}
        cache_note = low_bit_cache(self.config, self.folder / "config.json")
        found = {name for name in by_tensor if cache_note is None or not name.endswith(CACHE_SCALES)}
        check_names(expected, found, self.folder)
        header_of = read_header if self._hub is None else self._hub.header
        headers = {path: header_of(path) for path in sorted(set(by_tensor.values()))}
        for name, shape in expected.items():
            path = by_tensor[name]
            header = headers[path].get(name)
            if header is None:
                raise InputError(f"tensor {name!r} is missing: {INDEX} says that it is there", where=path)
            if name in low_bit:
                if header.dtype not in low_bit[name].dtypes:
                    wanted = " or ".join(low_bit[name].dtypes)
                    raise InputError(f"tensor {name!r} holds {header.dtype}: expected {wanted}", where=path)
            elif name.endswith((mxfp4.BLOCKS, mxfp4.SCALES)):
                if header.dtype != "U8":
                    raise InputError(f"tensor {name!r} holds {header.dtype}: expected U8", where=path)
            elif header.dtype not in _DTYPES:
                numbers = f"tensor {name!r} holds {header.dtype}: expected one of {', '.join(_DTYPES)}"
                raise InputError(f"{numbers}; config.json names no format of quantised weights for it", where=path)
            if header.shape != shape:
                raise InputError(f"tensor {name!r} is {_by(header.shape)}: expected {_by(shape)}", where=path)
            twice = next((other for other, held in headers.items() if other != path and name in held), None)
            if twice is not None:
                raise InputError(f"tensor {name!r} stands in {path.name} and in {twice.name}", where=self.folder)
        if cache_note is not None:
            log.warning(cache_note)
        if any(name.endswith(mxfp4.BLOCKS) for name in expected):
            log.warning(
                "%s: the experts are stored in mxfp4. CPUs keep them so; GPUs expand them when they are loaded. In 16 "
                "bits they take 3.8 times the memory that a plan reckons with: for GPUs, plan with a config.json "
                "without quantization_config",
                self.folder,
            )

    def read(self, names: Iterable[str], dtype: torch.dtype | None, device: torch.device) -> dict[str, torch.Tensor]:
        """The tensors called `names`, as `dtype` (None: as they are stored). No other part of the files is read."""
        from safetensors import safe_open

        by_file: dict[Path, list[str]] = {}
        for name in names:
            if name not in self._files_by_tensor:
                raise InputError(f"tensor {name!r} is missing", where=self.folder)
            by_file.setdefault(self._files_by_tensor[name], []).append(name)
        if self._hub is not None:
            self._hub.fetch(by_file)
        tensors = {}
        for path, wanted in by_file.items():
            with safe_open(path, framework="pt", device="cpu") as file:
                for name in wanted:
                    tensors[name] = file.get_tensor(name).to(device=device, dtype=dtype)
        return tensors

    def read_share(
        self, index: int, share: LayerShare, dtype: torch.dtype, device: torch.device
    ) -> dict[str, torch.Tensor]:
        """A rank's part of the tensors of a layer, by their names in it. No other part of the files is read."""
        from safetensors import safe_open

        prefix = f"model.layers.{index}."
        by_file: dict[Path, list[str]] = {}
        for name, path in self._files_by_tensor.items():
            if name.startswith(prefix) and not is_unused(name):
                by_file.setdefault(path, []).append(name.removeprefix(prefix))
        if self._hub is not None:
            self._hub.fetch({path: [prefix + name for name in names] for path, names in by_file.items()})
        tensors: dict[str, torch.Tensor] = {}
        for path, names in by_file.items():
            with safe_open(path, framework="pt", device="cpu") as file:
                for name in names:
                    part = file.get_slice(prefix + name)[share.place(name) or ...]
                    part = part.to(device=device, dtype=dtype)
                    tensors[name] = part.new_zeros(part.shape) if share.is_zero(name) else part
        return tensors

    def read_under(self, prefix: str, dtype: torch.dtype, device: torch.device) -> dict[str, torch.Tensor]:
        """All tensors whose names begin with `prefix`, by the rest of their names."""
        names = [name for name in self._files_by_tensor if name.startswith(prefix)]
        names = [name for name in names if not is_unused(name)]
        return {name.removeprefix(prefix): tensor for name, tensor in self.read(names, dtype, device).items()}

    def read_layer(self, index: int, dtype: torch.dtype, device: torch.device) -> dict[str, Any]:
        """The tensors of a layer by the names of the parameters that transformers' layer has.

        Matrices of few bits are `LowBitWeight`s, or tuples of these for experts.
        """
        prefix = f"model.layers.{index}."
        stored = [name.removeprefix(prefix) for name in self._files_by_tensor if name.startswith(prefix)]
        if self.low_bit is None:
            tensors = self._read_plain(prefix, stored, dtype, device)
            return tensors if self.quantize is None else round_layer(tensors, self.quantize)
        import torch

        def read(names: list[str]) -> dict[str, torch.Tensor]:
            found = self.read([prefix + name for name in names], None, torch.device("cpu"))
            return {name.removeprefix(prefix): tensor for name, tensor in found.items()}

        matrices, used = read_matrices(stored, self.low_bit, read, device, f"{self.folder}: {prefix[:-1]}")
        layer = self._read_plain(prefix, [name for name in stored if name not in used], dtype, device)
        experts = LAYER_NAMES[self.config["model_type"]].experts
        return layer | (matrices if experts is None else join_low_bit_experts(matrices, experts, self.folder))

    def _read_plain(self, prefix: str, stored: list[str], dtype: torch.dtype, device: torch.device) -> dict[str, Any]:
        """Those tensors of a layer that no format of few bits replaces; `stored` are their names without `prefix`.

        Experts in mxfp4 are tuples of `LowBitWeight`s on a CPU.
        """
        experts = LAYER_NAMES[self.config["model_type"]].experts
        if experts is None:
            names = [f"{prefix}{name}" for name in stored if not is_unused(name)]
            return {name.removeprefix(prefix): tensor for name, tensor in self.read(names, dtype, device).items()}
        import torch

        single = [name for name in stored if is_expert(name, experts)]
        others = [f"{prefix}{name}" for name in stored if name not in set(single) and not is_unused(name)]
        packed = [name for name in others if name.endswith((mxfp4.BLOCKS, mxfp4.SCALES))]
        layer: dict[str, Any] = {}
        for name, tensor in self.read([name for name in others if name not in packed], dtype, device).items():
            own = name.removeprefix(prefix)
            is_block = own.startswith(f"{experts.block}.")
            layer[f"mlp.{own.removeprefix(f'{experts.block}.')}" if is_block else own] = tensor

        codes = {name.removeprefix(prefix): tensor for name, tensor in self.read(packed, None, device).items()}
        for name in [name.removesuffix(mxfp4.BLOCKS) for name in codes if name.endswith(mxfp4.BLOCKS)]:
            blocks, scales = (codes[f"{name}{end}"] for end in (mxfp4.BLOCKS, mxfp4.SCALES))
            # A GPU would expand a matrix for each expert in each step; a CPU reads the codes while it multiplies.
            is_kept = device.type == "cpu"
            layer[name] = mxfp4.kept(blocks, scales) if is_kept else mxfp4.expand(blocks, scales, dtype)
        mapped = self.read([f"{prefix}{name}" for name in single], None, torch.device("cpu"))
        matrices = {name.removeprefix(prefix): matrix for name, matrix in mapped.items()}
        return layer | join_experts(matrices, experts, dtype, device)


def _by(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape)) or "a single number"


def check_family(config: Any, where: object) -> None:
    """Raise InputError unless the runtime computes the config's model exactly; the message says `where` it is from."""
    family = config.get("model_type") if isinstance(config, dict) else None
    if family not in FAMILIES:
        expected = f"expected one of {', '.join(FAMILIES)}"
        if family in EXPERT_FAMILIES or family in PLANNED_FAMILIES:
            expected += ": this family can be planned and simulated, but not served yet"
        raise InputError(expected, where=where, field="model_type", value=family)
    kinds = config.get("architectures") or []
    if not isinstance(kinds, list) or any(not isinstance(kind, str) for kind in kinds):
        raise InputError("expected a list of names", where=where, field="architectures", value=kinds)
    for kind in kinds:
        if "For" in kind and not kind.endswith("ForCausalLM"):
            raise InputError("expected a causal language model", where=where, field="architectures", value=kind)
    if config.get("is_causal") is False:
        raise InputError("expected a causal language model", where=where, field="is_causal", value=False)
    low_bit_format(config, where)
    if config.get("use_bidirectional_attention"):
        raise InputError("expected false", where=where, field="use_bidirectional_attention", value=True)
    for kind in stored_rope_types(config, where):
        if kind not in _ROPE_TYPES:
            expected = f"expected one of {', '.join(sorted(_ROPE_TYPES))}"
            raise InputError(expected, where=where, field="rope_type", value=kind)
