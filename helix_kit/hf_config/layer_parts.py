"""Counts the parameters of one layer, part by part, as a family builds it.

Matrices are counted one by one, under the names that they have in checkpoints of most families, because a quantised
checkpoint may keep any of them as it is. Vectors (norms, biases) and routers are never quantised.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from helix_kit.errors import InputError
from helix_kit.hf_config.families import Family, Switch
from helix_kit.hf_config.fields import ALIASES, need, optional, size, whole_heads

FOUR_TIMES = {"bloom", "falcon", "gpt2", "gpt_bigcode", "gptj"}
"""Families whose MLP is four times as wide as the hidden size where the config gives no width."""
EXPERT_COUNTS = ("num_local_experts", "num_experts")
"""Names that files written by transformers give the number of experts, whatever the family's own name."""
ANY_EXPERT = "experts.0"
"""Stands for each expert of a layer in the names of its matrices: all experts of a layer are alike."""


def _under(block: str, modules: Mapping[str, int]) -> dict[str, int]:
    """Matrices by their names in a layer."""
    return {f"{block}.{name}": params for name, params in modules.items()}


def _gated(block: str, params: int, matrices: int = 3) -> dict[str, int]:
    """The matrices of an MLP, each of so many parameters; with two, there is no gate."""
    names = ("down_proj", "up_proj", "gate_proj")[:matrices]
    return _under(block, dict.fromkeys(names, params))


@dataclass(frozen=True)
class Attention:
    """Parameters and cache of a layer's attention."""

    modules: Mapping[str, int]
    """Parameters of each matrix."""
    vectors: int
    kv_elements: int
    """Elements that a token adds to the cache."""
    state_elements: int = 0
    """Elements of a request's state, whatever its length. They are kept in 32 bits."""

    @property
    def matrices(self) -> int:
        """Parameters of all matrices."""
        return sum(self.modules.values())


@dataclass(frozen=True)
class Mlp:
    """Parameters of a layer's MLP or experts."""

    modules: Mapping[str, int]
    """Parameters of each matrix of a dense MLP, or of the shared experts."""
    vectors: int
    """What stays as it is: biases, router, gates."""
    experts: int = 0
    active: int = 0
    shared: int = 0
    width: int = 0
    expert_modules: Mapping[str, int] = field(default_factory=dict)
    """Parameters of each matrix of one expert."""
    expert_vectors: int = 0

    @property
    def matrices(self) -> int:
        """Parameters of all matrices but the routed experts'."""
        return sum(self.modules.values())

    @property
    def expert_matrices(self) -> int:
        """Parameters of the matrices of one expert."""
        return sum(self.expert_modules.values())


