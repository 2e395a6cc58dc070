"""``helix-kit catalog``."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer
from rich.table import Table

from helix_kit.cli.output import print_json
from helix_kit.cli.shared import JsonFlag, app, plain_console


@app.command("catalog")
def catalog_command(
    with_sources: Annotated[
        bool,
        typer.Option(
            "--sources",
            help="Also where each figure comes from, all prices with seller and day, and the links between the GPUs of "
            "a node.",
        ),
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """List the clusters, models and GPUs that ship with the package.

    Example: [bold]helix-kit catalog[/] --sources
    """
    from helix_kit import cluster, model
    from helix_kit.catalogue import PAYMENTS
    from helix_kit.profiles import gpu_links, gpus

    clusters = {name: cluster.Cluster.preset(name).kind_counts for name in cluster.preset_names()}
    models = {name: model.Model.preset(name) for name in model.preset_names()}
    if as_json:
        content = {
            "clusters": clusters,
            "models": {name: m.model_dump() for name, m in models.items()},
            "gpus": {
                name: {k: v for k, v in asdict(g).items() if k != "name"} | {"price_usd_per_hour": g.price_usd_per_hour}
                for name, g in gpus().items()
            },
            "gpu_links": {gpu: {name: asdict(link) for name, link in gpu_links(gpu).items()} for gpu in gpus()},
        }
        print_json(content)
        return
    console = plain_console()
    table = Table("Cluster", "Nodes", "Machines")
    for name, kinds in clusters.items():
        table.add_row(name, str(sum(kinds.values())), ", ".join(f"{n} x {kind}" for kind, n in kinds.items()))
    console.print(table)
    table = Table("Model", "Layers", "GB per layer", "GB in layers")
    for name, m in models.items():
        table.add_row(name, str(m.num_layers), f"{m.layer_gb:.3g}", f"{m.num_layers * m.layer_gb:.3g}")
    console.print(table)
    table = Table("GPU", "Memory GB", "GB/s", "TFLOPS fp16", "TDP W", "Source" if with_sources else "USD/h on demand")
    for name, g in gpus().items():
        memory = f"{g.memory_gb:g}" + (f" of {g.unified_memory_gb:g}" if g.unified_memory_gb else "")
        price = "" if g.price_usd_per_hour is None else f"{g.price_usd_per_hour:.2f}"
        table.add_row(
            name,
            memory,
            f"{g.memory_bandwidth_gb_per_s:g}",
            f"{g.fp16_tflops:g}",
            "" if g.tdp_w is None else f"{g.tdp_w:g}",
            g.source if with_sources else price,
        )
    console.print(table)
    if not with_sources:
        console.print("With --sources: where each figure comes from, all prices, and links between the GPUs of a node.")
        return
    table = Table("USD/h of a GPU", "on demand", "reserved", "spot", "Seller, day and source")
    for name, g in gpus().items():
        prices = [g.price.of(payment) for payment in PAYMENTS]
        if any(price is not None for price in prices):
            shown = ("" if price is None else f"{price:.2f}" for price in prices)
            table.add_row(name, *shown, g.price.source)
    console.print(table)
    table = Table("Several GPUs in a node", "gpu_link", "Gbit/s", "ms a step", "Source")
    for name in gpus():
        for link in gpu_links(name).values():
            each = "" if link.peers is None else f" to each of {link.peers}"
            table.add_row(name, link.name, f"{link.bandwidth_gbps:g}{each}", f"{link.latency_ms:g}", link.source)
    console.print(table)
