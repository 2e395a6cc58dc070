"""`export_plan`: the files with which another engine serves a plan, and what is lost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from helix_kit import _files
from helix_kit._summary import number, percent
from helix_kit.errors import InputError
from helix_kit.export import scripts
from helix_kit.export.replicas import Rank, Replicas, ranks_of, replicas_of
from helix_kit.placement.plan import Plan

ENGINES = ("vllm", "sglang", "llama.cpp", "ray-serve-llm")


@dataclass(frozen=True)
class Exported:
    """What was exported.

    Examples
    --------
    >>> Exported("vllm", Replicas((), 1.0, is_exact=True, unused=()), {"router.conf": ""}).files
    {'router.conf': ''}
    """

    engine: str
    """One of `ENGINES`."""
    replicas: Replicas
    """The servers, and what is lost by them."""
    files: dict[str, str]
    """Path in the folder -> text."""

    def write(self, folder: str | Path) -> None:
        """Write the files; scripts can be run. InputError for a folder that cannot be written."""
        for name, text in self.files.items():
            path = Path(folder) / name
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                _files.write_result(path, text)
                if path.suffix == ".sh":
                    path.chmod(0o755)
            except OSError as error:
                raise InputError(f"cannot be written ({error.strerror})", where=path, field="--output") from None

    def to_dict(self) -> dict[str, Any]:
        """Replicas, loss and names of the files, for JSON."""
        return {
            "engine": self.engine,
            "is_exact": self.replicas.is_exact,
            "plan_flow_tokens_per_s": self.replicas.plan_flow_tokens_per_s,
            "flow_tokens_per_s": self.replicas.flow_tokens_per_s,
            "loss": self.replicas.loss,
            "unused": list(self.replicas.unused),
            "replicas": [
                {"stages": [list(stage) for stage in replica.stages], "flow_tokens_per_s": replica.flow_tokens_per_s,
                 "partition": list(replica.partition), "weight": weight}
                for replica, weight in zip(self.replicas.replicas, self.replicas.weights, strict=True)
            ],
            "files": sorted(self.files),
        }  # fmt: skip


def export_plan(plan: Plan, engine: str, *, model: str | None = None, max_loss: float = 1.0) -> Exported:
    """The files with which another engine serves a plan.

    Parameters
    ----------
    plan
        A plan that carries flow.
    engine
        ``vllm``, ``sglang``, ``llama.cpp`` or ``ray-serve-llm``.
    model
        Name or folder of the weights for the engine, for llama.cpp a GGUF file. None: the name in the plan.
    max_loss
        Share of the plan's flow that may be lost by separate replicas. 0 refuses a plan that the engine cannot express.

    Returns
    -------
    Exported
        The files by name; `write` writes them.

    Raises
    ------
    InputError
        An unknown engine, a plan without flow, or one that would lose more than `max_loss`.

    Examples
    --------
    >>> from helix_kit import Cluster, Model, Problem
    >>> problem = Problem.of(Cluster.preset("laptop"), Model.preset("SmolLM2-135M"))
    >>> names = [node.name for node in problem.cluster.nodes][:2]
    >>> plan = Plan.from_placement(problem, {names[0]: (0, 12), names[1]: (12, 30)}, method="hand")
    >>> found = export_plan(plan, "vllm", model="HuggingFaceTB/SmolLM2-135M")
    >>> "VLLM_PP_LAYER_PARTITION=12,18" in found.files[f"replica-0/0-{names[0]}.sh"], found.replicas.loss
    (True, 0.0)
    """
    if engine not in ENGINES:
        raise InputError(_files.unknown("engine", engine, ENGINES), field="--to")
    if not 0 <= max_loss <= 1:
        raise InputError("expected a share from 0 to 1", field="--max-loss", value=max_loss)
    replicas, source = replicas_of(plan), model or plan.model.stored_name
    # A float's last digits are no loss.
    if replicas.loss > max_loss + 1e-9:
        raise InputError(
            f"{engine} cannot express this plan: its pipelines share nodes. Separate replicas carry "
            f"{number(replicas.flow_tokens_per_s)} of {number(replicas.plan_flow_tokens_per_s)} tokens/s, a loss of "
            f"{percent(replicas.loss)}; expected at most {percent(max_loss)} (--max-loss)",
            field="plan", value=plan.method,
        )  # fmt: skip
    joins = engine != "llama.cpp"
    ranks = [ranks_of(replica, plan, may_join_gpus=joins) for replica in replicas.replicas]
    files: dict[str, str] = {}
    if engine == "ray-serve-llm":
        files = scripts.ray_serve_files(ranks, source, {n.name: n.kind for n in plan.cluster.nodes})
        files["router.conf"] = scripts.nginx_conf(replicas, [ranks[0][0].node], paths=True)
    else:
        write = {"vllm": scripts.vllm_scripts, "sglang": scripts.sglang_scripts,
                 "llama.cpp": scripts.llama_cpp_scripts}[engine]  # fmt: skip
        for index, own in enumerate(ranks):
            files |= write(index, own, source)
        heads = [own[-1].node if engine == "llama.cpp" else own[0].node for own in ranks]
        files["router.conf"] = scripts.nginx_conf(replicas, heads)
    files["README.md"] = _note(plan, engine, replicas, ranks)
    return Exported(engine, replicas, files)


def _note(plan: Plan, engine: str, replicas: Replicas, ranks: Sequence[Sequence[Rank]]) -> str:
    """What was written, how it is started, and what is lost."""
    start = {
        "vllm": "Run the scripts of each `replica-N` on the machines that they name, `0-...` first; it answers HTTP.",
        "sglang": "Run the scripts of each `replica-N` on the machines that they name; `0-...` answers HTTP.",
        "llama.cpp": "Run the scripts of each `replica-N` on the machines that they name; the last one answers HTTP.",
        "ray-serve-llm": "Run `nodes/0-...` first, the other scripts of `nodes` on their machines, then "
        "`serve deploy serve.yaml`. `helix_node_...` are resources that pin ranks to machines.",
    }[engine]
    lines = [
        f"# {plan.model.name} on {plan.cluster.name} for {engine}", "", start,
        "`HOST_<NAME>` in the environment gives the address of a machine whose name is no host name. Then start "
        "`nginx -c router.conf`: it sends each replica requests in proportion to its flow.",
        "",
        "| replica | weight | tokens/s | ranks: machine, GPUs, layers |", "|---|---|---|---|",
    ]  # fmt: skip
    for index, (replica, own, weight) in enumerate(zip(replicas.replicas, ranks, replicas.weights, strict=True)):
        told = "; ".join(f"{r.node} {','.join(map(str, r.gpus))}: {r.layers}" for r in own)
        lines.append(f"| {index} | {weight} | {number(replica.flow_tokens_per_s)} | {told} |")
    lines.append("")
    if replicas.is_exact:
        lines.append("The replicas are the pipelines of the plan: nothing of its flow is lost.")
    else:
        lines.append(
            f"In the plan pipelines share machines, or enter them in the middle of their layers. {engine} cannot do "
            f"that. These separate replicas carry {number(replicas.flow_tokens_per_s)} of the plan's "
            f"{number(replicas.plan_flow_tokens_per_s)} tokens/s: {percent(replicas.loss)} is lost."
        )
    if plan.model.quantize:
        lines.append(
            f"The plan reckons with weights rounded to {plan.model.quantize}, which our runtime does at load. "
            f"Give {engine} weights that are quantised to as few bits: others do not fit."
        )
    if replicas.unused:
        lines.append(f"Not used: {', '.join(replicas.unused)}.")
    return "\n".join(lines) + "\n"


__all__ = ["ENGINES", "Exported", "export_plan"]
