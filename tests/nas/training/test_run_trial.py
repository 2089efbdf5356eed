from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from nas.artifacts import Artifacts
from nas.definition.study import StudyDefinition
from nas.errors import InputError
from nas.metrics import EvaluationKind
from nas.training.build import build_network
from nas.training.checkpoint import TrialCheckpoint
from nas.training.data import open_data
from nas.training.run_trial import ScoredNetwork, TrialOutcome, run_trial
from nas.trial import EpochRecord, TrialKind, TrialSpec
from partialnet.errors import DataError, TrainingDiverged
from partialnet.models.partialnet import create
from partialnet.search.budget import Budget, budget_costs
from partialnet.train import evaluate
from tests.nas import tiny
from tests.partialnet.data import made
from tests.samples import sampled


class Interrupted(Exception):
    """Stands for a process that dies: what it had reported by then is all that is left."""


def run(
    spec: TrialSpec, definition: StudyDefinition | None = None, roots: tuple[Path, ...] = ()
) -> tuple[TrialOutcome, list[EpochRecord]]:
    told: list[EpochRecord] = []
    outcome = run_trial(definition or tiny.tiny(), spec, roots, report=told.append, device="cpu")
    assert tuple(told) == outcome.history
    return outcome, told


@pytest.fixture(scope="module")
def searched() -> TrialOutcome:
    return run(tiny.search())[0]


def learning_study() -> StudyDefinition:
    training = {"epochs": 5, "finetune_epochs": 2, "batch_size": 40, "learning_rate": 0.02}
    return tiny.tiny(data=tiny.LEARNS, training=training)


@pytest.fixture(scope="module")
def uniform() -> TrialOutcome:
    return run(tiny.baseline(), learning_study())[0]


def timeless(history: tuple[EpochRecord, ...]) -> list[Any]:
    """Leave out what the clock says."""
    return [
        (e.epoch, e.phase, {k: v for k, v in e.metrics.items() if k != "images_per_second"}, dict(e.active_channels))
        for e in history
    ]


def check_weights_belong_to_scores(
    found: ScoredNetwork, definition: StudyDefinition, kind: EvaluationKind = EvaluationKind.FINETUNED
) -> None:
    network = create(found.candidate.architecture)
    network.load_state_dict(found.state_dict, strict=True)
    splits = open_data(definition, [])
    result = evaluate(network, splits.validation.batches(500))
    for metric in ("top1", "top5", "loss"):
        assert found.candidate.score(metric, kind) == pytest.approx(getattr(result, metric), abs=1e-6)


def test_a_search_trial_reports_every_epoch(searched: TrialOutcome) -> None:
    history = searched.history
    assert [entry.epoch for entry in history] == list(range(1, 8))
    phases = [entry.phase for entry in history]
    assert phases[-3:] == ["frozen", "finetune", "finetune"]
    assert "gates" in phases
    for entry in history:
        assert {
            "loss", "task_loss", "order_loss", "top1", "cost", "target", "learning_rate", "images_per_second"
        } <= set(entry.metrics)  # fmt: skip
        assert entry.metrics["images_per_second"] > 0
        assert len(entry.active_channels) == 4
    assert history[0].metrics["loss"] > history[-1].metrics["loss"]


def test_the_reported_cost_is_that_of_the_reported_channels(searched: TrialOutcome) -> None:
    splits = {split.layer: split for split in searched.networks[0].candidate.splits}
    for entry in searched.history:
        cost = sum(
            splits[name].macs * n**2 // splits[name].active_channels ** 2 for name, n in entry.active_channels.items()
        )
        assert entry.metrics["cost"] == cost


def test_a_search_trial_settles_on_a_network_within_its_budget(searched: TrialOutcome) -> None:
    candidate = searched.networks[0].candidate
    target = searched.history[-1].metrics["target"]
    cost = candidate.score("conv_macs")
    assert cost == sum(split.macs for split in candidate.splits)
    assert candidate.within_budget == (abs(cost - target) <= 0.02 * target)
    assert candidate.within_budget or candidate.note
    assert dict(candidate.architecture.active_channels) == dict(searched.history[-1].active_channels)
    assert [split.index for split in candidate.splits] == [0, 1, 2, 3]


def test_both_kinds_of_evaluation(searched: TrialOutcome) -> None:
    kinds = [(e.kind, e.metric, e.epochs, e.data_split, e.seed) for e in searched.networks[0].candidate.evaluations]
    assert kinds == [
        (kind, metric, epochs, "validation", 11)
        for kind, epochs in ((EvaluationKind.INHERITED, 5), (EvaluationKind.FINETUNED, 7))
        for metric in ("top1", "top5", "loss")
    ]
    assert searched.networks[0].candidate.score("top1", EvaluationKind.INHERITED) == searched.history[4].metrics["top1"]
    assert searched.networks[0].candidate.score("top1", EvaluationKind.FINETUNED) == searched.history[6].metrics["top1"]
    assert searched.class_names == tuple("0123456789")


