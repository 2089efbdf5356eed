"""The trials that a search has still to run, as the tables say: the one recovery after any interruption."""

from __future__ import annotations

from dataclasses import dataclass

from nas.errors import ConflictError
from nas.lifecycle import Action, allows, take
from nas.store import Store
from nas.study import Study
from nas.sweep.first_proposals import baseline_parameters
from nas.trial import TrialKind, TrialSpec, TrialState


@dataclass(frozen=True)
class Remaining:
    """What is left to run of a study.

    Args:
        queued: Waiting trials of the search, baselines first.
        proposals: Number of trials that may still be proposed.
        finalists: Waiting trainings of the final comparison.
        total: Number of trials that the study will have, as far as is known.
        ended: Number of those that have ended.
    """

    queued: tuple[TrialSpec, ...]
    proposals: int
    finalists: tuple[TrialSpec, ...]
    total: int
    ended: int


def take_up(store: Store, study: Study) -> Remaining:
    """Set a study running, add its missing baselines, and put its unfinished trials back.

    Raises:
        ConflictError: If nothing is left to run, or the study's state does not allow it.
    """
    definition, trials = study.definition, store.trials(study.id)
    waiting = any(not trial.state.ended for trial in trials)
    ratios = {trial.parameters.get("ratio") for trial in trials if trial.kind is TrialKind.BASELINE}
    missing = [ratio for ratio in definition.baselines if ratio not in ratios]
    searched = sum(trial.kind is TrialKind.SEARCH for trial in trials)
    compared = any(trial.kind is TrialKind.RETRAIN for trial in trials)
    # Once the comparison is planned, the search is over, unless the study is extended.
    over = compared and not study.extended
    proposals = 0 if over else max(0, study.search_trials - searched)
    complete = any(trial.state is TrialState.COMPLETE for trial in trials)
    open_end = complete and allows(study.state, Action.RUN)
    if not (waiting or missing or proposals or open_end):
        raise ConflictError(
            f"study {study.name} is {study.state.value} and all its {len(trials)} trials have ended; "
            f"to continue, add trials: nas resume {study.name} --extend 10"
        )
    step = take(study.name, study.state, Action.RUN)
    store.set_study_state(study.id, step.state)
    if missing:
        baselines = [(TrialKind.BASELINE, baseline_parameters(definition, ratio)) for ratio in missing]
        store.add_trials(study.id, baselines)
    unfinished = store.requeue_unfinished(study.id)
    queued = [spec for spec in unfinished if spec.kind is not TrialKind.RETRAIN]
    # Baselines first: everything is compared with them, so an interruption should leave them complete.
    queued.sort(key=lambda spec: (spec.kind is not TrialKind.BASELINE, spec.number))
    known = len(trials) + len(missing)
    return Remaining(
        tuple(queued),
        proposals,
        tuple(spec for spec in unfinished if spec.kind is TrialKind.RETRAIN),
        total=known + proposals + (0 if compared else definition.planned_final),
        ended=known - len(unfinished),
    )
