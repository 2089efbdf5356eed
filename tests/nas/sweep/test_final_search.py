"""The end of a study on a real Ray: what the search chose is retrained, compared, and goes on after a stop."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from nas.candidate import Candidate
from nas.definition.study import StudyDefinition
from nas.errors import ConflictError
from nas.finalist import Role
from nas.findings.comparison import comparison_of
from nas.findings.pareto import pareto_points
from nas.metrics import Evaluation, EvaluationKind
from nas.store import Store
from nas.study import Study, StudyState
from nas.sweep.progress import FinalStarted, Foreseen, SearchStarted, SweepEvent, TrialEnded, TrialStarted, Warned
from nas.sweep.search import run_search
from nas.training.build import build_split
from nas.training.scoring import candidate_of
from nas.trial import Trial, TrialKind, TrialState
from partialnet.architecture import Architecture
from tests.nas.strategies import make_candidate
from tests.nas.sweep.test_search import MODEL, Bench, tiny

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(600)]

SHORT = {"epochs": 1, "finetune_epochs": 0, "batch_size": 64}
LEARNED = (4, 16, 8, 32)
DEEPER = {**MODEL, "patch_size": 4, "merge_strides": [1, 2, 1], "depths": [1, 2, 2, 1]}
"""A network of many shapes: one of the first that are counted has the learned network's cost."""


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with Store.open(f"sqlite:///{tmp_path}/nas.db") as store:
        yield Bench(tmp_path, store)


def test_final_candidates_are_retrained_beside_others_of_equal_cost(bench: Bench, ray_here: None) -> None:
    final = {"candidates": 1, "seeds": 2, "against": ["uniform", "scaled"], "epochs": 2}
    sweep = {"trials": 1, "concurrent": 1}
    short = {"training": SHORT, "baselines": [], "latency": None}
    definition = tiny(model=DEEPER, space={"target": 3.0, "penalty": 0.9}, sweep=sweep, final=final, **short)
    study = bench.search(bench.create(definition))
    trials = bench.store.trials(study.id, history=True)
    searched, *finalists = trials

    assert study.state is StudyState.FINISHED
    assert {trial.kind for trial in finalists} == {TrialKind.RETRAIN}
    assert {trial.state for trial in finalists} == {TrialState.COMPLETE}
    assert [trial.finalist.role for trial in finalists] == ["learned", "uniform", "scaled"] * 2
    assert [trial.finalist.seed_index for trial in finalists] == [0] * 3 + [1] * 3
    first, second = ({trial.seed for trial in finalists[start : start + 3]} for start in (0, 3))
    assert (len(first), len(second), first & second) == (1, 1, set())
    assert all([record.epoch for record in trial.history] == [1, 2] for trial in finalists)
    [learned] = searched.candidates
    assert {trial.candidates[0].architecture.id for trial in finalists[::3]} == {learned.architecture.id}
    for trial in finalists:
        [candidate] = trial.candidates
        assert candidate.within_budget
        assert candidate.score("macs") == pytest.approx(learned.score("macs"), rel=0.02)
        assert candidate.weights.uri.startswith(f"studies/{study.id}/trials/{trial.number}/weights")
        assert candidate.score("top1", EvaluationKind.RETRAINED, "test") is not None
    check_comparison(study, trials, learned)
    check_pilot(bench, study)
    check_progress(bench, definition.planned)
    with pytest.raises(ConflictError, match="all its 7 trials have ended"):
        bench.search(study)


def check_comparison(study: Study, trials: list[Trial], learned: Candidate) -> None:
    """The answer stands in the report, with the learned network, and in a front of its own kind."""
    assert study.report[0].startswith("Retrained from scratch with 2 seeds at equal multiply-adds (within ")
    assert any("(1 search, 0 baselines, 6 retrainings)" in sentence for sentence in study.report)
    comparison = comparison_of(study, trials)
    assert [row.role for row in comparison.rows] == [Role.LEARNED, Role.UNIFORM, Role.SCALED]
    mine = comparison.rows[0]
    assert learned.score("top1", EvaluationKind.RETRAINED, "test") == pytest.approx(mine.mean)
    stds = {e.std for e in learned.evaluations if e.kind is EvaluationKind.RETRAINED and e.data_split == "test"}
    assert mine.std in stds
    points = pareto_points(trials, ("top1", "macs"), EvaluationKind.RETRAINED)
    assert [(point.number, point.kind) for point in points] == [
        (mine.of, TrialKind.SEARCH),
        (2, TrialKind.BASELINE),
        (3, TrialKind.BASELINE),
    ]


def check_pilot(bench: Bench, study: Study) -> None:
    """The uniform network's trainings come first, and say which difference the others can show."""
    [foreseen] = bench.of(Foreseen)
    place = bench.events.index(foreseen)
    started = [event.spec.finalist.role for event in bench.events[:place]
               if isinstance(event, TrialStarted) and event.spec.finalist is not None]  # fmt: skip
    assert started == [Role.UNIFORM] * 2
    assert foreseen.message.startswith("With 2 seeds, a difference of ")
    assert foreseen.message in study.report
    assert study.comparison_plan.trainings == 2