def test_the_weights_are_those_that_were_scored(searched: TrialOutcome, uniform: TrialOutcome) -> None:
    check_weights_belong_to_scores(searched.networks[0], tiny.tiny())
    check_weights_belong_to_scores(uniform.networks[0], learning_study())


def test_a_search_is_deterministic(searched: TrialOutcome) -> None:
    torch.manual_seed(123)
    state = torch.random.get_rng_state()
    again, _ = run(tiny.search())
    assert torch.equal(torch.random.get_rng_state(), state)
    assert timeless(again.history) == timeless(searched.history)
    assert again.networks[0].candidate == searched.networks[0].candidate
    weights = again.networks[0].state_dict
    assert all(torch.equal(weights[name], tensor) for name, tensor in searched.networks[0].state_dict.items())
    first: list[EpochRecord] = []

    def only_one(entry: EpochRecord) -> None:
        first.append(entry)
        raise Interrupted

    with pytest.raises(Interrupted):
        run_trial(tiny.tiny(), tiny.search(seed=12), (), report=only_one, device="cpu")
    assert timeless(tuple(first)) != timeless(searched.history[:1])


FRACTIONAL = TrialSpec(0, TrialKind.SEARCH, {"penalty": 0.5}, 11)


def fractional_study() -> StudyDefinition:
    training = {"epochs": 5, "finetune_epochs": 1, "batch_size": 90}
    return tiny.tiny(method="fractional", space={"target": 4}, training=training)


@pytest.fixture(scope="module")
def fractional() -> TrialOutcome:
    return run(FRACTIONAL, fractional_study())[0]


def test_fractional_levels_end_in_one_network_within_its_budget(fractional: TrialOutcome) -> None:
    history = fractional.history
    (found,) = fractional.networks
    assert "fractional" in [entry.phase for entry in history]
    assert [entry.phase for entry in history].index("finetune") == 5 == len(history) - 1
    assert found.candidate.target == history[-1].metrics["target"]
    cost = found.candidate.score("conv_macs")
    assert found.candidate.within_budget == (abs(cost - found.candidate.target) <= 0.02 * found.candidate.target)
    check_weights_belong_to_scores(found, fractional_study())


SUPERNET = TrialSpec(0, TrialKind.SEARCH, {}, 11)


def supernet_study() -> StudyDefinition:
    return tiny.tiny(
        method="supernet",
        data=tiny.LEARNS,
        space={"target": {"log_uniform": [2, 8]}},
        front={"points": 3},
        training={"epochs": 3, "batch_size": 40, "learning_rate": 0.02},
    )


@pytest.fixture(scope="module")
def front() -> TrialOutcome:
    outcome, history = run(SUPERNET, supernet_study())
    assert [entry.phase for entry in history] == ["sandwich"] * 3
    assert history[-1].metrics["top1"] > 0.2  # by statistics of each batch; chance is 0.1
    return outcome


def test_a_supernet_trial_yields_a_front(front: TrialOutcome) -> None:
    candidates = [found.candidate for found in front.networks]
    assert 2 <= len(candidates) <= 3
    costs = [candidate.score("conv_macs") for candidate in candidates]
    assert costs == sorted(set(costs))
    network = build_network(tiny.tiny(), 10)
    spread = [2.0, 4.0, 8.0]
    targets = [Budget.from_b(b, input_shape=(1, 8, 8)).resolve(network) for b in spread]
    for candidate, cost in zip(candidates, costs, strict=True):
        assert candidate.target in [pytest.approx(target) for target in targets]
        assert candidate.within_budget == (abs(cost - candidate.target) <= 0.02 * candidate.target)
        assert candidate.within_budget or candidate.note
    assert len({candidate.architecture.id for candidate in candidates}) == len(candidates)


def test_networks_of_a_supernet_are_predicted_and_measured(front: TrialOutcome) -> None:
    for found in front.networks:
        kinds = [(e.kind, e.metric, e.epochs, e.data_split, e.seed) for e in found.candidate.evaluations]
        assert kinds == [
            (EvaluationKind.PREDICTED, "loss", 3, "validation", 11),
            *((EvaluationKind.INHERITED, metric, 3, "validation", 11) for metric in ("top1", "top5", "loss")),
        ]
        assert found.candidate.kind is EvaluationKind.INHERITED
        check_weights_belong_to_scores(found, supernet_study(), EvaluationKind.INHERITED)
        predicted = found.candidate.score("loss", EvaluationKind.PREDICTED)
        assert predicted == pytest.approx(found.candidate.score("loss", EvaluationKind.INHERITED), rel=0.5)


