"""The README.md of an exported network: its scores, its origin and its use. Loads no torch."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC

from nas.candidate import Candidate, Split
from nas.definition.sections import DataSpec
from nas.formatting import circumstances, format_moment, format_parameter, format_value
from nas.metrics import KINDS, METRICS, EvaluationKind, evaluated_metrics
from nas.study import Study
from nas.trial import Trial, TrialKind
from nas.versions import versions
from partialnet.architecture import Architecture

SNIPPET = """\
import torch

from partialnet import load_package
from partialnet.data import preprocess_image

package = load_package(".")
image = preprocess_image("image.png", package.preprocessing)
with torch.inference_mode():
    probabilities = package.model(image).softmax(-1)[0]
best = int(probabilities.argmax())
print(package.preprocessing.class_names[best], f"{probabilities[best]:.1%}")
"""

ONNX_USE = """
`model.onnx` is that form for ONNX Runtime and others: `images` [batch, channels, height, width], prepared as above at
the size in `preprocessing.json`, give `output` with one logit for each class.
"""

PROGRAM_USE = """
`model.pt2` is that form as a program of `torch.export`, for the same images and any number of them. It runs without
this package: `torch.export.load("model.pt2").module()(images)`.
"""


def markdown_table(head: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    """Return a table in Markdown."""
    names = list(head)
    lines = ["| " + " | ".join(names) + " |", "|" + " --- |" * len(names)]
    return "\n".join([*lines, *("| " + " | ".join(map(str, row)) + " |" for row in rows)])


def score_table(candidate: Candidate) -> str:
    """Return the evaluations, with a row for each kind and data split."""
    groups: dict[tuple[EvaluationKind, str], dict[str, float]] = {}
    epochs: dict[tuple[EvaluationKind, str], int | None] = {}
    for item in candidate.evaluations:
        key = (item.kind, item.data_split)
        groups.setdefault(key, {})[item.metric] = item.value
        epochs[key] = item.epochs
    metrics = evaluated_metrics()
    rows = [
        [
            f"{kind.value} ({KINDS[kind]})",
            split,
            *(format_value(name, scores[name]) if name in scores else "-" for name in metrics),
            "-" if epochs[kind, split] is None else epochs[kind, split],
        ]
        for (kind, split), scores in groups.items()
    ]
    return markdown_table(["evaluation", "data", *(METRICS[name].label for name in metrics), "epochs"], rows)


def measurement_table(candidate: Candidate) -> str:
    """Return the newest value of each measured metric with its circumstances."""
    newest = {item.metric: item for item in candidate.measurements}
    rows = [
        [METRICS[metric].label, format_value(metric, item.value), circumstances(item)]
        for metric, item in newest.items()
    ]
    return markdown_table(["quantity", "value", "how"], rows)


def split_table(splits: Iterable[Split]) -> str:
    """Return the ratio of each layer."""
    rows = [
        [f"`{split.layer}`", split.channels, split.active_channels, f"{split.ratio:.3f}", f"{split.macs:,}"]
        for split in splits
    ]
    return markdown_table(["layer", "channels", "active channels", "ratio", "multiply-adds"], rows)


def block_choices(architecture: Architecture) -> str:
    """Return absent blocks, and other choices of blocks that differ from the usual ones, as sentences."""
    found = []
    if architecture.absent_blocks:
        found.append(f"Absent blocks: {', '.join(f'`{name}`' for name in architecture.absent_blocks)}.")
    if widths := architecture.hidden_channels:
        found.append(f"Hidden widths: {', '.join(f'`{name}` {width}' for name, width in widths.items())}.")
    if kernels := architecture.kernel_sizes:
        found.append(f"Kernel sizes: {', '.join(f'`{name}` {size}' for name, size in kernels.items())}.")
    if attended := architecture.attended_channels:
        found.append(f"Attended channels: {', '.join(f'`{name}` {count}' for name, count in attended.items())}.")
    return "".join(f"\n{sentence}\n" for sentence in found)


def provenance_table(study: Study, trial: Trial, candidate: Candidate) -> str:
    """Return the origin of the network."""
    data = study.definition.data
    rows: list[Sequence[object]] = [
        ["study", f"{study.name} (`{study.id}`)"],
        ["trial", f"{trial.number} ({trial.label})"],
        *([f"parameter `{name}`", format_parameter(value)] for name, value in trial.spec.stored_parameters.items()),
        ["seed", trial.seed],
        ["method", study.definition.method],
        ["data set", data.name if data.folder is None else f"{data.name}: {data.folder}"],
        ["architecture", f"`{candidate.architecture.id}`"],
        *([["weights (sha256)", f"`{candidate.weights.sha256}`"]] if candidate.weights else []),
        ["trained until", "-" if trial.ended_at is None else format_moment(trial.ended_at, UTC)],
        *([f"version of {name}", value] for name, value in versions().items()),
    ]
    return markdown_table(["what", "value"], rows)


def model_card(
    study: Study, trial: Trial, candidate: Candidate, *, onnx: bool = False, program: bool = False, int8: str = ""
) -> str:
    """Return the whole README.md of an export.

    Args:
        study: Study of the trial.
        trial: Trial that the network comes from.
        candidate: Network with its scores and its splits.
        onnx: Whether the folder holds the ONNX form as well.
        program: Whether it holds the program of ``torch.export`` as well.
        int8: Section about the 8-bit form, if the folder holds one.
    """
    data = study.definition.data
    question = study.definition.question.strip()
    origin = f"\nIt comes from a search that asks: {question}\n" if question else ""
    ratios = "learned" if trial.kind is TrialKind.SEARCH else trial.label
    tested = any(evaluation.data_split == "test" for evaluation in candidate.evaluations)
    images = "test images were used once, for retrained networks" if tested else "test images were not used"
    budget = "" if candidate.within_budget else f"\nThe budget was not met: {candidate.note}\n"
    if candidate.measured_within_budget is False:
        budget += "\nThe measured latency of the whole network does not keep the budget in milliseconds.\n"
    runtimes = (ONNX_USE if onnx else "") + (PROGRAM_USE if program else "") + (f"\n{int8}" if int8 else "")
    train = f"nas train --package . --data {data.name}" + (f" --folder {data.folder}" if data.folder else "")
    return f"""\
