"""What a new part of each kind takes: one file of its own, here in the test, and one entry in a mapping.

Every extension is added from outside, used by the real code from one end to the other, and taken away again.
"""

from __future__ import annotations

import gc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import optuna
import pytest
import torch
from torch import nn

from nas.definition.methods import METHODS, SearchMethod
from nas.definition.searchers import SEARCHERS, SweepSearcher
from nas.definition.study import parse_study
from nas.errors import DefinitionError
from nas.findings.pareto import pareto_points
from nas.findings.scores import default_kind, told_kind
from nas.jobs import Job, JobKind, JobState, Result
from nas.metrics import METRICS, Direction, EvaluationKind, Measurement, Metric, listed_metrics
from nas.plots.methods import methods_info
from nas.probes.counted import PROBES
from nas.settings import Settings
from nas.store import Store
from nas.sweep.searchers import AskTell
from nas.training.feasibility import reference_point
from nas.training.gates import search_and_finetune
from nas.training.run_trial import run_trial
from nas.training.trainer import Trained, TrialRun
from nas.trial import TrialKind, TrialState
from nas.worker.kinds import KINDS, KindOfJob
from nas.worker.options import WorkerOptions
from nas.worker.runner import run_job
from partialnet.data.catalog import DATASETS, DatasetFacts
from partialnet.data.readers.base import Pixels, RawDataset, Request
from partialnet.layers.partial_conv import PartialConv2d
from partialnet.search.learn_split import learn_split
from partialnet.search.method import SearchMethod as LevelMethod
from partialnet.search.options import MethodOptions
from partialnet.search.phases import PhaseSchedule
from partialnet.search.projection import Projection
from partialnet.search.result import SplitResult
from partialnet.search.selection import sample_within
from partialnet.search.step_batch import StepBatch, StepLoss
from partialnet.search.task import SearchTask
from tests.nas import tiny


def add(monkeypatch: pytest.MonkeyPatch, mapping: Mapping[Any, Any], key: object, value: object) -> None:
    """Add an entry to a read-only mapping, as a line in its file would, until the test ends."""
    [entries] = gc.get_referents(mapping)
    monkeypatch.setitem(entries, key, value)


# A search method: a split drawn at random within the budget, on which the network is trained.


class LuckyMethod(LevelMethod):
    name: ClassVar[str] = "lucky"

    def check(self, schedule: PhaseSchedule) -> None:
        """Take any schedule."""

    @property
    def drawn(self) -> tuple[int, ...]:
        return sample_within(self.table, self.target, torch.Generator().manual_seed(7), 1)[0]

    def backward(self, phase: str, step: int, batch: StepBatch) -> StepLoss:
        return self.plain(batch, self.drawn)

    def project(self) -> Projection:
        self.settle(self.drawn)
        cost = self.table.total(self.drawn)
        return Projection(self.drawn, cost, abs(cost / self.target - 1) <= 0.02)


@dataclass(frozen=True)
class LuckyOptions(MethodOptions):
    name: ClassVar[str] = "lucky"
    luck: float = 0.5

    def plan(self) -> dict[str, Any]:
        return {"luck": self.luck}

    def search(self, task: SearchTask) -> SplitResult:
        learner = LuckyMethod(task.layers, task.table, task.target, seed=task.arguments.seed)
        return task.result(*task.run(learner))


def train_lucky(run: TrialRun) -> list[Trained]:
    return search_and_finetune(run, partial(learn_split, method=LuckyOptions(float(run.parameters["luck"]))))


def test_a_search_method(monkeypatch: pytest.MonkeyPatch) -> None:
    lucky = SearchMethod(f"{__name__}:train_lucky", space={"target": 4.0, "luck": 0.25}, unused=("gate_learning_rate",))
    add(monkeypatch, METHODS, "lucky", lucky)
    definition = tiny.tiny(method="lucky", training={"epochs": 2, "finetune_epochs": 1, "batch_size": 120})
    assert parse_study(definition.to_dict()) == definition
    with pytest.raises(DefinitionError, match="method lucky ignores gate_learning_rate"):
        tiny.tiny(method="lucky", training={"gate_learning_rate": 0.5})
    with pytest.raises(DefinitionError, match="method lucky settles on one network"):
        tiny.tiny(method="lucky", front={"points": 2})
    outcome = run_trial(definition, tiny.search(luck=0.75), (), report=lambda _: None, device="cpu")
    [network] = outcome.networks
    assert [record.phase for record in outcome.history][-1] == "finetune"
    assert network.candidate.score("top1", told_kind(definition)) is not None


def test_a_method_that_is_unknown_is_refused_by_name() -> None:
    with pytest.raises(DefinitionError, match="method: must be 'gates', 'fractional' or 'supernet'"):
        tiny.tiny(method="lucky")


# A probe, and a metric that it measures: how deep a network is.

DEPTH = Metric("depth (partial convolutions)", "depth", Direction.MINIMIZE, listed=True, brief=True)


