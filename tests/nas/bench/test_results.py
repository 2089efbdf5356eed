"""The file of results: whole lines, found again by their circumstances only."""

from __future__ import annotations

import json

import pytest

from nas.bench.published import choose
from nas.bench.results import Line, Results
from nas.bench.table import Passes, csv_rows, make_rows, row_texts, sentences
from nas.errors import InputError

HERE = {
    "device": "cpu", "device_name": "a processor", "runtime": "eager", "precision": "float32", "threads": 1,
    "rounds": 2, "batch": 4, "size": None, "versions": {"torch": "2"},
}  # fmt: skip
COUNTS = {"params": 4_292_072, "params_inference": 4_192_976, "macs": 249_234_304, "macs_papers": 252_000_000}


def line(network: str = "PartialNet-T0", what="latency", turn: int = 0, **figures) -> Line:
    times = {"batch": 1, "ms": [2.0, 4.0], "busy_ms": [1.0, 1.0]}
    return Line(network, what, turn, "2026-01-01T00:00:00Z", figures or times)


def test_lines_come_back(tmp_path):
    path = tmp_path / "r.jsonl"
    results = Results(path, HERE)
    results.add(line())
    results.add(line(turn=1))
    assert (results.has("PartialNet-T0", "latency", 1), results.has("PartialNet-T0", "throughput", 0)) == (True, False)
    assert Results(path, HERE).lines == results.lines == [line(), line(turn=1)]
    assert Results(path, {**HERE, "threads": 2}).lines == []


def test_what_a_crash_tore_is_taken_again(tmp_path):
    path = tmp_path / "r.jsonl"
    results = Results(path, HERE)
    results.add(line())
    results.add(line(turn=1))
    path.write_bytes(path.read_bytes()[:-20])
    again = Results(path, HERE)
    assert again.lines == [line()]
    again.add(line(turn=1))
    assert Results(path, HERE).lines == [line(), line(turn=1)]


def test_forgetting_leaves_other_circumstances_alone(tmp_path):
    path = tmp_path / "r.jsonl"
    other = Results(path, {**HERE, "threads": 2})
    other.add(line())
    results = Results(path, HERE)
    results.add(line())
    results.add(line("ResNet50"))
    results.forget(["PartialNet-T0"])
    assert results.lines == Results(path, HERE).lines == [line("ResNet50")]
    assert Results(path, {**HERE, "threads": 2}).lines == [line()]
    assert [found.name for found in tmp_path.iterdir()] == ["r.jsonl"]


def test_forgetting_leaves_a_link_in_its_place(tmp_path):
    path, link = tmp_path / "disk" / "r.jsonl", tmp_path / "r.jsonl"
    path.parent.mkdir()
    path.touch()
    link.symlink_to(path)
    results = Results(link, HERE)
    results.add(line())
    results.forget(["PartialNet-T0"])
    assert link.readlink() == path
    assert path.read_text() == ""


@pytest.mark.parametrize("text", ["hello\n", '{"a": 1}\n', "[]\n"])
def test_other_files_are_refused(tmp_path, text):
    path = tmp_path / "other"
    path.write_text(text)
    with pytest.raises(InputError, match="no result"):
        Results(path, HERE)
    assert path.read_text() == text
    with pytest.raises(InputError, match="does not exist"):
        Results(tmp_path / "none" / "r.jsonl", HERE)
    with pytest.raises(InputError, match="cannot be read"):
        Results(tmp_path, HERE)


@pytest.fixture
def results(tmp_path):
    results = Results(tmp_path / "r.jsonl", HERE)
    results.add(line(what="counts", **COUNTS))
    results.add(line(ms=[2.0, 2.0, 2.0], busy_ms=[1.0, 1.0, 1.5], batch=1))
    results.add(line(turn=1, ms=[1.0, 3.0, 4.0, 9.0], busy_ms=[0.5, 1.5, 1.5, 2.0], batch=1))
    results.add(line(what="throughput", ms=[10.0, 16.0], busy_ms=[9.0, 9.0], batch=4))
    return results


def test_rounds_are_put_together(results):
    [row] = make_rows(choose(["partialnet_t0"]), results)
    assert (row.model, row.size, row.counts) == ("partialnet_t0", 224, COUNTS)
    assert row.latency == Passes(7, 1, 2.0, pytest.approx(6.0), 1.0, 9.0, 1.5)
    assert row.throughput is not None
    assert row.throughput.images_per_second == pytest.approx(4000 / 13)
    assert row_texts(row) == (
        "PartialNet-T0", "224", "4.29", "4.3", "0.249", "0.252", "0.25", "2.00", "12.2", "307.7", "7,777", "11,744",
        "73.9",
    )  # fmt: skip


def test_the_processors_own_time_instead(results):
    [row] = make_rows(choose(["partialnet_t0"]), results, processor_time=True)
    assert row.latency == Passes(7, 1, 1.5, pytest.approx(1.7), 0.5, 2.0, 1.5)
    assert not any("other work" in said for said in sentences([row], HERE))


def test_what_was_not_measured_is_left_open(results):
    rows = make_rows(choose(["shufflenetv2 x2", "resnet50"]), results)
    assert [(row.model, row.size, row.latency) for row in rows] == [("", None, None), ("resnet50", 224, None)]
    assert row_texts(rows[0])[:8] == ("ShuffleNetV2 x2", "-", "-", "7.4", "-", "-", "0.59", "-")
    assert sentences(rows, HERE)[-1] == "not in timm, so published only: ShuffleNetV2 x2"


def test_csv_has_all_of_it(results):
    rows = make_rows(choose(["partialnet_t0", "shufflenetv2 x2"]), results)
    head, first, second = csv_rows(rows, HERE)
    by_name = dict(zip(map(str, head), first, strict=True))
    assert by_name["throughput_v100_fps"] == "7777"
    assert (by_name["params"], by_name["macs_papers"], by_name["latency_n"]) == (4_292_072, 252_000_000, 7)
    assert (by_name["latency_busy_ms"], by_name["throughput_busy_ms"]) == (1.5, 9.0)
    assert by_name["images_per_second"] == pytest.approx(4000 / 13)
    assert dict(zip(map(str, head), second, strict=True))["latency_median_ms"] == ""
    assert json.dumps(first)


def test_the_sentences_say_how_sure(results):
    said = sentences(make_rows(choose(["partialnet_t0"]), results), HERE)
    assert said[0].startswith("measured on a processor, 1 thread (torch 2); eager, float32, throughput at batch 4")
    assert said[1].startswith("latency: medians of n = 7 passes in 2 rounds; half the 95 % interval")
    assert "200.0 % at most" in said[1]
    assert said[3].startswith("other work held the processor: of a pass's time the middle network had it for 75 %")
    assert len(sentences(make_rows(choose(["partialnet_t0"]), results), {**HERE, "threads": 2})) == 3