def test_a_baseline_is_uniform_and_trained_as_long(uniform: TrialOutcome, searched: TrialOutcome) -> None:
    assert {split.ratio for split in uniform.networks[0].candidate.splits} == {0.25}
    assert [entry.phase for entry in uniform.history] == ["train"] * 7
    assert {(e.kind, e.epochs) for e in uniform.networks[0].candidate.evaluations} == {(EvaluationKind.FINETUNED, 7)}
    assert uniform.networks[0].candidate.score("top1", EvaluationKind.FINETUNED) > 0.3  # chance is 0.1
    measured = [m.metric for m in uniform.networks[0].candidate.measurements]
    assert measured == [m.metric for m in searched.networks[0].candidate.measurements]


def test_without_fine_tuning_the_front_still_has_its_kind() -> None:
    training = {"epochs": 4, "finetune_epochs": 0, "batch_size": 120}
    outcome, history = run(tiny.search(), tiny.tiny(training=training))
    assert len(history) == 4
    candidate = outcome.networks[0].candidate
    scores = {candidate.score("top1", kind) for kind in (EvaluationKind.INHERITED, EvaluationKind.FINETUNED)}
    assert len(scores) == 1


@pytest.mark.parametrize(("scope", "unit"), sampled(["conv", "network"], ["macs", "params"]))
def test_every_budget(scope: str, unit: str) -> None:
    definition = tiny.tiny(
        budget={"scope": scope, "unit": unit},
        space={"target": 3.0 if scope == "conv" else {"macs": 90_000, "params": 14_000}[unit]},
        training={"epochs": 4, "finetune_epochs": 0, "batch_size": 120},
    )
    spec = TrialSpec(0, TrialKind.SEARCH, {}, 1)  # the target is a constant of the space
    outcome, history = run(spec, definition)
    candidate, target = outcome.networks[0].candidate, history[-1].metrics["target"]
    cost = history[-1].metrics["cost"]
    assert candidate.within_budget == (abs(cost - target) <= 0.02 * target)
    if scope == "network":
        assert target == definition.space["target"]
        assert cost == candidate.score("macs" if unit == "macs" else "params_inference")


def test_an_unreachable_target_is_flagged() -> None:
    training = {"epochs": 4, "finetune_epochs": 0, "batch_size": 120}
    outcome, _ = run(tiny.search(target=10_000.0), tiny.tiny(training=training))
    assert not outcome.networks[0].candidate.within_budget
    assert outcome.networks[0].candidate.note
    costs = budget_costs(build_network(tiny.tiny(), 10), Budget.from_b(2, input_shape=(1, 8, 8)))
    assert outcome.networks[0].candidate.score("conv_macs") == costs.minimum


@pytest.mark.parametrize("kind", ["search", "baseline"])
def test_a_diverged_training_raises(kind: str) -> None:
    definition = tiny.tiny(
        training={"epochs": 4, "batch_size": 40, "optimizer": "sgd", "learning_rate": 10, "clip_norm": 0,
                  "momentum": 0.99, "warmup_fraction": 0, "weight_decay": 1}
    )  # fmt: skip
    with pytest.raises(TrainingDiverged, match=r"the training diverged: loss is (nan|inf)"):
        run(tiny.search() if kind == "search" else tiny.baseline(), definition)


def test_sampled_training_parameters_count(searched: TrialOutcome) -> None:
    outcome, history = run(tiny.search(learning_rate=0.001, batch_size=90, finetune_epochs=1))
    assert len(history) == 6
    assert max(entry.metrics["learning_rate"] for entry in history) <= 0.001
    assert timeless(outcome.history) != timeless(searched.history)[:6]


def test_constants_of_the_space_hold_for_baselines_too() -> None:
    definition = tiny.tiny(
        space={"target": 4, "learning_rate": 0.002}, training={"epochs": 1, "finetune_epochs": 1, "batch_size": 40}
    )
    _, history = run(tiny.baseline(), definition)
    assert 0.001 < history[0].metrics["learning_rate"] <= 0.002


