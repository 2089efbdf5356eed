"""The main job through the command line: run, look, export, predict, train on."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shutil
import signal
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from PIL import Image

from nas.commands.trial import bar
from nas.store import Store
from nas.study import StudyState
from nas.trial import TrialState
from nas.wire.bodies import Int8Body
from nas.worker.kinds.export import int8_scores
from partialnet.architecture import Architecture
from partialnet.data import load
from partialnet.data.readers.base import Request
from partialnet.data.readers.digits import read_digits
from partialnet.int8 import OnnxNetwork
from partialnet.package import load_package
from tests.nas.commands.conftest import start
from tests.waiting import wait_for

pytestmark = [pytest.mark.ray, pytest.mark.slow]


@pytest.fixture(scope="session")
def digit(tiny):
    path = tiny.folder / "digit.png"
    image = read_digits(Request("digits", (), 1, None)).train.images[3, 0]
    Image.fromarray(image.numpy()).resize((20, 30)).save(path)
    return path


def test_an_interrupted_run_says_how_to_go_on(tiny):
    code, _, err = tiny.interrupted
    assert code == 130
    assert err.strip().splitlines()[-1] == "paused; continue with: nas run --resume tiny"
    assert "Traceback" not in err


def test_an_interrupted_run_leaves_its_tables_in_order(tiny):
    assert tiny.stopped is StudyState.PAUSED
    assert [trial.state for trial in tiny.between][:2] == [TrialState.COMPLETE, TrialState.QUEUED]
    assert TrialState.RUNNING not in {trial.state for trial in tiny.between}


def test_the_resumed_run_repeats_and_changes_nothing(tiny):
    with Store.open(f"sqlite:///{tiny.folder / 'nas.db'}") as store:
        after = store.trials(store.study("tiny").id)
    for trial, now in zip(tiny.between, after, strict=False):
        assert (now.number, now.seed, now.parameters) == (trial.number, trial.seed, trial.parameters)
    assert without_latency(after[0]) == without_latency(tiny.between[0])


def without_latency(trial):
    """Leave out what is measured at the end of a search."""
    kept = [m for m in trial.candidates[0].measurements if m.metric != "latency_ms"]
    return replace(trial, candidates=(replace(trial.candidates[0], measurements=tuple(kept)),))


def test_the_resumed_run_ends_with_the_front(tiny):
    code, out, err = tiny.resumed
    assert (code, err) == (0, "")
    assert "tiny: front of 3 scored trials" in out
    assert "hypervolume" in out
    assert "uniform" in out
    assert "nas export tiny" in out
    with Store.open(f"sqlite:///{tiny.folder / 'nas.db'}") as store:
        study = store.study("tiny")
        trials = store.trials(study.id)
    assert study.state is StudyState.FINISHED
    assert [trial.state for trial in trials] == [TrialState.COMPLETE] * 3
    assert study.report


def test_studies(nas, tiny):
    code, out, _ = nas("studies", cwd=tiny.folder)
    assert code == 0
    assert re.search(r"tiny +finished +3 of 3 +- +\d+\.\d\d +digits [0-9a-f]{8} +partialnet_micro", out)


def test_studies_json(nas, tiny):
    code, out, _ = nas("studies", "--json", cwd=tiny.folder)
    assert code == 0
    body = json.loads(out)
    assert body["count"] == 1
    assert body["studies"][0]["counts"] == {"complete": 3}
    assert body["studies"][0]["best_top1"] > 0


def test_pareto_table(nas, tiny):
    code, out, _ = nas("pareto", "latest", "--all", cwd=tiny.folder)
    assert code == 0
    rows = [line for line in out.splitlines() if re.match(r"[* ] +\d ", line)]
    assert len(rows) == 3
    assert any(line.startswith("*") for line in rows)
    title, heads = out.splitlines()[:2]
    assert title == "tiny: front of 3 scored trials, finetuned weights, validation data"
    assert re.match(r" +trial +ratios +top-1 % +FLOPs +latency ms +sampled", heads)


def test_pareto_csv_and_json_agree(nas, tiny):
    code, text, _ = nas("pareto", "tiny", "--csv", cwd=tiny.folder)
    assert code == 0
    rows = list(csv.DictReader(io.StringIO(text)))
    code, text, _ = nas("pareto", "tiny", "--json")
    assert code == 0
    body = json.loads(text)
    assert [axis["metric"] for axis in body["objectives"]] == ["top1", "macs"]
    assert body["hypervolume"] > 0
    assert len(rows) == len(body["points"]) == 3
    for row, point in zip(rows, body["points"], strict=True):
        assert int(row["number"]) == point["number"]
        assert (row["on_front"] == "true") is point["on_front"]
        assert float(row["top1"]) == point["values"]["top1"]
        assert float(row["macs"]) == point["values"]["macs"]
    assert rows[0]["label"] == "uniform 1/4"
    assert rows[0]["parameter.ratio"] == "0.25"
    assert float(rows[1]["parameter.target"]) == body["points"][1]["parameters"]["target"]


def test_pareto_axes_and_kinds(nas, tiny):
    code, out, _ = nas("pareto", "tiny", "--x", "params", "--json", cwd=tiny.folder)
    assert code == 0
    assert [axis["metric"] for axis in json.loads(out)["objectives"]] == ["top1", "params"]
    code, out, _ = nas("pareto", "tiny", "--evaluation", "inherited", "--json")
    assert [point["number"] for point in json.loads(out)["points"]] == [1, 2]
    code, out, _ = nas("pareto", "tiny", "--evaluation", "retrained")
    assert code == 0
    assert "no trial with top1 and macs (retrained) yet" in out


def test_pareto_figure(nas, tiny, tmp_path):
    code, _, err = nas("pareto", "tiny", "--plot", tmp_path / "front.html", cwd=tiny.folder)
    assert (code, err.strip()) == (0, f"wrote {tmp_path / 'front.html'}")
    assert "multiply-adds" in (tmp_path / "front.html").read_text()


def test_trial(nas, tiny, tmp_path):
    code, out, _ = nas(
        "trial", "tiny", "1", "--architecture", tmp_path / "a.json", "--plot", tmp_path / "a.html", cwd=tiny.folder
    )
    assert code == 0
    assert "target=" in out
    assert re.search(r"stages\.0\.blocks\.0\.mixer +\d+ +16 +0\.\d{3} +[█▏▎▍▌▋▊▉]", out)
    architecture = Architecture.load(tmp_path / "a.json")
    assert len(architecture.active_channels) == 5
    assert (tmp_path / "a.html").stat().st_size > 1_000_000
    code, out, _ = nas("trial", "tiny", "1", "--json")
    body = json.loads(out)
    assert body["number"] == 1
    assert [row["active_channels"] for row in body["candidates"][0]["splits"]] == list(
        architecture.active_channels.values()
    )


def test_the_export_stands_on_its_own(exported, digit, tmp_path, monkeypatch, capsys):
    package = load_package(exported)
    assert package.preprocessing.class_names == tuple("0123456789")
    card = (exported / "README.md").read_text()
    for text in ("finetuned", "inherited", "`target`", "seed", "version of torch", "stages.3.blocks.0.mixer", "macs"):
        assert text in card
    # the card's own lines, as a user would copy them
    shutil.copytree(exported, tmp_path / "there")
    shutil.copy(digit, tmp_path / "there" / "image.png")
    monkeypatch.chdir(tmp_path / "there")
    snippet = re.search(r"```python\n(.*?)```", card, re.DOTALL)
    assert snippet is not None
    exec(compile(snippet[1], "README.md", "exec"), {"__name__": "__main__"})
    assert re.fullmatch(r"\d \d+\.\d%\n", capsys.readouterr().out)


def test_an_export_is_not_overwritten_unasked(nas, tiny, exported):
    before = (exported / "README.md").read_text()
    code, _, err = nas("export", "tiny", "0", "--out", exported, cwd=tiny.folder)
    assert code == 2
    assert "exists and is not empty" in err
    assert (exported / "README.md").read_text() == before
    code, _, _ = nas("export", "tiny", "1", "--out", exported, "--force")
    assert code == 0


def test_an_export_in_8_bits(nas, tiny, exported, tmp_path):
    out = tmp_path / "small"
    bound = ("--int8", "--int8-max-drop", "30")
    code, told, err = nas("export", "tiny", "1", "--out", out, "--onnx", *bound, cwd=tiny.folder)
    assert code == 0, err
    assert len(re.findall(r"int8: .*, (?:all operations|weights only): top-1 \d+\.\d\d % on \d+ train", err)) == 8
    report = json.loads((out / "int8.json").read_text())
    scores = {name: report["validation"][name]["top1"] for name in ("float32", "int8")}
    assert scores["float32"] - scores["int8"] <= 0.3
    images, _ = next(iter(load("digits", train_limit=200).validation.batches(20)))
    wanted, found = (OnnxNetwork(out / name, 1)(images) for name in ("model.onnx", "model-int8.onnx"))
    assert float((wanted - found).norm() / wanted.norm()) < 0.3
    said = Int8Body.model_validate(int8_scores(out))  # of a worker that makes it
    assert (said.top1, said.max_drop, said.images) == (scores, 0.3, report["validation"]["int8"]["n"])
    card = (out / "README.md").read_text()
    assert "## 8-bit form" in card
    assert f"| int8 | {100 * scores['int8']:.2f} | " in card
    assert load_package(out).architecture == load_package(exported).architecture
    assert report["latency_figures"]["int8"]["precision"] == "int8"
    assert {"model-int8.onnx", "int8.json"} <= {line.split()[0] for line in told.splitlines()[1:]}


def test_damaged_weights_are_not_exported(nas, tiny):
    path = next((tiny.folder / "nas-storage").rglob("trials/0/*.safetensors"))
    good = path.read_bytes()
    path.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    code, _, err = nas("export", "tiny", "0", "--out", "never", cwd=tiny.folder)
    path.write_bytes(good)
    assert code != 0
    assert "damaged" in err
    assert not (tiny.folder / "never").exists()


def test_predict(nas, exported, digit, tiny):
    code, out, err = nas("predict", "exported", "digit.png", "--json", "--top", "10", cwd=tiny.folder)
    assert code == 0, err
    (found,) = json.loads(out)
    assert found["image"] == "digit.png"
    assert {entry["name"] for entry in found["classes"]} == set("0123456789")
    assert sum(entry["probability"] for entry in found["classes"]) == pytest.approx(1, abs=1e-5)
    probabilities = [entry["probability"] for entry in found["classes"]]
    assert probabilities == sorted(probabilities, reverse=True)


def test_predict_table(nas, exported, digit):
    code, out, _ = nas("predict", exported, digit, digit, "--top", "2")
    assert code == 0
    assert len(re.findall(r"digit\.png +\d \(\d+\.\d %\) +\d \(\d+\.\d %\)", out)) == 2


def test_train_on_from_the_package(nas, exported, digit, tmp_path):
    code, out, err = nas(
        "train", "--package", exported, "--data", "digits", "--train-limit", "200", "--batch-size", "50",
        "--epochs", "1", "--out", tmp_path / "on",
    )  # fmt: skip
    assert code == 0, err
    assert "epoch 1/1" in out
    assert "retrained, test data: top-1 (%)" in out
    trained = load_package(tmp_path / "on" / "package")
    assert trained.architecture == load_package(exported).architecture
    assert "| retrained (trained as a fixed network) | test |" in (tmp_path / "on/package/README.md").read_text()
    assert nas("predict", tmp_path / "on" / "package", digit)[0] == 0


def test_an_interrupted_training_goes_on(exported, nas, tmp_path):
    arguments = [
        "train", "--architecture", str(exported / "architecture.json"), "--data", "digits", "--train-limit", "100",
        "--batch-size", "50", "--epochs", "3000", "--out", "run",
    ]  # fmt: skip
    training = start(arguments, tmp_path)
    training.wait_for("epoch 1/3000")
    code, _, err = training.interrupt()
    assert code == 130
    assert err.strip().splitlines()[-1] == "stopped; continue with: nas train --resume run"
    assert "Traceback" not in err
    assert not (tmp_path / "run" / "package").exists()
    code, _, err = nas(*arguments)
    assert code == 2
    assert "nas train --resume run" in err
    checkpoints = tmp_path / "run" / "checkpoints"
    before = {path.name for path in checkpoints.iterdir()}

    def interrupt() -> None:
        wait_for(lambda: {path.name for path in checkpoints.iterdir()} - before)
        os.kill(os.getpid(), signal.SIGINT)

    with ThreadPoolExecutor(1) as pool:
        pool.submit(interrupt)
        code, out, err = nas("train", "--resume", "run")
    assert (code, "stopped; continue with: nas train --resume run" in err) == (130, True)
    [first, *_] = re.findall(r"epoch (\d+)/3000", out + err)
    assert int(first) > 1


def test_from_scratch_is_deterministic(nas, exported, tmp_path):
    for name in ("a", "b"):
        code, _, err = nas(
            "train", "--package", exported, "--from-scratch", "--data", "digits", "--train-limit", "100",
            "--batch-size", "50", "--epochs", "1", "--seed", "3", "--device", "cpu", "--out", tmp_path / name,
        )  # fmt: skip
        assert code == 0, err
    first, second = ((tmp_path / name / "package/model.safetensors").read_bytes() for name in ("a", "b"))
    assert first == second


def test_a_finished_study_is_not_run_again(nas, tiny):
    code, _, err = nas("run", "--resume", "tiny", cwd=tiny.folder)
    assert code == 2
    assert err == "nas: study tiny is finished; see `nas pareto tiny`\n"


@pytest.mark.parametrize(("share", "eighths"), [(0.0, 0), (0.001, 1), (0.5, 128), (1.0, 256)])
def test_bars(share, eighths):
    text = bar(share)
    assert len(text) == 32
    assert sum(8 if c == "█" else " ▏▎▍▌▋▊▉".index(c) for c in text if c != "·") == eighths
