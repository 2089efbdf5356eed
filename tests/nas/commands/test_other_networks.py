"""The whole path for networks that others wrote: run, look, report, page, export, predict, train, load elsewhere."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from partialnet.data.readers.base import Request
from partialnet.data.readers.digits import read_digits
from tests.commands import Said
from tests.nas.commands.conftest import environment

pytestmark = [pytest.mark.ray, pytest.mark.long, pytest.mark.timeout(900)]

MODELS: dict[str, dict[str, Any]] = {
    "resnet18": {"timm": "resnet18", "convert": ["layer1.*", "layer2.*"], "min_ratio": {"*": "1/8"}},
    "resnet50": {"timm": "resnet50", "convert": ["layer1.*"], "max_ratio": {"*": "1/2"}},
    "mobilenet_v2": {"timm": "mobilenetv2_100", "convert": ["blocks.1.*", "blocks.2.*"], "rest": "identity"},
    "convnext_tiny": {"timm": "convnext_tiny", "convert": ["stages.0.*"]},
    "plain": {"installed": "plain", "options": {"width": 16}},
}
MODULE = """\
from torch import nn


class Plain(nn.Module):
    def __init__(self, num_classes=10, in_chans=1, width=8):
        super().__init__()
        self.stem = nn.Conv2d(in_chans, width, 2, 2)
        self.first, self.second = (nn.Conv2d(width, width, 3, padding=1) for _ in range(2))
        self.head = nn.Linear(width, num_classes)

    def forward(self, x):
        x = self.stem(x).relu()
        x = x + self.second(self.first(x).relu()).relu()
        return self.head(x.mean((2, 3)))
"""
LOAD = """\
import sys, torch, partialnet
package = partialnet.load_package(sys.argv[1])
with torch.no_grad():
    out = package.model(torch.zeros(2, *package.preprocessing.input_shape))
print(len(package.architecture.active_channels), *out.shape)
"""


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A package of a user that registers a network, as pip would install it."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "plain_net.py").write_text(MODULE)
    info = folder / "plain_net-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: plain-net\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[partialnet.models]\nplain = plain_net:Plain\n")
    return folder


class Bench:
    """A folder with commands that know the user's package, and a cache of their own."""

    def __init__(self, folder: Path, package: Path) -> None:
        self.folder = folder
        paths = [str(package), *filter(None, sys.path)]
        self._env = environment(PYTHONPATH=":".join(paths), PARTIALNET_CACHE=str(folder / "cache"))

    def nas(self, *arguments: str) -> Said:
        done = subprocess.run(
            [sys.executable, "-m", "nas.cli", *arguments],
            cwd=self.folder, env=self._env, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
        )  # fmt: skip
        return done.returncode, done.stdout, done.stderr

    def ok(self, *arguments: str) -> str:
        code, out, err = self.nas(*arguments)
        assert code == 0, err + out
        return out

    def python(self, code: str, *arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments],
            cwd=self.folder, env=self._env, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    def write(self, model: Mapping[str, Any], **changes: Any) -> None:
        definition = {
            "name": "other",
            "data": {"name": "digits", "image_size": 32, "train_limit": 100},
            "model": model,
            "space": {"target": 2.0, "penalty": 0.9},
            "training": {"epochs": 1, "finetune_epochs": 0, "batch_size": 30},
            "sweep": {"trials": 1},
            "baselines": ["1/4"],
            "final": {"candidates": 1, "seeds": 1, "random": 1},
            "latency": {"n": 10, "warmup": 1, "interval": 1.0, "seconds": 0.3},
            **changes,
        }
        (self.folder / "other.yaml").write_text(yaml.safe_dump(definition))


@pytest.fixture
def bench(tmp_path: Path, package: Path) -> Bench:
    image = read_digits(Request("digits", (), 1, None)).train.images[3, 0]
    Image.fromarray(image.numpy()).save(tmp_path / "digit.png")
    return Bench(tmp_path, package)


def looked_at(bench: Bench, trial: str) -> dict[str, Any]:
    """Look at a study in every way, and return the trial."""
    body: dict[str, Any] = json.loads(bench.ok("trial", "other", trial, "--json"))
    points = json.loads(bench.ok("pareto", "other", "--evaluation", "finetuned", "--json"))["points"]
    assert len(points) == 2
    assert {"top1", "macs", "latency_ms"} <= set(points[-1]["values"])
    assert "other: front of" in bench.ok("pareto", "other", "--all", "--plot", "front.html")
    bench.ok("report", "other", "--output", "report")
    assert (bench.folder / "report" / "report.html").stat().st_size > 10_000
    return body


@pytest.mark.parametrize("name", MODELS)
def test_the_whole_path(name: str, bench: Bench) -> None:
    bench.write(MODELS[name])
    out = bench.ok("run", "other.yaml", "--quiet")
    assert "other: front of" in out
    assert "Retrained from scratch" in " ".join(out.split())
    body = looked_at(bench, "1")
    [candidate] = body["candidates"]
    assert candidate["splits"]
    assert candidate["architecture"]["schema"] == 2

    bench.ok("export", "other", "1", "--out", "package", "--onnx")
    assert (bench.folder / "package" / "model.onnx").is_file()
    guesses = json.loads(bench.ok("predict", "package", "digit.png", "--json"))
    assert guesses
    bench.ok("train", "--package", "package", "--data", "digits", "--image-size", "32", "--train-limit", "60",
             "--epochs", "1", "--out", "on")  # fmt: skip
    bench.ok("train", "--architecture", "package/architecture.json", "--data", "digits", "--image-size", "32",
             "--train-limit", "60", "--epochs", "1", "--out", "scratch")  # fmt: skip
    count, batch, classes = map(int, bench.python(LOAD, "package").split())
    assert (count, batch, classes) == (len(candidate["splits"]), 2, 10)


def test_a_hard_limit_in_milliseconds(bench: Bench) -> None:
    """The table is measured when it is missing, a limit out of reach is explained, and no network exceeds it."""
    bench.write(MODELS["plain"], space={"penalty": 0.9}, budget={"unit": "latency", "at_most": 1e-3})
    code, _, err = bench.nas("run", "other.yaml")
    assert code == 2
    reach = re.search(r"at_most 0\.001 ms cannot be reached .* fastest network takes ([\d.]+) ms and the slowest "
                      r"([\d.]+) ms", " ".join(err.split()))  # fmt: skip
    assert reach is not None, err
    fastest, slowest = map(float, reach.groups())
    limit = round(0.3 * fastest + 0.7 * slowest, 4)
    bench.write(MODELS["plain"], space={"penalty": 0.9}, budget={"unit": "latency", "at_most": limit})
    out = bench.ok("run", "other.yaml")
    text = " ".join(out.split())
    assert "error on 16 whole networks" in text
    assert f"the limit of {limit:g} ms" in text
    points = json.loads(bench.ok("pareto", "other", "--evaluation", "finetuned", "--json"))["points"]
    learned = [point for point in points if point["kind"] in ("search", "cheaper")]
    assert learned
    for point in learned:
        assert point["measured_within_budget"] is (point["values"]["latency_ms"] <= limit)
        assert point["measured_within_budget"] or not point["on_front"]