def test_test_images_are_never_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARTIALNET_CACHE", str(tmp_path / "cache"))
    made.class_folders(tmp_path / "cifar10", ("train", "test"), made.CIFAR10_CLASSES, per_class=12)
    for image in (tmp_path / "cifar10" / "test").rglob("*.png"):
        image.write_bytes(b"not to be read")
    definition = tiny.tiny(data={"name": "cifar10"}, training={"epochs": 1, "finetune_epochs": 1, "batch_size": 96})
    for spec in (tiny.search(), tiny.baseline()):
        outcome, _ = run(spec, definition, (tmp_path,))
        assert outcome.class_names == made.CIFAR10_CLASSES
    with pytest.raises(DataError, match="cannot be read as an image"):
        _ = open_data(definition, [tmp_path]).test


def test_every_trial_is_judged_by_the_same_images() -> None:
    one, two = (open_data(tiny.tiny(), []) for _ in range(2))
    assert torch.equal(one.validation.targets, two.validation.targets)
    first = next(iter(one.validation.batches(40)))[0]
    assert torch.equal(first, next(iter(two.validation.batches(40)))[0])
    other = open_data(tiny.tiny(sweep={"trials": 1, "seed": 4}), [])
    assert not torch.equal(first, next(iter(other.validation.batches(40)))[0])


@pytest.mark.parametrize("ratio", [None, 0, 1.5, True, "half"])
def test_a_baseline_needs_a_ratio(ratio: Any) -> None:
    spec = TrialSpec(3, TrialKind.BASELINE, {} if ratio is None else {"ratio": ratio}, 1)
    with pytest.raises(InputError, match=r"baseline 3: 'ratio' is .*, but must be a number in \(0, 1\]"):
        run(spec)


def test_a_report_that_raises_ends_the_trial() -> None:
    def refuse(entry: EpochRecord) -> None:
        raise RuntimeError(f"no more after {entry.epoch}")

    with pytest.raises(RuntimeError, match="no more after 1"):
        run_trial(tiny.tiny(), tiny.search(), (), report=refuse, device="cpu")


def checkpoint_of(tmp_path: Path, spec: TrialSpec) -> TrialCheckpoint:
    scratch = Path(tempfile.mkdtemp(dir=tmp_path))  # a new one for every process
    return TrialCheckpoint(Artifacts(str(tmp_path / "storage")), "study", spec, scratch)


def run_interrupted(
    tmp_path: Path, spec: TrialSpec, definition: StudyDefinition, after: Sequence[int]
) -> tuple[TrialOutcome, list[list[int]]]:
    """Run a trial that dies once each of the epochs ``after`` is committed; return what came of it, and its reports."""
    told: list[list[int]] = []
    for last in [*after, None]:
        checkpoint = checkpoint_of(tmp_path, spec)
        assert checkpoint.restore() == bool(told)
        known = len(checkpoint.history)
        told.append([])

        def report(entry: EpochRecord, last: int | None = last) -> None:
            told[-1].append(entry.epoch)
            if entry.epoch == last:
                raise Interrupted

        if last is None:
            return run_trial(definition, spec, (), report=report, device="cpu", checkpoint=checkpoint), told
        with pytest.raises(Interrupted):
            run_trial(definition, spec, (), report=report, device="cpu", checkpoint=checkpoint)
        assert known < last
    raise AssertionError


def test_an_interrupted_trial_ends_as_if_it_had_not_been(tmp_path: Path, searched: TrialOutcome) -> None:
    after = (1, 3, 5, 6)  # in every phase, and between search and fine-tuning
    resumed, told = run_interrupted(tmp_path, tiny.search(), tiny.tiny(), after)
    assert [epochs[-1] for epochs in told] == [*after, 7]
    assert all(epochs == list(range(1, len(epochs) + 1)) for epochs in told)
    check_equal(resumed, searched)


def check_equal(resumed: TrialOutcome, whole: TrialOutcome) -> None:
    assert timeless(resumed.history) == timeless(whole.history)
    for mine, wanted in zip(resumed.networks, whole.networks, strict=True):
        assert mine.candidate == wanted.candidate
        assert all(torch.equal(mine.state_dict[name], tensor) for name, tensor in wanted.state_dict.items())


def test_interrupted_baselines_and_other_methods_too(
    tmp_path: Path, uniform: TrialOutcome, fractional: TrialOutcome
) -> None:
    check_equal(run_interrupted(tmp_path, tiny.baseline(), learning_study(), (3,))[0], uniform)
    check_equal(run_interrupted(tmp_path, FRACTIONAL, fractional_study(), (3,))[0], fractional)  # amid the levels


def test_an_interrupted_supernet_selects_the_same_networks(tmp_path: Path, front: TrialOutcome) -> None:
    check_equal(run_interrupted(tmp_path, SUPERNET, supernet_study(), (1, 3))[0], front)