def probe_depth(network: nn.Module, _input_shape: tuple[int, int, int]) -> list[Measurement]:
    return [Measurement("depth", sum(isinstance(module, PartialConv2d) for module in network.modules()))]


def test_a_probe_and_a_metric(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    add(monkeypatch, METRICS, "depth", DEPTH)
    add(monkeypatch, PROBES, "depth", probe_depth)
    training = {"epochs": 1, "finetune_epochs": 0, "batch_size": 120}
    definition = tiny.tiny(objectives=["top1", "depth"], training=training)
    [network] = run_trial(definition, tiny.baseline(), (), report=lambda _: None, device="cpu").networks
    assert network.candidate.score("depth") == 4
    assert reference_point(definition)["depth"] == 4
    assert "depth" in listed_metrics()
    assert "depth" in listed_metrics(brief=True)
    with Store.open(f"sqlite:///{tmp_path}/nas.db") as store:
        study = store.create_study(definition, reference_point={"top1": 0.0, "depth": 9})
        store.add_trials(study.id, [(TrialKind.BASELINE, {"ratio": 0.25})])
        store.start_trial(study.id, 0)
        store.end_trial(study.id, 0, TrialState.COMPLETE, candidates=[network.candidate])
        trials = store.trials(study.id)
    [point] = pareto_points(trials, definition.objectives)
    assert (point.values["depth"], point.on_front) == (4, True)
    [mark] = methods_info([(study, trials)], "depth").marks
    assert (mark.series, mark.x) == ("uniform", 4)
    assert default_kind(trials) is EvaluationKind.FINETUNED


# A kind of job: the sentences of a study's report, as a result.


def run_report(store: Store, job: Job, _settings: Settings) -> Result:
    assert job.study_id is not None
    return JobState.FINISHED, {"report": list(store.study(job.study_id).report)}


def test_a_kind_of_job(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    add(monkeypatch, KINDS, JobKind.REPORT, KindOfJob(run_report, places=2))
    assert WorkerOptions().slots[JobKind.REPORT,] == 2
    with Store.open(f"sqlite:///{tmp_path}/nas.db") as store:
        study = store.create_study(tiny.tiny(), reference_point={})
        job = store.enqueue_job(JobKind.REPORT, {}, study_id=study.id)
        leased = store.lease_job("me", kinds=[JobKind.REPORT], seconds=60)
        assert leased is not None
        assert run_job(store, Settings(), job.id, leased.epoch) == 0
        done = store.job(job.id)
    assert (done.state, done.result, done.error) == (JobState.FINISHED, {"report": []}, None)


# A searcher: quasi-random points.


def sobol_sampler(seed: int, startup: int) -> optuna.samplers.BaseSampler:
    assert startup == 0
    return optuna.samplers.QMCSampler(seed=seed, warn_independent_sampling=False)


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_a_searcher(monkeypatch: pytest.MonkeyPatch) -> None:
    add(monkeypatch, SEARCHERS, "sobol", SweepSearcher(f"{__name__}:sobol_sampler", learns=False))
    asker = AskTell(tiny.tiny(sweep={"trials": 4, "searcher": "sobol"}))
    proposals = []
    for number in range(3):
        parameters, registered = asker.ask()
        registered(number)
        asker.tell(number, [0.5, 100.0])
        proposals.append(parameters)
    assert all(2 <= parameters["target"] <= 8 for parameters in proposals)
    assert len({parameters["target"] for parameters in proposals}) == 3
    with pytest.raises(DefinitionError, match="searcher: must be 'tpe', 'nsga2', 'gp', 'random', 'grid' or 'sobol'"):
        tiny.tiny(sweep={"searcher": "annealing"})


# A data set: squares of four shades.


def read_shades(_request: Request) -> RawDataset:
    targets = torch.arange(80) % 4
    images = (targets * 80)[:, None, None, None].expand(-1, 1, 8, 8).to(torch.uint8).contiguous()
    return RawDataset(tuple("0123"), Pixels(images, targets), None, lambda: Pixels(images[:8], targets[:8]))


def test_a_data_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    facts = DatasetFacts("squares of four shades", 1, 8, 4, (0.47,), (0.35,), False, f"{__name__}:read_shades")
    add(monkeypatch, DATASETS, "shades", facts)
    training = {"epochs": 1, "finetune_epochs": 0, "batch_size": 24}
    definition = tiny.tiny(data={"name": "shades", "augment": "none"}, training=training)
    outcome = run_trial(definition, tiny.baseline(), [tmp_path], report=lambda _: None, device="cpu")
    assert outcome.class_names == tuple("0123")
    assert outcome.networks[0].candidate.score("top1") is not None


def test_an_extension_is_gone_when_its_test_ends() -> None:
    known: Sequence[Mapping[Any, Any]] = (METHODS, METRICS, PROBES, KINDS, SEARCHERS, DATASETS)
    assert not {"lucky", "depth", JobKind.REPORT, "sobol", "shades"} & {key for mapping in known for key in mapping}