# {study.name}, trial {trial.number}: {candidate.architecture.model} with {ratios} ratios

A plain network with a fixed split in each layer: the first active channels are convolved, attention serves the rest.
{origin}{budget}
## Scores

{score_table(candidate)}

The trials were compared on validation images; {images}. Scores of different kinds cannot be compared.

{measurement_table(candidate)}

## Split ratios

{split_table(candidate.splits)}
{block_choices(candidate.architecture)}
## Use

In this folder, with `partialnet-nas` installed:

```python
{SNIPPET}```

Or `nas predict . image.png`. `partialnet.fuse(package.model)` gives the faster inference form.

Continue training from these weights (`--from-scratch` starts from random ones):

```sh
{train} --epochs 10 --out ../trained
```
{runtimes}
## Provenance

{provenance_table(study, trial, candidate)}

The study's definition:

```json
{json.dumps(study.definition.to_dict(), indent=2)}
```
"""


def training_card(candidate: Candidate, data: DataSpec, settings: Mapping[str, object]) -> str:
    """Return the README.md of a network that ``nas train`` trained.

    Args:
        candidate: Network with its scores and its splits.
        data: Data set of the training.
        settings: Settings of the training, for the provenance.
    """
    rows: list[Sequence[object]] = [
        ["data set", data.name if data.folder is None else f"{data.name}: {data.folder}"],
        ["architecture", f"`{candidate.architecture.id}`"],
        *([name, format_parameter(value)] for name, value in settings.items()),
        *([f"version of {name}", value] for name, value in versions().items()),
    ]
    return f"""\
# {candidate.architecture.model}, trained on {data.name}

A plain network with a fixed split in each layer: the first active channels are convolved, attention serves the rest.

## Scores

{score_table(candidate)}

Test images were used once, after the training.

{measurement_table(candidate)}

## Split ratios

{split_table(candidate.splits)}
{block_choices(candidate.architecture)}
## Use

In this folder, with `partialnet-nas` installed:

```python
{SNIPPET}```

Or `nas predict . image.png`. `partialnet.fuse(package.model)` gives the faster inference form.

## Provenance

{markdown_table(["what", "value"], rows)}
"""
