"""``python -m tests.benchmarks.picture_ratios DATASET FILE.png``: the papers' figure 7 from the committed searches.

The ratio of every layer in the networks that one supernet has for six budgets.
"""

from __future__ import annotations

import sys
from pathlib import Path

from nas.formatting import format_count
from nas.plots.layers import Layer
from nas.plots.ratios import RatioLine, RatiosInfo, ratios_figure
from nas.plots.save import save_figure
from partialnet import Architecture, create
from partialnet.search.cost import split_rows
from tests.benchmarks.real_data import MODEL, read


def info(dataset: str, seed: int) -> RatiosInfo:
    """Return what the figure shows."""
    line = next(entry for entry in read("searches") if entry["key"] == f"{dataset}/supernet/seed{seed}")
    rows = split_rows(create(Architecture(MODEL, {"num_classes": 10})), (3, 32, 32))
    layers = tuple(
        Layer(row.layer, f"{(row.stage or 0) + 1}.{(row.block or 0) + 1}", row.channels, row.stage) for row in rows
    )
    networks = sorted(zip(line["targets"], line["front"], strict=True), key=lambda entry: entry[0])
    lines = tuple(
        RatioLine(
            number,
            f"network {number}",
            target,
            f"{format_count(target, 4)} macs",
            tuple(found.values()),
            tuple(n / layer.channels for n, layer in zip(found.values(), layers, strict=True)),
        )
        for number, (target, found) in enumerate(networks)
    )
    title = f"PartialNet micro on {dataset}: ratio of every layer at six budgets of one supernet"
    return RatiosInfo(title, layers, lines, (1 / 2, 1 / 4, 1 / 8), "")


if __name__ == "__main__":
    save_figure(ratios_figure(info(sys.argv[1], 0)), Path(sys.argv[2]))
