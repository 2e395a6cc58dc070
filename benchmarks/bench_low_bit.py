"""Products with weights of few bits on this CPU, beside the same products in float32 and bfloat16.

    python benchmarks/bench_low_bit.py [--outputs N] [--inputs N] [--threads N]

Prints a Markdown table: milliseconds of one product for steps of several sizes, the best of some tries, and the bytes
of the matrix in each form. The column of torch's own kernel is the one that torchao calls for four bits on a CPU; we
use it, too, in bfloat16.
"""

from __future__ import annotations

import argparse
import functools
import time
from collections.abc import Callable

import torch

from helix_kit.runtime.weights.low_bit import LowBitWeight, quantize
from helix_kit.runtime.worker.low_bit_linear import LowBitLinear

ROWS = (1, 4, 16, 32, 64)
PATIENCE_S = 0.4
"""How long one product is tried again and again."""


def best_ms(work: Callable[[], object]) -> float:
    """Milliseconds of the fastest of several tries, after one that is not counted.

    With one thread its own time counts, which leaves out that of other programs.
    """
    clock = time.thread_time if torch.get_num_threads() == 1 else time.perf_counter
    work()
    best, end = float("inf"), time.perf_counter() + PATIENCE_S
    while time.perf_counter() < end:
        begin = clock()
        work()
        best = min(best, clock() - begin)
    return best * 1e3


def torch_int4(kept: LowBitWeight, dtype: torch.dtype) -> Callable[[torch.Tensor], torch.Tensor]:
    """torch's own product for the matrix."""
    assert kept.zeros is not None
    levels = (kept.expand(torch.float32).view(*kept.scales.shape, -1) / kept.scales[..., None]).round()
    codes = (levels + kept.zeros[..., None]).view(kept.shape).int()
    packed = torch.ops.aten._convert_weight_to_int4pack_for_cpu(codes, 1)
    # Its zero is added, and its codes are counted from 8.
    shifts = (8 - kept.zeros.float()) * kept.scales
    table = torch.stack([kept.scales.t(), shifts.t()], dim=-1).to(dtype).contiguous()
    return lambda x: torch.ops.aten._weight_int4pack_mm_for_cpu(x, packed, kept.group, table)


@torch.inference_mode()
def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--outputs", type=int, default=2048)
    parser.add_argument("--inputs", type=int, default=2048)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    weight = torch.randn(options.outputs, options.inputs, generator=torch.Generator().manual_seed(0))
    exponents = torch.full((options.outputs, options.inputs // 32), 127, dtype=torch.uint8)
    kept = {kind: quantize(weight, kind) for kind in ("int4", "int8")}
    kept["mxfp4"] = LowBitWeight("mxfp4", kept["int8"].codes[:, ::2].contiguous(), exponents, None)
    kept["fp8"] = LowBitWeight("fp8", weight.to(torch.float8_e4m3fn).view(torch.uint8), kept["int8"].scales, None)
    print(f"{options.outputs} x {options.inputs}, {options.threads} thread(s), ms a product\n")
    print("| dtype | rows | plain | int4 | int8 | mxfp4 | fp8 | torch's int4 |\n" + "|---" * 8 + "|")
    for dtype in (torch.float32, torch.bfloat16):
        products = [functools.partial(torch.nn.functional.linear, weight=weight.to(dtype))]
        products += [LowBitLinear(matrix, None, dtype) for matrix in kept.values()]
        products.append(torch_int4(kept["int4"], dtype))
        for rows in ROWS:
            x = torch.randn(rows, options.inputs).to(dtype)
            times = [best_ms(functools.partial(product, x)) for product in products]
            cells = " | ".join(f"{ms:.2f}" for ms in times)
            print(f"| {str(dtype).removeprefix('torch.')} | {rows} | {cells} |", flush=True)
    print(
        f"\nMB: float32 {weight.numel() * 4 / 1e6:.1f}, bfloat16 {weight.numel() * 2 / 1e6:.1f}, "
        + ", ".join(f"{kind} {matrix.num_bytes / 1e6:.1f}" for kind, matrix in kept.items())
    )


if __name__ == "__main__":
    main()
