"""``nas model`` and ``nas cam``: what they print, write and refuse."""

from __future__ import annotations

import csv
import io
import json

import pytest
import torch
from PIL import Image

from partialnet.architecture import Architecture
from partialnet.models.partialnet import create
from partialnet.package import Preprocessing, save_package

QUICK = ("--n", "10", "--size", "16")


@pytest.fixture
def package(tmp_path):
    torch.manual_seed(0)
    options = {"num_classes": 3, "in_chans": 1, "patch_size": 1}
    network = create(Architecture("partialnet_micro", options, {"stages.0.blocks.0.mixer": 3})).eval()
    save_package(tmp_path / "package", network, Preprocessing("made", ("a", "b", "c"), (1, 8, 8), (0.5,), (0.25,)))
    Image.new("L", (12, 20), 90).save(tmp_path / "grey.png")
    return tmp_path / "package"


def test_a_table(nas):
    code, out, err = nas("model", "micro", *QUICK)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == "micro"
    heads = "layer channels active output multiply-adds parameters ms share kind"
    assert lines[1].split() == heads.split()
    [mixer] = [line.split() for line in lines if line.startswith("stages.2.blocks.1.mixer")]
    assert mixer[1:4] == ["64", "16", "64x2x2"]
    assert mixer[-5:] == ["PartialConv2d", "3x3", "+", "channel", "attention"]
    assert "inference form; multiply-adds of one image of 3x16x16" in out
    assert "1 thread, batch 1" in out
    assert "passes without clocks, in turn with them: median" in out
    assert "…" not in out


def test_csv_and_json_agree(nas):
    code, out, _ = nas("model", "micro", *QUICK, "--csv", "--depth", "4")
    assert code == 0
    rows = list(csv.DictReader(io.StringIO(out)))
    code, out, _ = nas("model", "micro", *QUICK, "--json", "--depth", "4", "--no-time")
    body = json.loads(out)
    assert [row["layer"] for row in rows] == [row["layer"] for row in body["layers"]]
    assert sum(int(row["macs"]) for row in rows) == body["macs"]
    assert sum(int(row["params"]) for row in rows) == body["params"]
    assert sum(float(row["share"]) for row in rows if row["share"]) < 1
    assert (body["times"], body["form"], body["input_shape"]) == (None, "inference", [3, 16, 16])


def test_forms_differ(nas):
    _, out, _ = nas("model", "micro", "--no-time", "--json")
    inference = json.loads(out)
    _, out, _ = nas("model", "micro", "--no-time", "--json", "--training-form")
    training = json.loads(out)
    assert training["form"] == "training"
    assert training["params"] > inference["params"]
    assert "stages.0.blocks.0.mlp" in {row["layer"] for row in training["layers"]}


def test_a_page_stands_alone(nas, tmp_path):
    code, _, err = nas("model", "resnet18", "--size", "32", "--depth", "2", "--no-time", "--html", "page.html")
    assert (code, err) == (0, "wrote page.html\n")
    page = (tmp_path / "page.html").read_text()
    assert "<td>layer4.1</td>" in page
    assert "plotly.js" in page
    assert 'src="http' not in page
    assert "nothing to fold in this family" in page


def test_an_exported_network(nas, package):
    code, out, _ = nas("model", package, "--no-time")
    assert code == 0
    assert "trained on made" in out.splitlines()[0]
    assert "one image of 1x8x8" in out
    code, out, _ = nas("model", package / "architecture.json", "--size", "8", "--no-time", "--csv")
    assert out.splitlines()[2].startswith("stages.0.blocks.0.mixer,PartialConv2d 3x3 + channel attention,16,3,16x8x8")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["partialnet_t7"], "did you mean partialnet_t"),
        (["t0", "--size", "16"], "use smaller ones, or images of at least 32 pixels"),
        (["t0", "--ratio", "2"], "--ratio: a ratio must be in (0, 1], but got '2'"),
        (["t0", "--option", "depths"], "give KEY=VALUE"),
        (["t0", "--option", "depths=[1"], "not valid YAML"),
        (["t0", "--device", "tpu"], "--device must be cpu or cuda, but got 'tpu'"),
        (["t0", "--csv", "--json"], "exclude each other"),
        (["micro", "--html", "none/page.html"], "the folder"),
        (["gone/architecture.json"], "there is no such file"),
    ],
)
def test_what_is_refused(nas, arguments, expected):
    code, out, err = nas("model", *arguments)
    assert (code, out) == (2, "")
    assert expected in err
    assert len(err.splitlines()) == 1


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_missing_device(nas):
    code, _, err = nas("model", "micro", "--device", "cuda")
    assert (code, "no CUDA device" in err) == (2, True)


def test_a_picture(nas, package, tmp_path):
    code, out, err = nas("cam", package, "grey.png", "--class", "b", "--out", "o.png", "--tile", "64")
    assert (code, err) == (0, "")
    assert "class b, probability" in out
    with Image.open(tmp_path / "o.png") as picture:
        assert picture.size == (5 * 70 - 6, 2 * 92 - 6)


def test_random_weights_are_told(nas, package):
    code, out, err = nas("cam", package / "architecture.json", "grey.png", "--size", "8", "--out", "o.png")
    assert code == 0
    assert "class 0" in out or "class 1" in out or "class 2" in out
    assert "the weights are random" in err


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["grey.png", "--out", "o.xyz"], "--out o.xyz: the suffix must name a picture format"),
        (["grey.png", "--out", "none/o.png"], "does not exist"),
        (["none.png", "--out", "o.png"], "none.png: does not exist"),
        (["grey.png", "--class", "z", "--out", "o.png"], "--class z: give a, b, c, or an index from 0 to 2"),
        (["grey.png", "--class", "3", "--out", "o.png"], "--class 3"),
    ],
)
def test_what_a_picture_needs(nas, package, tmp_path, arguments, expected):
    code, out, err = nas("cam", package, *arguments)
    assert (code, out) == (2, "")
    assert expected in err
    assert not (tmp_path / "o.png").exists()
