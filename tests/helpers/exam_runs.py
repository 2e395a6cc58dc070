"""A folder of runs for the exam, made up here."""

from __future__ import annotations

from pathlib import Path

RUNS = """
models:
  tiny: {layers: 4, hidden: 256, heads: 4, kv_heads: 2, head_dim: 64, intermediate: 512, vocab: 1000,
         quantisation: null, moe: null}
  experts: {layers: 4, hidden: 256, heads: 4, kv_heads: 2, head_dim: 64, intermediate: 512, vocab: 1000,
            quantisation: fp8, moe: {experts: 4, active: 1, expert_intermediate: 512, shared_experts: 0}}
runs:
- &run
  id: one
  model: tiny
  hardware: H100
  tp: 1
  workload_name: small
  workload: {stages: [{rate: 5.0, duration: 20}, {rate: 10.0, duration: 10}], system_prompt_len: 50, question_len: 150,
             output_len: 20, input_len_client_mean: 220}
  max_num_seqs: 16
  max_num_batched_tokens: 256
  max_model_len: 4096
  total_kv_blocks: 2000
- {<<: *run, id: two, model: experts, tp: 2}
"""


def write_runs(folder: Path) -> Path:
    """Write the workloads of both splits, without measurements."""
    for split in ("train", "eval"):
        (folder / f"{split}_workloads.yaml").write_text(RUNS)
    return folder
