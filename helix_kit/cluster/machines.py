"""Machines: a node and its GPUs, GPUs that the catalogue lacks, and the coordinator."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, ValidationError, field_validator, model_validator

from helix_kit import _files
from helix_kit.catalogue import MAX_GPUS_PER_NODE, GpuLink, gpu_links
from helix_kit.cluster.fields import Frozen, Name, NonNegative, Positive
from helix_kit.cluster.links import Link

GPU_LINK_NAMES = ("nvlink", "xgmi", "pcie")
"""What a node's `gpu_link` may name."""


class Node(Frozen):
    """One machine as the planner sees it.

    Examples
    --------
    >>> Node(name="a", gpu="L4", gpus_per_node=2).kind
    'L4x2'
    >>> Node(name="a", gpu="H100-80G", gpus_per_node=4, gpu_link="pcie").kind
    'H100-80Gx4-pcie'
    """

    name: Name
    """Unique within the cluster."""
    gpu: Annotated[str, Field(min_length=1)]
    """A name of the GPU catalogue, or of the cluster's own `gpus`."""
    gpus_per_node: Annotated[int, Field(ge=1, le=MAX_GPUS_PER_NODE, strict=True)] = 1
    """Equal GPUs that hold the node's layers together."""
    region: Name = "local"
    """Decides which rule its links follow."""
    gpu_link: str | Link | None = None
    """Link between the node's GPUs: ``nvlink``, ``xgmi`` (Infinity Fabric), ``pcie``, or figures of your own. None: the
    usual one of the GPU."""
    tensor_parallel: Annotated[int, Field(ge=1, le=MAX_GPUS_PER_NODE, strict=True)] | None = None
    """GPUs that compute each layer together; with fewer than all, groups of them take the node's layers in turn. 1:
    every GPU has layers of its own. None: what serves more."""

    @field_validator("gpu_link", mode="before")
    @classmethod
    def _name_or_figures(cls, link: Any) -> Any:
        if link is None or isinstance(link, Link) or link in GPU_LINK_NAMES:
            return link
        if isinstance(link, dict):
            try:
                return Link.model_validate(link)
            except ValidationError as error:
                raise ValueError(_files.describe(error, Link)) from None
        raise ValueError("expected nvlink, xgmi, pcie, or {bandwidth_gbps: ..., latency_ms: ...}")

    @model_validator(mode="after")
    def _link_needs_two_gpus(self) -> Node:
        if self.gpu_link is not None and self.gpus_per_node == 1:
            raise ValueError("gpu_link: expected only with gpus_per_node of at least 2")
        return self

    @model_validator(mode="after")
    def _equal_groups(self) -> Node:
        if self.tensor_parallel is not None and self.gpus_per_node % self.tensor_parallel:
            raise ValueError(
                f"tensor_parallel = {self.tensor_parallel}: expected a divisor of gpus_per_node = {self.gpus_per_node}"
            )
        return self

    @property
    def base_kind(self) -> str:
        """Kind of the machine with the usual link between its GPUs: ``L4``, or ``L4x2`` with two GPUs."""
        return self.gpu if self.gpus_per_node == 1 else f"{self.gpu}x{self.gpus_per_node}"

    @property
    def kind(self) -> str:
        """Key of the machine's profile: ``L4``, ``L4x2`` with two GPUs, ``L4x2-pcie`` where the link is given, and
        ``L4x2-tp2`` where `tensor_parallel` is."""
        parts = [self.base_kind]
        if isinstance(self.gpu_link, Link):
            parts.append(f"{self.gpu_link.bandwidth_gbps:g}gbps-{self.gpu_link.latency_ms:g}ms")
        elif self.gpu_link is not None:
            parts.append(self.gpu_link)
        if self.tensor_parallel is not None and self.gpus_per_node > 1:
            parts.append(f"tp{self.tensor_parallel}")
        return "-".join(parts)


class GpuSpec(Frozen):
    """Figures of one GPU that the catalogue lacks.

    Examples
    --------
    >>> GpuSpec(memory_gb=11, memory_bandwidth_gb_per_s=484, fp16_tflops=11).price_usd_per_hour is None
    True
    """

    memory_gb: Positive
    """10^9 bytes."""
    memory_bandwidth_gb_per_s: Positive
    """10^9 bytes/s."""
    fp16_tflops: Positive
    """10^12 operations/s, without sparsity."""
    price_usd_per_hour: Positive | None = None
    """None where unknown. A price under the cluster's `prices` takes precedence."""
    tdp_w: Positive | None = None
    """Power at full load in W; None where unknown."""
    idle_w: NonNegative | None = None
    """Power of a GPU that waits, in W; None: a share of the TDP."""
    nvlink: Link | None = None
    """NVLink between such GPUs of one node, as an all-reduce reaches it; the latency is that of one step of a ring."""
    pcie: Link | None = None
    """PCIe between such GPUs of one node. None: through the host's memory (row ``*`` of ``data/gpu_links.csv``)."""

    def links(self, source: str) -> dict[str, GpuLink]:
        """The links between such GPUs of one node, the usual one first."""
        given = {"nvlink": self.nvlink, "pcie": self.pcie}
        return {
            name: GpuLink(name, link.bandwidth_gbps, link.latency_ms, source) for name, link in given.items() if link
        } | ({} if self.pcie else {"pcie": gpu_links("*")["pcie"]})


class OwnPrice(Frozen):
    """What one GPU costs an hour in a cluster's file, in dollars.

    Examples
    --------
    >>> OwnPrice.model_validate({"on_demand": 2.0, "spot": 0.8}).spot
    0.8
    """

    on_demand: NonNegative
    """Paid by the hour."""
    reserved: NonNegative | None = None
    """For a committed term. None: as on demand."""
    spot: NonNegative | None = None
    """May be taken away at short notice. None: as on demand."""


class Coordinator(Frozen):
    """The machine that receives requests and returns answers.

    Examples
    --------
    >>> Coordinator(region="us").region
    'us'
    """

    region: Name
    """Region whose links it uses."""


__all__ = ["Coordinator", "GpuSpec", "Node", "OwnPrice"]
