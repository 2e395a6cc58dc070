"""What you serve: the sizes of a transformer that decide where its layers fit and what crosses the links.

>>> from helix_kit.model import Model
>>> model = Model.preset("llama2-70b")
>>> model.num_layers, model.layer_gb, model.activation_bytes_per_token
(80, 1.53, 16384)

A model of your own comes from its Hugging Face ``config.json``: ``Model.from_hf("folder")``, or, on a hub,
``Model.from_hf("Qwen/Qwen3-8B")``, which fetches that file alone. No code of the model is run; only sizes are read.
"""

from __future__ import annotations

import logging
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from helix_kit import _files
from helix_kit._summary import Summarised, number
from helix_kit.errors import InputError
from helix_kit.hf_config import check_no_other_file, low_bit_cache, read_sizes, token_id_bytes
from helix_kit.hf_hub import config_of, id_and_revision
from helix_kit.layers import LayerKind
from helix_kit.quantized import rounded_format, rounded_kind

log = logging.getLogger(__name__)

Count = Annotated[int, Field(gt=0)]


class Model(Summarised, BaseModel):
    """Sizes of a decoder-only transformer.

    `layer_gb` and `activation_bytes_per_token` follow from the other fields unless they are given, as in the presets
    of the paper's models. The rule is, with h = hidden_size, a and v the query and key-value heads of size d, m the
    MLP matrices of width f, and two norms:
    parameters of a layer = 2 h a d + 2 h v d + m h f + 2 h.

    Examples
    --------
    >>> model = Model(name="tiny", num_layers=4, hidden_size=64, num_heads=4, intermediate_size=128, vocab_size=1000)
    >>> model.head_dim, model.kv_bytes_per_token_layer
    (16, 256)
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    """Shown in messages and plans."""
    num_layers: Count
    """Decoder layers, L in the paper."""
    hidden_size: Count
    """Elements of a hidden state."""
    num_heads: Count
    """Query heads."""
    num_kv_heads: Count
    """Key-value heads; by default as many as query heads."""
    head_dim: Count
    """Elements of a head; by default hidden_size / num_heads."""
    intermediate_size: Count
    """Width of the MLP."""
    vocab_size: Count
    """Rows of the embedding."""
    dtype_bytes: Annotated[int, Field(ge=1, le=8)] = 2
    """Bytes of a weight, of an activation and of a KV cache element."""
    mlp_matrices: Annotated[int, Field(ge=1, le=3)] = 3
    """3 for gated MLPs such as Llama's, 2 for plain ones."""
    layer_gb: Annotated[float, Field(gt=0, le=1e6, allow_inf_nan=False)]
    """Weights of one layer in 10^9 bytes."""
    activation_bytes_per_token: Count
    """Bytes of one token's hidden state on a link between two nodes."""
    token_bytes: Count = 2
    """Bytes of a token id on links of the coordinator; by default 2, or 4 where the vocabulary is over 65,536."""
    tied_embeddings: bool = False
    """Whether the output projection is the embedding itself, so that a node with both holds one table."""
    layer_kinds: tuple[LayerKind, ...] = ()
    """The different kinds of layers. Empty: every layer is dense and as the sizes above say."""
    layer_pattern: tuple[Annotated[int, Field(ge=0)], ...] = ()
    """Index in `layer_kinds` of each layer's kind. Empty: all layers are of the first kind."""
    expert_skew: Annotated[float, Field(ge=0, le=4)] = 0.0
    """How unevenly tokens choose experts: expert e is as popular as e^-skew. 0: evenly."""
    quantize: Literal["int4", "int8"] | None = None
    """What the projections of the layers are rounded to when they are loaded; `quantized` sets it. None: nothing."""

    @model_validator(mode="before")
    @classmethod
    def _derive_sizes(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        data = dict(data)
        try:
            hidden, dtype = data["hidden_size"], data.get("dtype_bytes", 2)
            data.setdefault("num_kv_heads", data["num_heads"])
            # Not assumed equal to hidden / heads: several families (Qwen3, Mistral-Nemo) break that.
            data.setdefault("head_dim", hidden // data["num_heads"])
            kinds, pattern = data.get("layer_kinds"), data.get("layer_pattern")
            if "layer_gb" not in data and kinds:
                kinds = [k if isinstance(k, LayerKind) else LayerKind.model_validate(k) for k in kinds]
                layers = [kinds[i] for i in pattern] if pattern else kinds[:1]
                data["layer_gb"] = sum(k.all_bytes for k in layers) / len(layers) / 1e9
            if "layer_gb" not in data:
                q_and_out = 2 * hidden * data["num_heads"] * data["head_dim"]
                k_and_v = 2 * hidden * data["num_kv_heads"] * data["head_dim"]
                mlp = data.get("mlp_matrices", 3) * hidden * data["intermediate_size"]
                data["layer_gb"] = (q_and_out + k_and_v + mlp + 2 * hidden) * dtype / 1e9
            data.setdefault("activation_bytes_per_token", hidden * dtype)
            data.setdefault("token_bytes", token_id_bytes(data["vocab_size"]))
        except (KeyError, TypeError, ZeroDivisionError, IndexError):
            pass  # a missing or malformed field: pydantic reports it with its name
        return data

    @model_validator(mode="after")
    def _pattern_names_kinds(self) -> Model:
        if self.layer_pattern and len(self.layer_pattern) != self.num_layers:
            raise ValueError(f"layer_pattern: expected {self.num_layers} kinds, got {len(self.layer_pattern)}")
        if len(self.layer_kinds) > 1 and not self.layer_pattern:
            raise ValueError(f"expected layer_pattern to say which of {len(self.layer_kinds)} kinds each layer is of")
        if any(index >= len(self.layer_kinds) for index in self.layer_pattern):
            raise ValueError(f"layer_pattern: expected indices below the {len(self.layer_kinds)} layer_kinds")
        return self

    @model_serializer(mode="wrap")
    def _without_unused(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Fields that few models need are left out where there are none, so plans of other models stay as they were."""
        fields: dict[str, Any] = handler(self)
        for name in ("layer_kinds", "layer_pattern", "expert_skew", "quantize"):
            if not fields.get(name):
                fields.pop(name, None)
        return fields

    @classmethod
    def preset(cls, name: str) -> Model:
        """A model that ships with the package; `preset_names` lists their names. Upper and lower case are equal."""
        by_key = {known.casefold(): known for known in preset_names()}
        if name.casefold() not in by_key:
            raise InputError(_files.unknown("model preset", name, preset_names()), field="model")
        return cls.load(_files.data_dir() / "models" / f"{by_key[name.casefold()]}.yaml")

    @classmethod
    def load(cls, path: str | Path) -> Model:
        """The model described by a YAML file with the fields of this class.

        The field ``hf_config`` may take the place of the sizes: it holds a Hugging Face config.json.
        """
        data = _files.read_yaml(path)
        config = data.get("hf_config") if isinstance(data, dict) else None
        if isinstance(config, dict):
            others = {name: value for name, value in data.items() if name != "hf_config"}
            data = {**read_sizes(config, f"{path}: hf_config", others.get("dtype_bytes")), **others}
        return _files.validate(cls, data, path)

    @classmethod
    def from_hf(cls, path: str | Path, *, name: str | None = None, dtype_bytes: int | None = None) -> Model:
        """Sizes from a Hugging Face ``config.json``: the file, the folder that holds it, or a model's id on a hub.

        Of a model on a hub, ``ORGANISATION/MODEL``, perhaps with ``@`` and a branch, tag or commit, only that file is
        fetched; a path that exists wins.
        `dtype_bytes` is the size of a weight that is not quantised, by default that of the config's ``torch_dtype`` (2
        where it says nothing). The families of `helix_kit.hf_config.FAMILIES` and `EXPERT_FAMILIES` are read, with
        their ``quantization_config``; anything else is an InputError that names the field.
        """
        source, path = str(path), Path(path)
        fetched = None if _files.exists(path) else config_of(source)
        file = fetched or (path / "config.json" if path.is_dir() else path)
        config = _files.read_json(file)
        if not isinstance(config, dict):
            raise InputError("expected a JSON object", where=file)

        if fetched is None:
            check_no_other_file(config, Path(file).parent)
        fields = read_sizes(config, file, dtype_bytes)
        _warn_once(low_bit_cache(config, file))
        folder = path.resolve() if path.is_dir() else path.resolve().parent
        fields["name"] = name or (source if fetched else folder.name) or "model"
        return _files.validate(cls, fields, file)

    def quantized(self, method: str) -> Model:
        """This model with the projections of its layers rounded to ``int4`` or ``int8`` when they are loaded.

        Plans of it reckon with the rounded weights, and `serve` rounds them. InputError for a model whose weights are
        quantised already.

        >>> model = Model.preset("llama3.1-70b").quantized("int4")
        >>> model.name, round(model.layer_gb, 2), round(Model.preset("llama3.1-70b").layer_gb, 2)
        ('llama3.1-70b-int4', 0.46, 1.71)
        """
        form = rounded_format(method, self._projection_inputs())
        where = f"model {self.name}"
        if self.is_quantised or form.bits_per_weight >= 8 * self.dtype_bytes:
            stored = self.quantize or f"{self.bits_per_weight:.3g} bits each"
            expected = f"expected weights that are not quantised yet, in 16 bits or more: this model's are {stored}"
            raise InputError(expected, where=where, field="quantize", value=method)
        kinds = self.layer_kinds or (self._only_kind(),)
        if any(kind.projection_params is None for kind in kinds):
            expected = "expected projection_params in layer_kinds: describe the model anew, from its config.json"
            raise InputError(expected, where=where, field="quantize", value=method)
        rounded = tuple(rounded_kind(kind, form, self.dtype_bytes) for kind in kinds)
        fields = {name: getattr(self, name) for name in type(self).model_fields if name != "layer_gb"}
        return Model(**{**fields, "name": f"{self.name}-{method}", "quantize": method, "layer_kinds": rounded})

    @property
    def stored_name(self) -> str:
        """Name of the model whose weights are loaded, before they are rounded."""
        return self.name.removesuffix(f"-{self.quantize}")

    @property
    def is_quantised(self) -> bool:
        """Whether weights are stored in fewer bits than `dtype_bytes` says, or rounded to fewer at load."""
        plain = self.dtype_bytes * (1 - 1e-9)
        return self.quantize is not None or any(
            kind.weight_bytes < kind.params * plain
            or (kind.experts is not None and kind.experts.weight_bytes < kind.experts.params * plain)
            for kind in self.layer_kinds
        )

    @property
    def bits_per_weight(self) -> float:
        """Bits of a weight of the layers with its part of the scales, on average."""
        return 8e9 * self.layer_gb * self.num_layers / self.layers_params

    def _projection_inputs(self) -> set[int]:
        """Inputs of the projections of the layers."""
        widths = {kind.experts.width for kind in self.layer_kinds if kind.experts is not None}
        if not self.layer_kinds or any(kind.experts is None for kind in self.layer_kinds):
            widths.add(self.intermediate_size)
        return {self.hidden_size, self.num_heads * self.head_dim, *widths}

    def _only_kind(self) -> LayerKind:
        """The layer of a model without `layer_kinds`."""
        heads = 2 * (self.num_heads + self.num_kv_heads) * self.head_dim
        params = round(self.layer_params)
        return LayerKind(
            name="full attention, dense",
            kv_bytes_per_token=self.kv_bytes_per_token_layer,
            params=params,
            # A published size may be below what the sizes make.
            projection_params=min(params, self.hidden_size * (heads + self.mlp_matrices * self.intermediate_size)),
            weight_bytes=self.layer_gb * 1e9,
        )

    def _title(self) -> str:
        return self.name

    def _facts(self) -> dict[str, str]:
        facts = {
            "layers": f"{self.num_layers} of {number(self.layer_gb)} GB",
            "hidden size": str(self.hidden_size),
            "heads": f"{self.num_heads} ({self.num_kv_heads} key-value) of {self.head_dim}",
        }
        if self.is_quantised:
            facts["bits a weight"] = f"{self.bits_per_weight:.3g} in layers, {8 * self.dtype_bytes} elsewhere"
        else:
            facts["bytes a weight"] = str(self.dtype_bytes)
        if self.quantize:
            facts["rounded at load"] = f"projections of the layers, to {self.quantize}"
        if self.layer_kinds:
            counts = self.count_kinds(0, self.num_layers)
            facts["kinds"] = "; ".join(f"{n} x {kind.name}" for n, kind in zip(counts, self.layer_kinds, strict=True))
            total, active = self.layers_params / 1e9, self.active_params / 1e9
            facts["parameters"] = f"{total:.3g} billion in layers" + (
                f", {active:.3g} billion for each token" if active < total else ""
            )
        return facts

    @property
    def is_uniform(self) -> bool:
        """Whether all layers are of one kind, so that a range's speed depends on its length alone."""
        return len(set(self.layer_pattern)) <= 1

    def kind_of(self, layer: int) -> LayerKind | None:
        """The kind of a layer; None where the model has no `layer_kinds`."""
        if not self.layer_kinds:
            return None
        return self.layer_kinds[self.layer_pattern[layer] if self.layer_pattern else 0]

    def count_kinds(self, start: int, end: int) -> tuple[int, ...]:
        """How many layers of each of `layer_kinds` lie in [start, end)."""
        if not self.layer_pattern:
            return (end - start,) if self.layer_kinds else ()
        within = self.layer_pattern[start:end]
        return tuple(within.count(index) for index in range(len(self.layer_kinds)))

    def layers_gb(self, start: int, end: int) -> float:
        """Weights of the layers [start, end) in 10^9 bytes."""
        if self.is_uniform:
            return (end - start) * self.layer_gb
        counts = self.count_kinds(start, end)
        return sum(n * kind.all_bytes for n, kind in zip(counts, self.layer_kinds, strict=True)) / 1e9

    @property
    def layers_params(self) -> float:
        """Parameters of all layers together."""
        if not self.layer_kinds:
            return self.num_layers * self.layer_params
        counts = self.count_kinds(0, self.num_layers)
        return float(sum(n * kind.all_params for n, kind in zip(counts, self.layer_kinds, strict=True)))

    @property
    def active_params(self) -> float:
        """Parameters of all layers that one token uses."""
        if not self.layer_kinds:
            return self.num_layers * self.layer_params
        counts = self.count_kinds(0, self.num_layers)
        return float(sum(n * kind.active_params for n, kind in zip(counts, self.layer_kinds, strict=True)))

    @property
    def kv_bytes_per_token_layer(self) -> int:
        """Bytes of the keys and values of one token in one layer, on average over the layers and within windows."""
        if not self.layer_kinds:
            return 2 * self.num_kv_heads * self.head_dim * self.dtype_bytes
        counts = self.count_kinds(0, self.num_layers)
        total = sum(n * kind.kv_bytes_per_token for n, kind in zip(counts, self.layer_kinds, strict=True))
        return -(-total // self.num_layers)

    @property
    def link_bytes_per_token(self) -> int:
        """Bytes of one token on a link between two nodes: its hidden state and its id."""
        return self.activation_bytes_per_token + self.token_bytes

    @property
    def embedding_gb(self) -> float:
        """The embedding in 10^9 bytes; the output projection is as large."""
        return self.vocab_size * self.hidden_size * self.dtype_bytes / 1e9

    @property
    def layer_params(self) -> float:
        """Parameters of one layer, on average: `layer_gb` divided by the bytes of a weight unless it is quantised."""
        if self.layer_kinds:
            return self.layers_params / self.num_layers
        return self.layer_gb * 1e9 / self.dtype_bytes


@cache
def _warn_once(message: str | None) -> None:
    """Log a warning, unless this process has done so already."""
    if message is not None:
        log.warning(message)


def preset_names() -> list[str]:
    """Names that `Model.preset` accepts.

    Returns
    -------
    list of str
        Sorted.

    Examples
    --------
    >>> "llama2-70b" in preset_names()
    True
    """
    return sorted(path.stem for path in (_files.data_dir() / "models").glob("*.yaml"))


def load_model(name_or_path: str | Path) -> Model:
    """The model that the command line's ``--model`` means.

    Parameters
    ----------
    name_or_path
        Name of a preset, path of a YAML file with the fields of `Model`, a folder with a Hugging Face config.json, or
        that file, or a model's id on a hub. A preset takes precedence, then a folder.

    Returns
    -------
    Model
        The description.

    Raises
    ------
    InputError
        There is no such preset or file, it does not describe a model, or the hub does not give it.

    Examples
    --------
    >>> load_model("llama-30b").num_layers
    60
    """
    if str(name_or_path).casefold() in {known.casefold() for known in preset_names()}:
        return Model.preset(str(name_or_path))
    path = Path(name_or_path)
    if path.suffix in {".yaml", ".yml"}:
        return Model.load(path)
    if (_files.exists(path) and path.is_dir()) or path.suffix == ".json" or id_and_revision(name_or_path):
        return Model.from_hf(path)
    raise InputError(
        _files.unknown("model preset", str(name_or_path), preset_names())
        + ", a .yaml file, a folder with a Hugging Face config.json, or a model on a hub (ORGANISATION/MODEL)",
        field="model",
    )


__all__ = ["Model", "load_model", "preset_names"]