@dataclass(frozen=True)
class LayerReader:
    """Reads the parts of a config's layers."""

    config: Mapping[str, Any]
    where: str
    kind: str
    """``model_type``."""
    family: Family
    switches: Mapping[str, bool] = field(default_factory=dict)
    """Value of each switch."""

    @classmethod
    def of(cls, config: Mapping[str, Any], where: str, kind: str, family: Family) -> LayerReader:
        """The reader of a config of this family."""
        for switch in family.refused:
            if config.get(switch):
                raise InputError(f"not supported for {kind}", where=where, field=switch, value=config[switch])
        for switch in [name for name, _ in family.defaults if config.get(name) is not None]:
            if not isinstance(config[switch], bool):  # a 1 or a text would be taken for off
                raise InputError("expected true or false", where=where, field=switch, value=config[switch])
        given = {name: value for name, value in config.items() if isinstance(value, bool)}
        return cls(config, where, kind, family, {**dict(family.defaults), **given})

    def changed(self, fields: tuple[tuple[str, Any], ...]) -> LayerReader:
        """The reader of a layer with other values of some fields."""
        if not fields:
            return self
        return LayerReader.of({**self.config, **dict(fields)}, self.where, self.kind, self.family)

    def is_on(self, switch: Switch) -> bool:
        """Whether a part is there."""
        return self.switches[switch] if isinstance(switch, str) else switch

    @property
    def hidden(self) -> int:
        """Hidden size."""
        return need(self.config, self.where, *ALIASES["hidden_size"])

    @property
    def heads(self) -> int:
        """Query heads."""
        return need(self.config, self.where, *ALIASES["num_heads"])

    @property
    def kv_heads(self) -> int:
        """Key-value heads."""
        family, config, where = self.family, self.config, self.where
        if family.kv_heads == "all" or (family.kv_heads == "multi_query" and not config.get("multi_query", True)):
            return self.heads
        if family.kv_heads == "multi_query":
            return 1
        if family.kv_heads == "required":
            need(config, where, "num_key_value_heads")
        name = "num_kv_heads" if family.kv_heads == "num_kv_heads" else "num_key_value_heads"
        given = optional(config, where, name) or self.heads
        if self.heads % given:
            raise InputError(f"expected a divisor of the {self.heads} heads", where=where, field=name, value=given)
        return given

    @property
    def head_dim(self) -> int:
        """Size of a head; of a query's head under latent attention."""
        if self.family.latent:
            return need(self.config, self.where, "qk_nope_head_dim") + need(self.config, self.where, "qk_rope_head_dim")
        if given := optional(self.config, self.where, "head_dim"):
            return given
        if self.family.head_dim and "head_dim" not in self.config:  # with null, transformers divides the hidden size
            return self.family.head_dim
        return whole_heads(self.hidden, self.heads, self.where)

    @property
    def width(self) -> int:
        """Width of a dense MLP. Where the config names none, because no layer has one, that of an expert."""
        fields = self._width_fields
        if self.family.experts and all(self.config.get(name) is None for name in fields):
            fields = (self.family.experts.width,)
        return self._width_in(fields)

    @property
    def _width_fields(self) -> tuple[str, ...]:
        return ("intermediate_size_mlp",) if self.kind == "llama4_text" else ALIASES["intermediate_size"]

    def _width_in(self, fields: tuple[str, ...]) -> int:
        four_times = self.kind in FOUR_TIMES and all(self.config.get(name) is None for name in fields)
        if self.kind == "bloom" or four_times:
            return 4 * self.hidden
        return need(self.config, self.where, *fields)

    def norm_vectors(self) -> int:
        """Parameters of the norms of the hidden state."""
        per_norm = 0 if self.switches.get("layer_norm_elementwise_affine") is False else self.family.norm_params
        return per_norm * self.family.norms * self.hidden

    def attention(self, attention_type: str) -> Attention:
        """The attention of a layer of this type."""
        if attention_type == "linear_attention":
            return self._linear_attention()
        return self._latent_attention() if self.family.latent else self._heads_attention()

    def _heads_attention(self) -> Attention:
        family, hidden = self.family, self.hidden
        q, kv = self.heads * self.head_dim, self.kv_heads * self.head_dim
        queries = 2 * q if family.gated_query else q
        computed = kv if self.is_on(family.keys_are_values) else 2 * kv
        vectors = self.is_on(family.qkv_bias) * (queries + computed) + self.is_on(family.out_bias) * hidden
        vectors += family.heads_vector * self.heads
        if family.qk_norm and (not family.qk_norm_if or self.is_on(family.qk_norm_if)):
            vectors += 2 * self.head_dim if family.qk_norm == "head" else q + kv
        modules = {"q_proj": hidden * queries, "k_proj": hidden * kv, "v_proj": hidden * kv, "o_proj": q * hidden}
        if self.is_on(family.keys_are_values):  # the cache keeps both: values are not turned
            del modules["v_proj"]
        return Attention(_under("self_attn", modules), vectors, 2 * kv)

    def _latent_attention(self) -> Attention:
        """Queries, keys and values through a low rank (DeepSeek-V2, section 2.1); the cache holds the latent vector."""
        config, where, hidden, heads = self.config, self.where, self.hidden, self.heads
        rank, rope = need(config, where, "kv_lora_rank"), need(config, where, "qk_rope_head_dim")
        nope, value = need(config, where, "qk_nope_head_dim"), need(config, where, "v_head_dim")
        queries, query_rank = heads * (nope + rope), optional(config, where, "q_lora_rank")
        has_bias = self.is_on(self.family.qkv_bias)
        modules = {
            "kv_a_proj_with_mqa": hidden * (rank + rope),
            "kv_b_proj": rank * heads * (nope + value),
            "o_proj": heads * value * hidden,
        }
        vectors = rank + has_bias * (rank + rope + hidden)
        if query_rank:
            modules |= {"q_a_proj": hidden * query_rank, "q_b_proj": query_rank * queries}
            vectors += query_rank + has_bias * query_rank
        else:
            modules["q_proj"] = hidden * queries
        return Attention(_under("self_attn", modules), vectors, rank + rope)

    def _linear_attention(self) -> Attention:
        """A gated delta rule: keys and values of their own heads, a short convolution, and a state for each head."""
        config, where = self.config, self.where
        key_heads, value_heads = (
            need(config, where, "linear_num_key_heads"),
            need(config, where, "linear_num_value_heads"),
        )
        key_dim, value_dim = need(config, where, "linear_key_head_dim"), need(config, where, "linear_value_head_dim")
        kernel = optional(config, where, "linear_conv_kernel_dim") or 4
        keys, values = key_heads * key_dim, value_heads * value_dim
        modules = {
            "in_proj_qkv": self.hidden * (2 * keys + values),
            "in_proj_z": self.hidden * values,
            "in_proj_b": self.hidden * value_heads,
            "in_proj_a": self.hidden * value_heads,
            "out_proj": values * self.hidden,
        }
        vectors = (2 * keys + values) * kernel + 2 * value_heads + value_dim
        state = value_heads * key_dim * value_dim + (2 * keys + values) * kernel
        return Attention(_under("linear_attn", modules), vectors, 0, state)

    def mlp(self, has_experts: bool) -> Mlp:
        """The MLP or the experts of a layer."""
        family, hidden = self.family, self.hidden
        if not has_experts:
            width = self._width_in(self._width_fields)
            vectors = self.is_on(family.mlp_bias) * ((family.mlp_matrices - 1) * width + hidden)
            return Mlp(_gated("mlp", hidden * width, family.mlp_matrices), vectors, width=width)
        fields = family.experts
        assert fields is not None
        count = self.expert_count or need(self.config, self.where, fields.count)
        active = need(self.config, self.where, fields.active)
        if active > count:
            expected = f"expected at most {fields.count} = {count}"
            raise InputError(expected, where=self.where, field=fields.active, value=active)
        width = need(self.config, self.where, fields.width)
        shared, shared_width = self._shared(width)
        has_bias = fields.bias or self.is_on(family.mlp_bias)
        shared_biases = self.is_on(family.mlp_bias) * bool(shared_width) * (2 * shared_width + hidden)
        router = hidden * count + fields.bias * count + fields.router_vectors * count
        gate = fields.shared_gate * bool(shared_width) * hidden
        others = (fields.norms * family.norm_params + fields.router_scale) * hidden
        block = "mlp" if fields.shared == "dense" else "mlp.shared_experts"
        return Mlp(
            modules=_gated(block, hidden * shared_width) if shared_width else {},
            vectors=router + gate + others + shared_biases,
            experts=count, active=active, shared=shared, width=width,
            expert_modules=_gated(f"mlp.{ANY_EXPERT}", hidden * width),
            expert_vectors=fields.bias * has_bias * (2 * width + hidden),
        )  # fmt: skip

    @property
    def expert_count(self) -> int:
        """Experts of a layer that has any; 0 where the config has none."""
        fields = self.family.experts
        names = dict.fromkeys((fields.count, *EXPERT_COUNTS)) if fields else ()
        return next((count for name in names if (count := optional(self.config, self.where, name))), 0)

    def _shared(self, width: int) -> tuple[int, int]:
        """Shared experts, and the width of all of them together."""
        fields = self.family.experts
        assert fields is not None
        if fields.shared == "one":
            return 1, width
        if fields.shared == "dense":
            return 1, self._width_in(self._width_fields)
        if not fields.shared:
            return 0, 0
        given = size(self.config, self.where, fields.shared_field)
        return (given, given * width) if fields.shared == "count" else (int(given > 0), given)
