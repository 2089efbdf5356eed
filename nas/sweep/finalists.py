"""The trainings of a study's final comparison, as trials in the tables."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import TYPE_CHECKING

from nas.definition.searched import network_word
from nas.errors import failure_reason
from nas.finalist import Finalist, Role
from nas.findings.comparison import retrained_means
from nas.findings.scores import retrained
from nas.formatting import format_number
from nas.store import Store
from nas.study import ComparisonPlan, Study
from nas.sweep.first_proposals import middle_training
from nas.trial import Trial, TrialKind, TrialSpec
from partialnet.search.latency_table import LatencyTable

if TYPE_CHECKING:
    from torch import nn

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class FinalPlan:
    """The trainings that a final comparison adds to a study.

    Args:
        specs: New trials, which wait.
        trials: Number of trials before them; 0 if the comparison was planned by an earlier run.
        ended: Number of those that have ended.
        introduction: Sentence on the comparison, for people.
        left_out: Sentences on networks that were requested, but do not exist.
        fault: Sentence on the reason why there is no comparison; None if there is one.
    """

    specs: Sequence[TrialSpec] = ()
    trials: int = 0
    ended: int = 0
    introduction: str = ""
    left_out: tuple[str, ...] = ()
    fault: str | None = None


class _MeasuringStopped(Exception):
    """A stop was requested while networks were measured."""


def planned_finalists(
    store: Store, study: Study, table: LatencyTable | None, tell: Callable[[str], bool]
) -> FinalPlan:
    """Plan the final comparison of an ended search, and add its trainings to the tables unless they are there.

    An extended study gets the trainings that its longer search calls for, besides those of the earlier comparison.

    Args:
        store: Store of the study.
        study: Study whose search has ended.
        table: Latency table of the study, if it has one.
        tell: Function that receives what is measured next; False ends the planning, and the next run begins it anew.
    """
    definition = study.definition
    trials = store.trials(study.id)
    ended = sum(trial.state.ended for trial in trials)
    # Finalists are equal for any seed.
    known = {(finalist, finalist.seed_index) for finalist, _ in retrained(trials)}
    last = {trial.kind: trial.number for trial in trials}  # ascending by number
    if known and last[TrialKind.RETRAIN] > last.get(TrialKind.SEARCH, -1):
        return FinalPlan()  # an earlier run planned the comparison
    try:
        from nas.sweep.final_plan import plan_final

        finalists, left_out = plan_final(definition, trials, table, measure=_measure(store, study, tell))
    except _MeasuringStopped:
        return FinalPlan()
    except Exception as error:  # the results of the search are worth keeping without a comparison
        logger.exception("the final comparison of %s could not be prepared", study.name)
        why = f"The final comparison could not be prepared: {failure_reason(error)}."
        return FinalPlan(trials=len(trials), ended=ended, fault=why)
    # One seed after another, so that an interruption leaves a comparison with fewer seeds.
    seeds = range(definition.final.seeds)
    trainings = [replace(finalist, seed_index=seed) for seed in seeds for finalist in finalists]
    trainings = [training for training in trainings if (training, training.seed_index) not in known]
    specs = store.add_finalists(study.id, trainings, middle_training(definition))
    known_plan = store.study(study.id).comparison_plan or ComparisonPlan()
    store.record_comparison_plan(study.id, replace(known_plan, left_out=left_out))
    return FinalPlan(specs, len(trials), ended, _introduction(study, finalists), left_out)


def _measure(store: Store, study: Study, tell: Callable[[str], bool]) -> Callable[[nn.Module], float] | None:
    """Return a function that measures networks as the study does; None if it measures none.

    It serves while no trial runs, and all figures refer to one time of the reference network.
    """
    spec = study.definition.latency
    if spec is None:
        return None
    table = store.latency_table(study.id)
    usual = [None if table is None else float(table["reference_ms"])]
    passes = count(1)

    def measure(network: nn.Module) -> float:
        from nas.probes.latency import probe_latency

        if not tell(f"measuring networks of equal latency, {next(passes)}"):
            raise _MeasuringStopped
        found = probe_latency(network, study.definition.data.input_shape, spec, usual_ms=usual[0])
        usual[0] = float(found.figures["usual_reference_ms"])
        return found.value

    return measure


def hand_back_scores(store: Store, study_id: str, trials: Sequence[Trial]) -> None:
    """Add the retrained scores to the learned networks that the search found.

    Args:
        store: Store of the study.
        study_id: Id of the study.
        trials: All trials of the study.
    """
    by_number = {trial.number: trial for trial in trials}
    for (number, position), evaluations in retrained_means(trials).items():
        candidate = by_number[number].candidates[position]
        # A resumed search must not add equal scores twice; a failed training that ran again changes the mean.
        if not set(evaluations) <= set(candidate.evaluations):
            store.add_evaluations(study_id, number, candidate.architecture.id, evaluations)


def _introduction(study: Study, finalists: Sequence[Finalist]) -> str:
    counts = Counter(finalist.role for finalist in finalists)
    learned = format_number(counts[Role.LEARNED], f"learned {network_word(study.definition.searched)}")
    seeds = format_number(study.definition.final.seeds, "seed")
    asked = [*study.definition.final.against, *([Role.ABLATED] if study.definition.final.ablate else [])]
    beside = " and ".join(f"{counts[role]} {role.value}" for role in Role if role.value in asked)
    equal = f" and, of equal cost, {beside}," if beside else ""
    return f"final comparison: {learned}{equal} trained from scratch with {seeds}"
