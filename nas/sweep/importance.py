"""The importance of sampled parameters by PED-ANOVA: Optuna's evaluator on a study made in memory from the trials."""

from __future__ import annotations

import random
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from statistics import quantiles

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

from nas.definition.study import StudyDefinition
from nas.findings.importance import Importances, Observed, Share, best_part
from nas.metrics import METRICS, Direction
from nas.sweep.optuna_words import optuna_directions, optuna_space

MOST = 1000
"""Most trials that importances are computed from; of more, as many are drawn."""
_SHUFFLES = 20
"""Number of shuffles of an objective's values that tell what chance reaches."""


def importances(trials: Sequence[Observed], definition: StudyDefinition) -> Importances:
    """Return the importance of each sampled parameter for each objective.

    Args:
        trials: Complete search trials of the study, enough of them: see :func:`nas.findings.importance.refusal`.
        definition: Definition of the study.
    """
    used = trials if len(trials) <= MOST else random.Random(0).sample(trials, MOST)
    part = best_part(len(used))
    with _quiet():
        study = _study(used, definition)
        shares = {
            name: _shares(study, _rising(name, [trial.values[place] for trial in used]), part)
            for place, name in enumerate(definition.objectives)
        }
    return Importances(len(trials), len(used), part, shares)


def _study(trials: Sequence[Observed], definition: StudyDefinition) -> optuna.Study:
    """Return a study of Optuna in memory; the number of a trial in it is its place in ``trials``."""
    space = optuna_space(definition)
    study = optuna.create_study(directions=optuna_directions(definition.objectives))
    made = (
        optuna.trial.create_trial(
            values=list(trial.values), params={name: trial.parameters[name] for name in space}, distributions=space
        )
        for trial in trials
    )
    study.add_trials(made)
    return study


def _rising(metric: str, values: Sequence[float]) -> list[float]:
    """Return values of which lower ones are better."""
    sign = -1.0 if METRICS[metric].direction is Direction.MAXIMIZE else 1.0
    return [sign * value for value in values]


def _shares(study: optuna.Study, values: Sequence[float], part: float) -> dict[str, Share]:
    found = _raw(study, values, part)
    draw = random.Random(0)  # equal trials always give equal figures
    chance = [_raw(study, draw.sample(values, k=len(values)), part) for _ in range(_SHUFFLES)]
    whole = sum(found.values()) or 1.0
    return {
        name: Share(found[name] / whole, min(1.0, quantiles([one[name] for one in chance], n=10)[-1] / whole))
        for name in sorted(found, key=lambda name: (-found[name], name))
    }


def _raw(study: optuna.Study, values: Sequence[float], part: float) -> dict[str, float]:
    evaluator = PedAnovaImportanceEvaluator(target_quantile=part)
    found: dict[str, float] = get_param_importances(
        study, evaluator=evaluator, target=lambda trial: values[trial.number], normalize=False
    )
    return found


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence Optuna's line on a new study, and its notes on experimental parts and on the sense of a target."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            warnings.simplefilter("ignore", ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(before)
