"""Linear layers laid out for few rows give the results of the plain ones, and hold the only copy of the weights."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from helix_kit.runtime.worker import cpu_linear, layout_choice  # noqa: E402
from helix_kit.runtime.worker.layout_choice import Layouts  # noqa: E402

INSIDE, WIDE, NARROW = 48, 48 * layout_choice.MIN_PACKED_RATIO, 32
TOLERANCE = 1e-5


def linear(inside: int, outside: int, *, bias: bool, dtype: torch.dtype = torch.float32) -> torch.nn.Linear:
    generator = torch.Generator().manual_seed(inside + outside)
    made = torch.nn.Linear(inside, outside, bias=bias, dtype=dtype).requires_grad_(False)
    for parameter in made.parameters():
        parameter.copy_(torch.randn(parameter.shape, generator=generator) / 8)
    return made


@pytest.mark.parametrize("rows", [1, 2, 3, 8, 33, 300])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("outside", [WIDE, NARROW])
def test_a_product_is_the_linear_layer(rows: int, bias: bool, outside: int) -> None:
    plain = linear(INSIDE, outside, bias=bias)
    ours = cpu_linear.CpuLinear(plain.weight, plain.bias)
    x = torch.randn(1, rows, INSIDE, generator=torch.Generator().manual_seed(rows))
    with torch.inference_mode():
        assert ours(x).shape == (1, rows, outside)
        torch.testing.assert_close(ours(x), plain(x), atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize(
    "layouts",
    [
        *(Layouts(by_columns, packed_from) for by_columns in (False, True) for packed_from in (None, 1, 2, 9)),
        *(Layouts(False, packed_from, tiled_to) for packed_from, tiled_to in ((None, 1), (None, 128), (2, 1), (33, 8))),
    ],
)
@pytest.mark.parametrize("bias", [False, True])
def test_a_product_is_the_linear_layer_in_every_layout(
    monkeypatch: pytest.MonkeyPatch, layouts: Layouts, bias: bool
) -> None:
    monkeypatch.setattr(cpu_linear, "layouts_of", lambda *_: layouts)
    plain = linear(INSIDE, WIDE, bias=bias)
    ours = cpu_linear.CpuLinear(plain.weight, plain.bias)
    with torch.inference_mode():
        for shape in [(1,), (2,), (1, 8), (9,), (32,), (1, 33), (5, 8), (3, 11), (127,), (128,), (129,)]:
            x = torch.randn(*shape, INSIDE, generator=torch.Generator().manual_seed(len(shape)))
            torch.testing.assert_close(ours(x), plain(x), atol=TOLERANCE, rtol=0)


def test_many_numbers_of_rows_need_few_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """oneDNN makes a kernel for each number of rows that it is given."""
    given: set[int] = set()

    def product(x: torch.Tensor, packed: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        given.add(len(x))
        return torch.zeros(len(x), NARROW)

    monkeypatch.setattr(cpu_linear, "layouts_of", lambda *_: Layouts(True, 2))
    monkeypatch.setattr(cpu_linear, "pack", lambda weight: weight)
    monkeypatch.setattr(cpu_linear, "packed_product", product)
    ours = cpu_linear.CpuLinear(linear(INSIDE, NARROW, bias=False).weight, None)
    for rows in range(1, 200):
        assert ours(torch.zeros(rows, INSIDE)).shape == (rows, NARROW)
    assert given == {*range(2, 33), *range(40, 129, 8)}


def test_our_kernel_takes_the_matrix_as_it_is_where_its_address_suits(monkeypatch: pytest.MonkeyPatch) -> None:
    """The numbers of a mapped file may begin anywhere. They are copied then, once."""
    monkeypatch.setattr(cpu_linear, "layouts_of", lambda *_: Layouts(False, None, 8))
    memory = torch.empty(NARROW * INSIDE + 16).normal_(generator=torch.Generator().manual_seed(0))
    start = -memory.data_ptr() // 4 % 16
    for offset in (0, 1):
        weight = memory[(start + offset) % 16 :][: NARROW * INSIDE].view(NARROW, INSIDE)
        ours = cpu_linear.CpuLinear(weight, None)
        assert (ours._weight.data_ptr() == weight.data_ptr()) == (offset == 0)
        with torch.inference_mode():
            x = torch.ones(2, INSIDE)
            torch.testing.assert_close(ours(x), x @ weight.t(), atol=TOLERANCE, rtol=0)


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="a build without oneDNN packs nothing")
def test_only_wide_matrices_are_packed_and_so_kept_twice() -> None:
    wide, narrow = (cpu_linear.CpuLinear(linear(INSIDE, n, bias=False).weight, None) for n in (WIDE, NARROW))
    assert wide._packed is not None
    assert narrow._packed is None
    half = cpu_linear.CpuLinear(linear(INSIDE, WIDE, bias=False, dtype=torch.bfloat16).weight, None)
    assert half._packed is None  # only float32 was measured to be faster


def test_what_has_more_columns_in_than_out_stays_as_the_file_has_it() -> None:
    weight = linear(INSIDE, NARROW, bias=False).weight
    assert cpu_linear.CpuLinear(weight, None)._weight.data_ptr() == weight.data_ptr()
    assert cpu_linear.CpuLinear(linear(NARROW, INSIDE, bias=False).weight, None)._weight.t().is_contiguous()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("outside", [WIDE, NARROW])
def test_half_weights_keep_their_layout(dtype: torch.dtype, outside: int) -> None:
    """By columns a bfloat16 product of one row took 40 times as long."""
    plain = linear(INSIDE, outside, bias=False, dtype=dtype)
    assert cpu_linear.CpuLinear(plain.weight, None)._weight.is_contiguous()
    layer = torch.nn.Module()
    layer.gate_proj, layer.up_proj = (linear(INSIDE, outside, bias=False, dtype=dtype) for _ in "gu")
    cpu_linear.replace_linear_layers(layer)
    assert layer.gate_proj._joined._product._weight.is_contiguous()


class Layer(torch.nn.Module):
    """Projections side by side, as the families have them; the middle one alone has a bias."""

    def __init__(self) -> None:
        super().__init__()
        self.q_proj, self.k_proj = linear(INSIDE, 64, bias=False), linear(INSIDE, 16, bias=True)
        self.v_proj, self.o_proj = linear(INSIDE, 16, bias=False), linear(64, INSIDE, bias=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.o_proj(self.q_proj(x)) + self.k_proj(x).repeat(1, 3) * self.v_proj(x).repeat(1, 3)


def test_a_prepared_layer_computes_the_same_for_every_input() -> None:
    plain, ours = Layer(), Layer()
    cpu_linear.replace_linear_layers(ours)
    assert not list(ours.parameters())  # every matrix was moved into its product
    with torch.inference_mode():
        for rows in (1, 5, 2):  # one after another: nothing of an earlier input is used again
            x = torch.randn(rows, INSIDE, generator=torch.Generator().manual_seed(rows))
            torch.testing.assert_close(ours(x), plain(x), atol=TOLERANCE, rtol=0)
    assert ours.q_proj._joined._rows is None  # and nothing is held between steps


def test_members_may_be_asked_in_any_order() -> None:
    plain, ours = Layer(), Layer()
    cpu_linear.replace_linear_layers(ours)
    x = torch.randn(4, INSIDE, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        for name in ("v_proj", "q_proj", "k_proj", "q_proj"):
            torch.testing.assert_close(getattr(ours, name)(x), getattr(plain, name)(x), atol=TOLERANCE, rtol=0)
