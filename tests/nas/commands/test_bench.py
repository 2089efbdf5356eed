"""``nas bench``: a real run on small images, interrupted and continued; and what it refuses."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import threading
from pathlib import Path

import pytest

from nas.bench.published import TABLE
from tests.commands import Said, invoke
from tests.nas.commands.conftest import start
from tests.waiting import wait_for

QUICK = ("--size", "32", "--seconds", "0.02", "--rounds", "3", "--batch", "2", "--device", "cpu", "--runtime", "torch")
LONGER = (*QUICK, "--seconds", "0.2")
"""Long enough to be interrupted in the middle: two seconds are left when it is."""
TWO = ("--models", "PartialNet-T0", "--models", "mobilenetv2_100")


def lines(folder: Path) -> list[dict[str, object]]:
    path = folder / "nas-bench.jsonl"
    text = path.read_text() if path.exists() else ""
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory):
    """A folder in which a run was interrupted in its midst and then done again; what both said, and was kept."""
    folder = tmp_path_factory.mktemp("bench")
    ended = threading.Event()

    def interrupt() -> None:
        wait_for(lambda: ended.is_set() or len(lines(folder)) >= 4)
        if not ended.is_set():  # else the signal would end the tests
            os.kill(os.getpid(), signal.SIGINT)

    reader = threading.Thread(target=interrupt)
    reader.start()
    try:
        first = invoke("bench", *TWO, *LONGER, cwd=folder)
    finally:
        ended.set()
        reader.join()
    kept = lines(folder)
    return folder, first, kept, invoke("bench", *TWO, *LONGER, "--plot", "b.html", cwd=folder)


def assert_stopped(said: Said, kept: list[dict[str, object]]) -> None:
    code, out, err = said
    assert (code, out) == (130, ""), err
    assert "stopped; nas-bench.jsonl keeps the figures, and the same command continues" in err
    assert 4 <= len(kept) < 14


def test_an_interruption_keeps_what_was_measured(interrupted):
    _, said, kept, _ = interrupted
    assert_stopped(said, kept)


@pytest.mark.long
def test_an_interruption_of_a_process_keeps_what_was_measured(tmp_path):
    started = start(["bench", *TWO, *LONGER], tmp_path)
    wait_for(lambda: len(lines(tmp_path)) >= 4 or started.process.poll() is not None)
    assert started.process.poll() is None, started.process.communicate()
    assert_stopped(started.interrupt(), lines(tmp_path))


def test_the_same_command_goes_on(interrupted):
    folder, _, kept, (code, out, err) = interrupted
    assert code == 0, err
    found = lines(folder)
    assert found[: len(kept)] == kept
    places = [(line["network"], line["what"], line["round"]) for line in found]
    wanted = [("counts", 0), *((what, turn) for what in ("latency", "throughput") for turn in range(3))]
    assert sorted(places) == sorted((name, *item) for name in ("PartialNet-T0", "MobileNetV2") for item in wanted)
    assert "round 3/3  PartialNet-T0" in err
    assert "round 1/3  MobileNetV2" not in err
    [ours] = [line.split() for line in out.splitlines() if line.startswith("PartialNet-T0")]
    assert ours[1:4] == ["32", "4.29", "4.3"]
    assert (folder / "b.html").stat().st_size > 100_000


def test_csv_holds_the_published_table(interrupted, nas):
    folder = interrupted[0]
    code, out, err = nas("bench", *TWO, *LONGER, "--processor-time", cwd=folder)
    assert (code, "times are the processor's own" in out) == (0, True), err
    code, out, err = nas("bench", *TWO, *LONGER, "--csv", cwd=folder)
    assert (code, err) == (0, "")
    found = {row["network"]: row for row in csv.DictReader(io.StringIO(out))}
    published = {row["network"]: row for row in csv.DictReader(TABLE.read_text().splitlines())}
    assert set(found) == {"PartialNet-T0", "MobileNetV2"}
    for name, row in found.items():
        assert row["type"] == published[name]["type"]
        numbers = [key for key in published[name] if key not in ("network", "type")]
        assert [float(row[key]) for key in numbers] == [float(published[name][key]) for key in numbers]
        assert int(row["latency_n"]) >= 6
        assert float(row["latency_low_ms"]) <= float(row["latency_median_ms"]) <= float(row["latency_high_ms"])
    assert found["PartialNet-T0"]["params"] == "4292072"


def test_fresh_measures_again(nas):
    one = ("--models", "PartialNet-T0", *QUICK, "--rounds", "1")
    assert nas("bench", *one)[0] == 0
    before = lines(Path.cwd())
    code, _, err = nas("bench", *one, "--fresh")
    after = lines(Path.cwd())
    assert (code, err.count("round 1/1")) == (0, 1)
    assert len(before) == len(after) == 3
    assert [line["figures"] for line in before[1:]] != [line["figures"] for line in after[1:]]


def test_a_network_that_fails_is_told(nas):
    code, out, err = nas("bench", "--models", "partialnet_t0", "--models", "Shuffle*", *QUICK, "--size", "31")
    assert code == 1
    assert "round 1/3  PartialNet-T0         failed: an image of 31x31 pixels leaves no map in stages.3" in err
    assert "nas: 1 of 1 networks could not be measured: PartialNet-T0" in err
    assert "PartialNet-T0" in out


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--models", "vgg*"], "--models vgg*: no network of the papers' table matches"),
        (["--plot", "b.gif"], "a figure is written as one of"),
        (["--results", "none/r.jsonl"], "none/r.jsonl: the folder"),
        (["--results", "."], "cannot be read as results"),
        (["--runtime", "onnx", "--device", "tpu"], "--device"),
        (["--processor-time", "--threads", "2", "--device", "cpu"], "--processor-time works only with"),
    ],
)
def test_what_is_refused(nas, tmp_path, arguments, expected):
    code, out, err = nas("bench", *arguments)
    assert (code, out) == (2, "")
    assert expected in err
    assert list(tmp_path.iterdir()) == []
