"""Small valid things to put into a store."""

from __future__ import annotations

from nas.candidate import Artifact, Candidate, Split
from nas.definition.study import StudyDefinition, parse_study
from nas.metrics import Evaluation, EvaluationKind, Measurement
from nas.store import Store
from nas.study import Study
from nas.trial import EpochRecord, TrialKind, TrialState
from partialnet.architecture import Architecture

REFERENCE = {"top1": 0.0, "macs": 1e6}


def definition(name: str = "digits", **changes: object) -> StudyDefinition:
    return parse_study({"name": name, "data": {"name": "digits"}, **changes})


def study(store: Store, name: str = "digits", **changes: object) -> Study:
    return store.create_study(definition(name, **changes), reference_point=REFERENCE)


def candidate(active: int = 3, top1: float = 0.9, **changes: object) -> Candidate:
    layers = {"stages.1.blocks.0.mixer": active, "stages.0.blocks.0.mixer": active + 1}
    facts: dict[str, object] = {
        "architecture": Architecture("partialnet_micro", {"num_classes": 10, "merge_strides": [2, 1, 1]}, layers),
        "splits": (
            Split("stages.0.blocks.0.mixer", 0, 24, active + 1, 900, 0, 0),
            Split("stages.1.blocks.0.mixer", 1, 48, active, 2**40, 1, 0),
        ),
        "evaluations": (
            Evaluation(EvaluationKind.INHERITED, "top1", top1 / 2, epochs=3),
            Evaluation(EvaluationKind.FINETUNED, "top1", top1, 0.01, seed=2**31 - 1, epochs=5),
        ),
        "measurements": (Measurement("macs", 1234.0, {"uncounted": ["aten::x"]}, "fvcore"),),
        "weights": Artifact(f"studies/w/{active}.safetensors", "ab" * 32, 2**33, "weights"),
        "within_budget": False,
        "note": "nearest reachable: 1200 and 1300",
        "target": 1250.5,
    }
    return Candidate(**{**facts, **changes})  # type: ignore[arg-type]


def epoch(number: int, phase: str = "gates", loss: float = 1.5) -> EpochRecord:
    return EpochRecord(number, phase, {"loss": loss, "top1": 0.5}, {"stages.0.blocks.0.mixer": 4})


def complete(
    store: Store, study_id: str, active: int = 3, top1: float = 0.9, found: Candidate | None = None
) -> int:
    """Run one search trial to its end; return its number."""
    number = store.add_trials(study_id, [(TrialKind.SEARCH, {"target": 4.0})])[0].number
    store.start_trial(study_id, number)
    store.record_epoch(study_id, number, epoch(1))
    store.end_trial(study_id, number, TrialState.COMPLETE, candidates=[found or candidate(active, top1)])
    return number


def networks(count: int = 3) -> list[Candidate]:
    """Return the networks of a supernet's trial: more expensive ones are better, with weights of the search only."""
    found = []
    for place in range(count):
        loss, top1 = 1 / (1 + place), 0.5 + place / 10
        evaluations = (
            Evaluation(EvaluationKind.PREDICTED, "loss", loss),
            Evaluation(EvaluationKind.INHERITED, "top1", top1),
            Evaluation(EvaluationKind.INHERITED, "loss", loss),
        )
        cost = Measurement("macs", 1000.0 * (1 + place), {}, "fvcore")
        facts = {"evaluations": evaluations, "measurements": (cost,), "within_budget": True, "note": None}
        found.append(candidate(4 + place, target=900.0 * (1 + place), **facts))
    return found


def supernet(store: Store, name: str = "supernet", count: int = 3) -> Study:
    """Run a study of one supernet to the end of its trial."""
    made = study(store, name, method="supernet")
    store.add_trials(made.id, [(TrialKind.SEARCH, {})])
    store.start_trial(made.id, 0)
    store.record_epoch(made.id, 0, epoch(1, "sandwich"))
    store.end_trial(made.id, 0, TrialState.COMPLETE, candidates=networks(count))
    return made
