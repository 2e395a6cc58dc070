"""The parts of all ranks are the whole layer, for any numbers of heads; what does not divide is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from helix_kit.errors import InputError  # noqa: E402
from helix_kit.model import Model  # noqa: E402
from helix_kit.profiles.node_splits import undivided  # noqa: E402
from helix_kit.runtime.weights.shares import LayerShare, check_tensor_parallel  # noqa: E402

HIDDEN = 6


@st.composite
def layers(draw: st.DrawFn) -> tuple[int, int, int, int, int, int]:
    """Ranks, query heads, key heads, head size, MLP columns and a seed, of a layer that can be divided."""
    ranks = draw(st.sampled_from([1, 2, 3, 4, 8]))
    divisors = [d for d in range(1, ranks + 1) if ranks % d == 0]
    kv_heads = draw(st.sampled_from([*divisors, ranks * draw(st.integers(1, 3))]))
    least = ranks * kv_heads // torch.gcd(torch.tensor(ranks), torch.tensor(kv_heads)).item()
    heads = least * draw(st.integers(1, 3))
    columns = ranks * draw(st.integers(1, 4))
    return ranks, heads, kv_heads, draw(st.sampled_from([1, 2, 4])), columns, draw(st.integers(0, 99))


def attention(x, q, k, v, o, head_dim):
    """Attention of one sequence, without positions: query heads share key heads in groups."""
    split = [(x @ w.T).view(len(x), -1, head_dim).transpose(0, 1) for w in (q, k, v)]
    queries, keys, values = split
    group = len(queries) // len(keys)
    keys, values = keys.repeat_interleave(group, 0), values.repeat_interleave(group, 0)
    scores = (queries @ keys.transpose(1, 2)).softmax(-1)
    return (scores @ values).transpose(0, 1).flatten(1) @ o.T


def mlp(x, gate, up, down):
    return (torch.nn.functional.silu(x @ gate.T) * (x @ up.T)) @ down.T


@given(layers())
def test_the_parts_add_up_to_the_whole_layer(layer) -> None:
    ranks, heads, kv_heads, head_dim, columns, seed = layer
    generator = torch.Generator().manual_seed(seed)

    def matrix(rows, inside):
        return torch.randn(rows, inside, generator=generator, dtype=torch.float64)

    x = matrix(3, HIDDEN)
    names = ["q", "k", "v", "o"]
    shapes = [(heads * head_dim, HIDDEN), *2 * [(kv_heads * head_dim, HIDDEN)], (HIDDEN, heads * head_dim)]
    whole = {f"self_attn.{n}_proj.weight": matrix(*shape) for n, shape in zip(names, shapes)}
    whole |= {f"mlp.{n}_proj.weight": matrix(columns, HIDDEN) for n in ("gate", "up")}
    whole["mlp.down_proj.weight"] = matrix(HIDDEN, columns)
    attended, gated = torch.zeros_like(x), torch.zeros_like(x)
    for rank in range(ranks):
        share = LayerShare(rank, ranks, heads, kv_heads, head_dim, columns)
        part = [tensor[share.place(name)] for name, tensor in whole.items()]
        assert len(part[0]) == share.own_heads * head_dim and len(part[1]) == share.own_kv_heads * head_dim
        assert len(part[4]) == share.own_columns
        attended += attention(x, *part[:4], head_dim)
        gated += mlp(x, *part[4:])
    weights = list(whole.values())
    torch.testing.assert_close(attended, attention(x, *weights[:4], head_dim))
    torch.testing.assert_close(gated, mlp(x, *weights[4:]))
    # A bias that is added to a sum is counted by one rank; one of a part is divided with it.
    zeros = [
        LayerShare(r, ranks, heads, kv_heads, head_dim, columns).is_zero("mlp.down_proj.bias") for r in range(ranks)
    ]
    assert zeros.count(False) == 1
    assert not share.is_zero("self_attn.q_proj.bias") and share.place("input_layernorm.weight") == ()


def sizes(**changes: int) -> Model:
    return Model.preset("llama3.1-8b").model_copy(update=changes)


@pytest.mark.parametrize(
    ("family", "model", "ranks", "message"),
    [
        ("gpt_oss", sizes(), 2, r"node a: model_type = 'gpt_oss': tensor_parallel = 2 is served for cohere2, gemma"),
        ("llama", sizes(num_heads=9), 2, r"node a: num_heads = 9: expected a multiple of 2"),
        ("llama", sizes(num_heads=24, num_kv_heads=6), 4, r"num_kv_heads = 6: expected a multiple or a divisor of 4"),
        ("qwen2", sizes(intermediate_size=99), 2, r"intermediate_size = 99: expected a multiple of 2"),
    ],
)
def test_what_cannot_be_divided_is_refused_by_name(family: str, model: Model, ranks: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_tensor_parallel({"model_type": family}, model, ranks, "node a")


def test_key_heads_are_held_by_several_ranks() -> None:
    assert undivided(sizes(num_kv_heads=2), 8) is None
    firsts = [LayerShare(rank, 8, 32, 2, 1, 8).place("self_attn.v_proj.weight")[0].start for rank in range(8)]
    assert firsts == [0, 0, 0, 0, 1, 1, 1, 1]
