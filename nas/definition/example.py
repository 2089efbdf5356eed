"""Definitions to begin with, which forms and descriptions show. Loads neither torch nor ray."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

EXAMPLE = """\
name: my-search
question: Do learned split ratios beat uniform ones at equal cost?
data: {name: digits}
model:
  name: micro
  patch_size: 1              # 8x8 images: the maps of the four stages are 8, 4, 4, 4
  merge_strides: [2, 1, 1]
space:
  target: {log_uniform: [1.6, 8]}              # 4 costs as much as the uniform ratio 1/4
  complexity_exponent: {log_uniform: [0.01, 2]}
  penalty: {log_uniform: [0.1, 2]}
training:
  epochs: 10                 # epochs of the gate training
  finetune_epochs: 5         # epochs of fine-tuning the fixed network
  batch_size: 64
  learning_rate: 0.004
sweep: {trials: 8, seed: 0}
baselines: [1/2, 1/4, 1/8]   # uniform ratios with the same training
final: {candidates: 1, seeds: 3, random: 1}    # retrained, next to uniform and random ratios of equal cost
objectives: [top1, macs]
"""

_CHECKOUT = Path(__file__).resolve().parents[2] / "studies"
_DISTRIBUTION = "partialnet-nas"


def starting_definitions() -> dict[str, str]:
    """Return definitions to begin with, as YAML by name: the example, and those of ``studies/``.

    A checkout has their files beside the packages; an installation lists them among the files of its distribution.
    """
    paths = sorted(_CHECKOUT.glob("*.yaml")) or sorted(_installed())
    return {"example": EXAMPLE, **{path.stem: path.read_text(encoding="utf-8") for path in paths}}


def _installed() -> list[Path]:
    try:
        files = metadata.files(_DISTRIBUTION) or ()
    except metadata.PackageNotFoundError:
        return []
    return [Path(str(file.locate())) for file in files if file.match(f"share/{_DISTRIBUTION}/studies/*.yaml")]
