"""``nas report``: a page that stands alone, from studies in every state; and what it refuses."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from nas.candidate import Candidate
from nas.definition.study import parse_study
from nas.finalist import Finalist, Role
from nas.metrics import Evaluation, EvaluationKind
from nas.plots.save import find_browser
from nas.store import Store
from nas.study import Study
from nas.trial import TrialKind, TrialState
from tests.nas.commands.conftest import TINY
from tests.service.fixture_study import FAILED, FINISHED, REPORT, RUNNING, finished_study, running_study

PICTURES = ("fronts", "fronts-search", "ratios", "ratios-map", "levels", "agreement")


@pytest.fixture(scope="module")
def filled(tmp_path_factory) -> Path:
    """A folder with a finished study, a running one, one without trials, and one of other images."""
    folder = tmp_path_factory.mktemp("filled")
    with Store.open(f"sqlite:///{folder / 'nas.db'}") as store:
        retrain(store, finished_study(store))
        running_study(store)
        store.create_study(parse_study(yaml.safe_load(TINY)), reference_point={"top1": 0.0})
        other = {**yaml.safe_load(TINY), "name": "other", "data": {"name": "cifar10"}, "model": {"name": "micro"}}
        store.create_study(parse_study(other), reference_point={"top1": 0.0})
    return folder


def retrain(store: Store, study: Study) -> None:
    """Train networks of a study from scratch, as its final comparison does, with made-up scores."""
    trials = store.trials(study.id)
    found = [trial for trial in trials if trial.kind is TrialKind.SEARCH and trial.candidates][:4]
    uniform = next(trial.candidates[0] for trial in trials if trial.kind is TrialKind.BASELINE)
    plan: list[tuple[Finalist, Candidate]] = []
    for trial in found:
        known = trial.candidates[0]
        cost = known.score("macs") or 0.0
        plan.append((Finalist(Role.LEARNED, trial.number, 0, cost, widths(known)), known))
        plan.append((Finalist(Role.UNIFORM, trial.number, 0, cost, widths(uniform), ratio=0.5), uniform))
    asked = [(finalist, known, seed) for finalist, known in plan for seed in range(2)]
    specs = store.add_finalists(study.id, [replace(finalist, seed_index=seed) for finalist, _, seed in asked])
    for spec, (finalist, known, seed) in zip(specs, asked, strict=True):
        value = 0.875 + finalist.of / 100 + seed / 100 - (0.05 if finalist.role is Role.UNIFORM else 0)
        score = Evaluation(EvaluationKind.RETRAINED, "top1", value, data_split="test")
        store.start_trial(study.id, spec.number)
        network = Candidate(known.architecture, known.splits, (score,), known.measurements)
        store.end_trial(study.id, spec.number, TrialState.COMPLETE, candidates=[network])


def widths(known: Candidate) -> tuple[int, ...]:
    return tuple(split.active_channels for split in known.splits)


@pytest.fixture
def report(nas, filled, tmp_path):
    """Return a function that writes a report, and returns its HTML beside what the command said."""

    def call(*arguments: str, output: Path = tmp_path / "out") -> tuple[str, str, str]:
        code, out, err = nas("report", *arguments, "--output", output, "--format", "html", cwd=filled)
        assert code == 0, err
        return (output / "report.html").read_text(), out, err

    return call


def test_the_page_stands_alone_and_says_what_was_found(report, tmp_path):
    text, out, err = report(FINISHED)
    assert (out, err) == (f"{tmp_path / 'out' / 'report.html'}\n", "")
    assert not re.search(r"<(script|img|link|iframe)[^>]*\s(src|href)=", text)
    assert len(text) > 4_000_000  # plotly.js is inside
    for sentence in REPORT:
        assert sentence in text
    assert "Do learned ratios beat uniform ones &lt;b&gt;at equal cost&lt;/b&gt;?" in text
    assert [text.count(f'id="{name}"') for name in PICTURES] == [1] * len(PICTURES)
    assert "retrained, test data" in text
    assert "finetuned, validation data" in text
    assert "Final comparison" in text
    answer = '<p class="answer">Retrained from scratch with 2 seeds at equal multiply-adds'
    assert text.index("<h1>") < text.index(answer) < text.index("Do learned ratios beat") < text.index('id="fronts"')
    assert text.count('<td class="number">+5.00 ± 0.00</td>') == 4  # learned minus uniform
    assert "stages.2.blocks.1.mixer" in text
    assert "provisional" not in text


def test_the_levels_are_those_of_the_best_trial_unless_another_is_named(report):
    text, *_ = report(FINISHED)
    best = int(re.search(r"Levels of trial (\d+) over its training", text)[1])
    assert best < 12
    other = (best + 1) % FAILED
    assert f"Levels of trial {other} over its training" in report(FINISHED, "--trial", str(other))[0]
    failed = report(FINISHED, "--trial", str(FAILED))[0]
    assert f"Levels of trial {FAILED} over its training" in failed


def test_a_running_study_is_reported_as_far_as_it_has_got(report):
    text, *_ = report(RUNNING)
    assert re.search(r"This study is running: 2 of \d+ planned trials have ended\. What follows is provisional\.", text)
    assert "No network of this search has been trained from scratch yet" in text


def test_a_study_without_trials_says_how_to_get_them(report):
    text, *_ = report("tiny")
    assert "This study is queued: 0 of" in text
    for reason in ("No network has been scored", "No search trial has settled", "has been trained from scratch yet"):
        assert reason in text
    assert "Front and baselines" not in text


def test_several_studies_share_one_front(report):
    text, *_ = report(FINISHED, RUNNING, FINISHED)
    assert text.count('id="fronts"') == 1
    assert [text.count(f'id="ratios-{name}"') for name in (FINISHED, RUNNING)] == [1, 1]
    assert "<h1>Report on several studies</h1>" in text


def test_a_report_is_replaced(report, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "report.html").write_text("old")
    assert report("tiny")[0].startswith("<!DOCTYPE html>")


REFUSED = {
    "no study of that name": (["tinny"], "tinny"),
    "studies of different images": (["tiny", "other"], "other has cifar10 at 32 pixels"),
    "no trial of that number": ([FINISHED, "--trial", "99"], "has no trial 99; its trials are 0 to"),
    "no trial at all": (["tiny", "--trial", "0"], "has no trial 0; it has no trials yet"),
    "a trial of two studies": ([FINISHED, RUNNING, "--trial", "0"], "--trial 0"),
    "a format that is none": (["tiny", "--format", "html,pdf"], "'html,pdf'"),
    "no format": (["tiny", "--format", ""], "html and png"),
    "PNG without a browser": (["tiny", "--format", "png"], "BROWSER_PATH"),
    "a file in the place of the folder": (["tiny", "--output", "nas.db", "--format", "html"], "nas.db"),
    "a folder below a file": (["tiny", "--output", "nas.db/out", "--format", "html"], "nas.db/out"),
    "a folder that cannot be made": (["tiny", "--output", "/proc/out", "--format", "html"], "/proc/out"),
    "a folder that cannot be written to": (["tiny", "--output", "/proc", "--format", "html"], "--output /proc: "),
}


@pytest.mark.parametrize("fault", REFUSED)
def test_what_is_refused(nas, filled, monkeypatch, fault):
    monkeypatch.setenv("BROWSER_PATH", str(filled / "nothing"))
    arguments, expected = REFUSED[fault]
    before = sorted(filled.iterdir())
    code, out, err = nas("report", *arguments, cwd=filled)
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 1, err
    assert err.startswith("nas: ")
    assert expected in err
    assert sorted(filled.iterdir()) == before


def test_without_a_browser_there_is_the_page_alone(nas, filled, tmp_path, monkeypatch):
    monkeypatch.setenv("BROWSER_PATH", str(tmp_path / "nothing"))
    code, out, err = nas("report", "tiny", "--output", tmp_path / "out", cwd=filled)
    assert (code, out) == (0, f"{tmp_path / 'out' / 'report.html'}\n")
    assert "no PNG files" in err
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["report.html"]


@pytest.mark.browser
@pytest.mark.skipif(find_browser() is None, reason="no Chromium")
def test_each_picture_is_a_png(nas, filled, tmp_path):
    code, out, err = nas("report", FINISHED, "--output", tmp_path / "out", "--format", "png", cwd=filled)
    assert (code, err) == (0, "")
    paths = [tmp_path / "out" / f"{name}.png" for name in PICTURES]
    assert out.splitlines() == [str(path) for path in paths]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in paths)
    assert sorted((tmp_path / "out").iterdir()) == sorted(paths)
