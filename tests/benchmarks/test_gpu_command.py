"""``python -m tests.benchmarks gpu``: found in order on the day that a GPU is there."""

from __future__ import annotations

import json
import time
from pathlib import Path
from queue import SimpleQueue
from threading import Barrier

import pytest
import torch

from tests.benchmarks.gpu import report as reports
from tests.benchmarks.gpu.command import SECTIONS, main
from tests.benchmarks.gpu.report import Report, Row
from tests.benchmarks.gpu.shares import train

IN_ONE_PROCESS = tuple(section for section in SECTIONS if section != "shares")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sections", "options"),
    [
        (IN_ONE_PROCESS, [word for section in IN_ONE_PROCESS for word in ("--only", section)]),
        pytest.param(SECTIONS, [], marks=pytest.mark.long),
        pytest.param(SECTIONS, ["--compile"], marks=pytest.mark.long),
    ],
    ids=["in_one_process", "all", "compiled"],
)
@pytest.mark.timeout(1200)
def test_it_runs_in_a_tiny_size_without_a_gpu(
    sections: tuple[str, ...], options: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "rows.json"
    assert main(["--device", "cpu", "--json", str(path), "--minutes", "15", *options]) == 0
    content = json.loads(path.read_text())
    rows = content["rows"]
    assert content["circumstances"]["torch"] == torch.__version__.partition("+")[0]
    assert {row["section"] for row in rows} >= set(sections)
    assert not [row for row in rows if row["note"].startswith("failed")]
    assert {row["case"].split(", ")[2] for row in rows if row["section"] == "searches"} == {
        "gates", "fractional", "supernet"
    }  # fmt: skip
    assert all(row["value"] > 0 for row in rows if row["value"] is not None)
    assert not any(row["verdict"] for row in rows)  # goals are those of a GPU
    printed = capsys.readouterr().out
    assert all(f"== {section}" in printed for section in sections)


def test_one_of_several_trainings_tells_its_speed_or_its_failure() -> None:
    for name, kind in (("partialnet_micro", float), ("no_such_network", str)):
        out: SimpleQueue[float | str] = SimpleQueue()
        train(name, 16, 4, 0.01, "cpu", 1.0, Barrier(1), out)  # type: ignore[arg-type]
        found = out.get_nowait()
        assert isinstance(found, kind), found


def empty(seconds: float = 60) -> Report:
    return Report(torch.device("cpu"), time.monotonic() + seconds)


def test_what_fails_or_is_missing_costs_one_case() -> None:
    report = empty()
    with report.case("steps", "broken"):
        raise ValueError("no such thing\nand more")
    with report.case("steps", "missing"):
        import package_that_nobody_has  # noqa: F401 # pyright: ignore
    with report.case("steps", "ours"):
        import partialnet.no_such_module  # noqa: F401
    with report.case("steps", "fine"):
        report.add(Row("steps", "fine", 1.0, "x"))
    assert [row.note for row in report.rows] == [
        "failed: ValueError: no such thing",
        "skipped: package_that_nobody_has is not installed",
        "failed: ModuleNotFoundError: No module named 'partialnet.no_such_module'",
        "",
    ]
    assert report.failed


def test_the_time_ends_a_case_and_what_comes_after() -> None:
    report = empty(0.2)

    def endless(found: Report) -> None:
        with found.case("steps", "endless"):
            while True:
                time.sleep(0.01)

    with report.punctual():
        report.section("steps", endless)
        report.section("throughput", endless)
    assert [(row.case, row.note) for row in report.rows] == [("endless", reports.TOO_LATE), ("all", reports.TOO_LATE)]
    assert not report.failed


@pytest.mark.parametrize(
    ("value", "goal", "verdict"),
    [
        (1.04, "<= 1.05", "met"),
        (1.06, "<= 1.05", "missed"),
        (1.0, ">= 1.0", "met"),
        (None, ">= 1.0", ""),
        (1.0, "", ""),
    ],
)
def test_verdicts(value: float | None, goal: str, verdict: str) -> None:
    assert Row("steps", "a case", value, "x", goal).verdict == verdict