def check_progress(bench: Bench, planned: int) -> None:
    assert bench.of(SearchStarted)[0].total == planned == 7
    [started] = bench.of(FinalStarted)
    beside = "1 learned split and, of equal cost, 1 uniform and 1 scaled"
    assert started.message == f"final comparison: {beside}, trained from scratch with 2 seeds"
    assert (bench.events[-1].ended, bench.events[-1].total) == (7, 7)


def test_a_comparison_that_was_stopped_goes_on(bench: Bench, ray_here: None) -> None:
    final, sweep = {"candidates": 1, "seeds": 2, "against": ["uniform"]}, {"trials": 1, "concurrent": 1}
    definition = tiny(training=SHORT, sweep=sweep, baselines=[], final=final, latency=None)
    network = build_split(definition, 10, LEARNED).eval()
    scores = (Evaluation(EvaluationKind.INHERITED, "top1", 0.5),)
    study = searched(bench, definition, candidate_of(network, definition.data.input_shape, scores))

    def stop_after_the_first_finalist(event: SweepEvent) -> None:
        if isinstance(event, TrialEnded) and event.spec.kind is TrialKind.RETRAIN:
            signal.raise_signal(signal.SIGTERM)

    stopped = run_search(bench.store, study.id, bench.settings, progress=stop_after_the_first_finalist)
    before = bench.store.trials(study.id)
    states = Counter(trial.state for trial in before if trial.kind is TrialKind.RETRAIN)
    assert (stopped.state, stopped.report) == (StudyState.PAUSED, ())
    assert states[TrialState.COMPLETE] >= 1
    assert states[TrialState.QUEUED] >= 1
    assert before[0].candidates[0].score("top1", EvaluationKind.RETRAINED) is None

    finished = bench.search(study)
    after = bench.store.trials(study.id)
    assert finished.state is StudyState.FINISHED
    assert finished.report[0].startswith("Retrained from scratch with 2 seeds")
    assert [trial.number for trial in after] == [trial.number for trial in before]
    assert {trial.state for trial in after} == {TrialState.COMPLETE}
    started = [event.number for event in bench.of(TrialStarted)]
    assert sorted(started) == [trial.number for trial in before if trial.state is TrialState.QUEUED]
    ended = [trial for trial in before if trial.kind is TrialKind.RETRAIN and trial.state is TrialState.COMPLETE]
    assert ended == [after[trial.number] for trial in ended]  # not run again
    assert after[0].candidates[0].score("top1", EvaluationKind.RETRAINED) is not None


def searched(bench: Bench, definition: StudyDefinition, candidate: Candidate) -> Study:
    """Return a study whose search has ended with one network, stopped right before its final comparison."""
    study = bench.create(definition)
    bench.store.add_trials(study.id, [(TrialKind.SEARCH, {"target": 4.0, "complexity_exponent": 1.0, "penalty": 1.0})])
    bench.store.start_trial(study.id, 0)
    bench.store.end_trial(study.id, 0, TrialState.COMPLETE, candidates=[candidate])
    return study


def test_a_comparison_that_cannot_be_prepared_costs_nothing_else(bench: Bench) -> None:
    definition = tiny(sweep={"trials": 1}, baselines=[], latency=None, final={"candidates": 1})
    elsewhere = Architecture("partialnet_micro", {"num_classes": 10}, {"elsewhere": 4})
    study = searched(bench, definition, make_candidate(0.9, 100.0, architecture=elsewhere))
    finished = bench.search(study)
    assert finished.state is StudyState.FINISHED
    why = "The final comparison could not be prepared: InputError: the network has active channels of elsewhere"
    assert any(sentence.startswith(why) for sentence in finished.report)
    assert bench.of(Warned)[0].message.startswith(why)
    assert [trial.kind for trial in bench.store.trials(study.id)] == [TrialKind.SEARCH]
    assert (bench.events[-1].ended, bench.events[-1].total) == (1, 1)


def test_a_search_that_found_nothing_has_no_comparison(bench: Bench) -> None:
    study = bench.create(tiny(sweep={"trials": 1}, baselines=[], latency=None, final={"candidates": 1}))
    bench.store.add_trials(study.id, [(TrialKind.SEARCH, {"target": 4.0}), (TrialKind.BASELINE, {"ratio": 0.25})])
    for number, state in ((0, TrialState.FAILED), (1, TrialState.COMPLETE)):
        bench.store.start_trial(study.id, number)
        candidates = [make_candidate(0.9, 100.0)] if state is TrialState.COMPLETE else []
        bench.store.end_trial(study.id, number, state, candidates=candidates, reason="diverged")
    finished = bench.search(study)
    assert finished.state is StudyState.FINISHED
    assert finished.report[0].startswith("No learned split was found")
    assert {trial.kind for trial in bench.store.trials(study.id)} == {TrialKind.SEARCH, TrialKind.BASELINE}
