"""Latency of a sweep's networks, measured after the trials. Loads torch only to measure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from nas.candidate import Candidate
from nas.definition.sections import LatencySpec
from nas.definition.study import StudyDefinition
from nas.errors import NasError
from nas.findings.milliseconds import keeps_budget
from nas.findings.pareto import pareto_points
from nas.findings.scores import searched_kind
from nas.store import Store
from nas.study import Study
from nas.trial import LEARNED_KINDS, OWN_NETWORK, Trial, TrialKind
from partialnet.architecture import Architecture


def probed_trials(trials: Sequence[Trial], definition: StudyDefinition) -> list[Trial]:
    """Return the trials whose candidates get a latency measurement: the front, the baselines and retrained networks.

    With a budget in milliseconds, the front of the learned networks alone is measured as well, even behind baselines.
    """
    parts = [trials]
    if definition.budget.unit == "latency":
        parts.append([trial for trial in trials if trial.kind in LEARNED_KINDS])
    wanted = {trial.number for trial in trials if trial.kind in OWN_NETWORK}
    for part in parts:
        points = pareto_points(part, definition.objectives, searched_kind(part), definition.constraints)
        wanted |= {point.number for point in points if point.on_front or point.kind is TrialKind.BASELINE}
    return [trial for trial in trials if trial.number in wanted]


def _unmeasured(
    candidates: Sequence[Candidate], spec: LatencySpec, shape: tuple[int, int, int]
) -> list[Architecture]:
    """Return the architectures without a latency under these circumstances; other studies may have measured some."""
    from nas.probes.latency import latency_fingerprint

    wanted = ("latency_ms", latency_fingerprint(spec, shape))
    known = {c.architecture.id for c in candidates if wanted in {(m.metric, m.fingerprint) for m in c.measurements}}
    architectures = {c.architecture.id: c.architecture for c in candidates}
    return [architecture for key, architecture in architectures.items() if key not in known]


def _usual_reference(
    candidates: Sequence[Candidate],
    spec: LatencySpec,
    shape: tuple[int, int, int],
    table: Mapping[str, Any] | None,
) -> float | None:
    """Return the time of the reference network to which the study's table, or earlier latencies, refer.

    Args:
        candidates: Candidates with earlier measurements.
        spec: Settings of the measurement.
        shape: Shape of one image.
        table: Latency table of the study in its JSON form, if it has one.
    """
    from nas.probes.latency import latency_fingerprint

    wanted = ("latency_ms", latency_fingerprint(spec, shape))
    if table is not None and table["fingerprint"] == wanted[1]:
        return float(table["reference_ms"])
    found = [m for c in candidates for m in c.measurements if (m.metric, m.fingerprint) == wanted]
    return next((float(m.figures["usual_reference_ms"]) for m in found if "usual_reference_ms" in m.figures), None)


def probe_latencies(store: Store, study: Study, trials: Sequence[Trial], tell: Callable[[str], bool]) -> None:
    """Measure the missing latencies of front and baselines. A failed probe costs only itself.

    Weights are left out: the latency of a network depends on shapes, not on values. All latencies of a study refer to
    one time of the reference network, so that a drift of the machine between them cancels. A measured network may
    break a limit and leave the front to another one, which is then measured as well. At the end, the tables say which
    networks keep a budget in milliseconds.

    Args:
        store: Store of the measurements.
        study: Study that says whether and how to measure.
        trials: Trials of the study.
        tell: Function that receives the name of the next probe; False ends the probing.
    """
    if study.definition.latency is None:
        return
    try:
        while _probe_front(store, study, trials, tell):
            trials = store.trials(study.id)
    except NasError as error:
        tell(f"latency could not be measured: {error}")
    judge_latencies(store, study)


def _probe_front(store: Store, study: Study, trials: Sequence[Trial], tell: Callable[[str], bool]) -> bool:
    """Measure the missing latencies of the present front; return whether all could be measured, and there were any."""
    spec, shape = study.definition.latency, study.definition.data.input_shape
    assert spec is not None
    candidates = [c for trial in probed_trials(trials, study.definition) for c in trial.candidates]
    waiting = _unmeasured(candidates, spec, shape)
    usual = _usual_reference(candidates, spec, shape, store.latency_table(study.id))
    for place, architecture in enumerate(waiting, start=1):
        if not tell(f"measuring latency, network {place} of {len(waiting)}"):
            return False
        from nas.probes.latency import probe_latency
        from partialnet.networks import create

        try:
            measurement = probe_latency(create(architecture), shape, spec, usual_ms=usual)
        except Exception as error:
            tell(f"latency could not be measured: {type(error).__name__}: {error}")
            return False
        store.add_measurements(architecture.id, [measurement], input_shape=shape)
        usual = float(measurement.figures["usual_reference_ms"])
    return bool(waiting)


def judge_latencies(store: Store, study: Study) -> None:
    """Record which of the learned networks keep a budget in milliseconds by their measured latency."""
    table = store.latency_table(study.id)
    if table is None or study.definition.budget.unit != "latency":
        return
    kept = {
        (trial.number, position): verdict
        for trial in store.trials(study.id)
        if trial.kind in LEARNED_KINDS
        for position, candidate in enumerate(trial.candidates)
        if (verdict := keeps_budget(study.definition.budget, candidate, table["fingerprint"]))
        is not candidate.measured_within_budget
    }
    if kept:
        store.judge_latencies(study.id, kept)
