"""Hypothesis strategies for the domain types, and short makers of them."""

from __future__ import annotations

from hypothesis import strategies as st

from nas.candidate import Artifact, Candidate, Split
from nas.definition.space import Choice, Integer, LogUniform, Uniform
from nas.definition.study import StudyDefinition, parse_study
from nas.finalist import Finalist, Role
from nas.metrics import METRICS, Evaluation, EvaluationKind, Measurement
from nas.trial import OWN_NETWORK, EpochRecord, Trial, TrialKind, TrialSpec, TrialState
from partialnet.architecture import Architecture

finite = st.floats(allow_nan=False, allow_infinity=False)
names = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), min_size=1, max_size=12)
scalars = st.one_of(st.booleans(), st.integers(-(2**40), 2**40), finite, names)
_evaluated = [name for name, metric in METRICS.items() if metric.evaluated]
_measured = [name for name, metric in METRICS.items() if not metric.evaluated]


def _pairs(values: st.SearchStrategy) -> st.SearchStrategy:
    return st.tuples(values, values).filter(lambda pair: pair[0] < pair[1])


uniforms = st.builds(Uniform, uniform=_pairs(st.floats(-1e6, 1e6)))
log_uniforms = st.builds(LogUniform, log_uniform=_pairs(st.floats(1e-6, 1e6)))
integers = st.builds(Integer, int=_pairs(st.integers(-1000, 1000)))
choices = st.builds(
    Choice, choice=st.lists(scalars, min_size=1, max_size=6, unique_by=str).map(tuple)
)
distributions = st.one_of(uniforms, log_uniforms, integers, choices)

finalists = st.builds(
    Finalist,
    role=st.sampled_from(Role),
    of=st.integers(0, 10**6),
    position=st.none() | st.integers(0, 1000),
    target=st.floats(1, 1e15),
    active_channels=st.lists(st.integers(1, 4096), min_size=1, max_size=40).map(tuple),
    ratio=st.none() | st.floats(1e-3, 1),
    draw=st.none() | st.integers(0, 100),
    width=st.none() | st.floats(0.5, 2),
    depth=st.none() | st.floats(0.5, 2),
    options=st.none() | st.just('{"depths": [1, 1, 2, 1], "embed_dim": 18}'),
    cost=st.none() | st.floats(1, 1e15),
    seed_index=st.integers(0, 100),
)
searched_specs = st.builds(
    TrialSpec,
    number=st.integers(0, 10**6),
    kind=st.sampled_from([kind for kind in TrialKind if kind not in OWN_NETWORK]),
    parameters=st.dictionaries(names, scalars, max_size=5),
    seed=st.integers(0, 2**31 - 1),
)
retrain_specs = st.builds(
    TrialSpec,
    number=st.integers(0, 10**6),
    kind=st.sampled_from(sorted(OWN_NETWORK)),
    parameters=st.dictionaries(st.sampled_from(["learning_rate", "batch_size", "optimizer"]), scalars, max_size=3),
    seed=st.integers(0, 2**31 - 1),
    finalist=finalists,
)
specs = st.one_of(searched_specs, retrain_specs)
epochs = st.builds(
    EpochRecord,
    epoch=st.integers(1, 10_000),
    phase=names,
    metrics=st.dictionaries(names, finite, max_size=5),
    active_channels=st.dictionaries(names, st.integers(1, 4096), max_size=4),
)
architectures = st.builds(
    Architecture,
    model=names.filter(lambda name: "/" not in name),  # it stands for a network of another family
    options=st.dictionaries(names, st.one_of(scalars, st.lists(st.integers(), max_size=4)), max_size=3),
    active_channels=st.dictionaries(names, st.integers(1, 4096), max_size=4),
)
splits = st.builds(
    Split,
    layer=names,
    index=st.integers(0, 100),
    channels=st.just(64),
    active_channels=st.integers(1, 64),
    macs=st.integers(0, 2**50),
    stage=st.none() | st.integers(0, 3),
    block=st.none() | st.integers(0, 20),
)
evaluations = st.builds(
    Evaluation,
    kind=st.sampled_from(EvaluationKind),
    metric=st.sampled_from(_evaluated),
    value=finite,
    std=st.none() | st.floats(0, 1),
    data_split=st.sampled_from(["validation", "test"]),
    seed=st.none() | st.integers(0, 2**31),
    epochs=st.none() | st.integers(0, 1000),
)
measurements = st.builds(
    Measurement,
    metric=st.sampled_from(_measured),
    value=st.floats(0, 1e15),
    figures=st.dictionaries(names, st.one_of(scalars, st.lists(finite, max_size=3), st.none()), max_size=3),
    fingerprint=names,
)
artifacts = st.builds(Artifact, uri=names, sha256=names, size=st.integers(0, 2**50), kind=names)
candidates = st.builds(
    Candidate,
    architecture=architectures,
    splits=st.lists(splits, max_size=3).map(tuple),
    evaluations=st.lists(evaluations, max_size=3).map(tuple),
    measurements=st.lists(measurements, max_size=3).map(tuple),
    weights=st.none() | artifacts,
    within_budget=st.booleans(),
    note=st.none() | names,
    target=st.none() | finite,
    measured_within_budget=st.none() | st.booleans(),
)


def make_definition(**changes: object) -> StudyDefinition:
    """Return a small study of digits; ``changes`` replace whole sections."""
    return parse_study({"name": "small", "data": {"name": "digits"}, **changes})


def make_candidate(top1: float, macs: float, **changes: object) -> Candidate:
    """Return a candidate with the two scores that a front needs."""
    facts: dict[str, object] = {
        "architecture": Architecture("partialnet_micro", {}, {"stages.0.blocks.0.mixer": 1 + round(macs)}),
        "evaluations": (Evaluation(EvaluationKind.FINETUNED, "top1", top1),),
        "measurements": (Measurement("macs", macs),),
    }
    return Candidate(**{**facts, **changes})  # type: ignore[arg-type]


def make_trial(
    number: int,
    scores: tuple[float, float] | None = None,
    *,
    kind: TrialKind = TrialKind.SEARCH,
    state: TrialState | None = None,
    reason: str | None = None,
    parameters: dict[str, float] | None = None,
    **changes: object,
) -> Trial:
    """Return a trial: complete with (top-1, macs), or failed without."""
    state = state or (TrialState.COMPLETE if scores else TrialState.FAILED)
    found = (make_candidate(*scores, **changes),) if scores else ()
    sampled = {"target": 4.0, "complexity_exponent": 1.0, "penalty": 0.9} if parameters is None else parameters
    return Trial(number, kind, state, sampled, number, reason, found)
