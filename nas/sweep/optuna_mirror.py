"""A study as a study of Optuna in a storage of its own, for Optuna's dashboard and plots. Loads neither torch nor ray.

Optuna's trials cannot be changed once they have ended. A mirror that only lacks trials gets these; one whose trials
have changed (a latency was measured, a failed trial was repeated) is written anew.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any

import optuna
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial
from sqlalchemy import create_engine, inspect
from sqlalchemy.exc import SQLAlchemyError

from nas.errors import ConflictError, InputError
from nas.findings.scores import told_kind, told_values
from nas.metrics import METRICS
from nas.settings import mask
from nas.study import Study
from nas.sweep.optuna_words import optuna_directions, optuna_space, to_optuna_trial
from nas.trial import EPOCH_SCORES, Trial, TrialKind

_OWNER = "nas_study_id"


@dataclass(frozen=True)
class Mirrored:
    """What a call has written.

    Args:
        name: Name of the study in Optuna's storage.
        trials: Number of trials there.
        added: Number of trials that this call wrote.
        rewritten: Whether the study was written anew because trials had changed.
    """

    name: str
    trials: int
    added: int
    rewritten: bool


def open_storage(place: str) -> BaseStorage:
    """Open a storage of Optuna.

    Args:
        place: SQLAlchemy URL of a database, or the path of a journal file.

    Raises:
        InputError: If it cannot be opened; the message gives the reason, without a password.
    """
    if "://" not in place:
        return _journal(Path(place))
    shown = mask(place)
    try:
        _check_tables(place, shown)
        return RDBStorage(place)
    except ImportError:
        raise InputError(f"--storage {shown}: the driver of this database is not installed") from None
    except (SQLAlchemyError, ValueError) as error:
        raise InputError(f"--storage {shown}: Optuna cannot open it ({mask(str(error)).splitlines()[0]})") from None


def _check_tables(place: str, shown: str) -> None:
    """Refuse a database with tables of Optuna's names that are not Optuna's, such as those of our own store.

    Optuna would write into them.
    """
    engine = create_engine(place)
    try:
        found = inspect(engine)
        foreign = found.has_table("studies") and "study_name" not in {c["name"] for c in found.get_columns("studies")}
    finally:
        engine.dispose()
    if foreign:
        raise InputError(f"--storage {shown}: the database belongs to another program; give Optuna one of its own")


def _journal(path: Path) -> JournalStorage:
    if path.suffix in (".db", ".sqlite", ".sqlite3"):
        raise InputError(f"--storage {path}: the path of a database; write sqlite:///{path}, or name a journal file")
    if not path.absolute().parent.is_dir():
        raise InputError(f"--storage {path}: the folder {path.absolute().parent} does not exist")
    try:
        if path.exists() and path.stat().st_size:
            with path.open(encoding="utf-8") as file:
                json.loads(file.readline())  # before Optuna writes: it would append to any file
        return JournalStorage(JournalFileBackend(str(path)))
    except (OSError, ValueError) as error:
        raise InputError(f"--storage {path}: it is no journal file of Optuna ({error})") from None


def mirror(
    study: Study,
    trials: Sequence[Trial],
    storage: BaseStorage,
    name: str,
    objectives: Sequence[str],
    own: Mapping[str, str] = MappingProxyType({}),
) -> Mirrored:
    """Write the ended search trials of a study into a storage of Optuna; a repeated call adds what is new.

    Args:
        study: Study to show.
        trials: Its trials; with their epochs if there is only one objective.
        storage: Storage of Optuna.
        name: Name of the study there.
        objectives: Metrics whose values the trials have; epochs are shown only for a single one.
        own: Circumstances of the study's own measurements by metric; empty if the study has no latency table.

    Raises:
        ConflictError: If the storage holds a study of that name that is no mirror of this one.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    wanted = [found for trial in trials if (found := mirrored_trial(study, trial, objectives, own)) is not None]
    directions = optuna_directions(objectives)
    present = _present(study, storage, name)
    rewritten = present is not None and (_directions(present) != directions or not _begins(present, wanted))
    if present is not None and rewritten:
        optuna.delete_study(study_name=name, storage=storage)
    target = optuna.create_study(study_name=name, storage=storage, directions=directions, load_if_exists=True)
    known = {trial.user_attrs["trial"] for trial in target.get_trials(deepcopy=False)}
    for key, value in _facts(study, trials, own).items():
        target.set_user_attr(key, value)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        target.set_metric_names([METRICS[metric].quantity for metric in objectives])
    new = [trial for trial in wanted if trial.user_attrs["trial"] not in known]
    target.add_trials(new)
    return Mirrored(name, len(wanted), len(new), rewritten)


def _present(study: Study, storage: BaseStorage, name: str) -> optuna.Study | None:
    if name not in optuna.get_all_study_names(storage):
        return None
    found = optuna.load_study(study_name=name, storage=storage)
    if found.user_attrs.get(_OWNER) != study.id:
        raise ConflictError(
            f"the storage already holds a study {name!r} that is no mirror of {study.name}; give another --name"
        )
    return found


def _directions(study: optuna.Study) -> list[str]:
    return [direction.name.lower() for direction in study.directions]


def _begins(present: optuna.Study, wanted: Sequence[FrozenTrial]) -> bool:
    """Return whether each trial there is as it should be, so that only others are missing."""
    known = {trial.user_attrs["trial"]: _content(trial) for trial in wanted}
    return all(known.get(trial.user_attrs.get("trial")) == _content(trial) for trial in present.get_trials())


def _content(trial: FrozenTrial) -> tuple[Any, ...]:
    times = (trial.datetime_start, trial.datetime_complete)
    values = (trial.values, trial.params, trial.distributions, trial.intermediate_values, trial.constraints)
    return (trial.state, *times, *values, trial.user_attrs)


def mirrored_trial(
    study: Study, trial: Trial, objectives: Sequence[str], own: Mapping[str, str]
) -> FrozenTrial | None:
    """Return an ended search trial in Optuna's form, with its times, networks and scores; None for any other trial."""
    definition = study.definition
    told = to_optuna_trial(trial, definition, own)
    if told is None:
        return None
    scores = told_values(trial.candidates, told_kind(definition), own)
    values = [scores[name] for name in objectives if name in scores]
    complete = told.state is optuna.trial.TrialState.COMPLETE and len(values) == len(objectives)
    failed = told.state is not optuna.trial.TrialState.PRUNED and not complete
    epochs = _epochs(trial, objectives[0]) if len(objectives) == 1 else {}
    last = [epochs[max(epochs)]] if epochs else None  # what Optuna itself stores for a pruned trial
    started = trial.started_at or trial.ended_at
    found = FrozenTrial(
        number=-1,
        trial_id=-1,
        state=optuna.trial.TrialState.FAIL if failed else told.state,
        value=None,
        values=values if complete else None if failed else last,
        datetime_start=_local(started),
        datetime_complete=_local(trial.ended_at),
        params=told.params,
        distributions=optuna_space(definition),
        user_attrs=_attributes(trial, scores),
        system_attrs={},
        intermediate_values=epochs,
    )
    for limit, violation in told.constraints.items():
        found.set_constraint(limit, violation)
    return found


def _epochs(trial: Trial, metric: str) -> dict[int, float]:
    """Return the metric after each epoch; nothing for a metric that no epoch has."""
    name = EPOCH_SCORES.get(metric, metric)
    return {record.epoch: record.metrics[name] for record in trial.history if name in record.metrics}


def _local(moment: datetime | None) -> datetime | None:
    """Return a time as Optuna has it: of this machine's zone, without saying so."""
    return None if moment is None else moment.astimezone().replace(tzinfo=None)


def _attributes(trial: Trial, scores: Mapping[str, float]) -> dict[str, Any]:
    networks = [
        {
            "architecture": candidate.architecture.id,
            "active_channels": {split.layer: split.active_channels for split in candidate.splits},
            "ratios": {split.layer: split.ratio for split in candidate.splits},
        }
        for candidate in trial.candidates
    ]
    facts: dict[str, Any] = {"trial": trial.number, "seed": trial.seed, **scores}
    if len(networks) == 1:
        facts |= networks[0]
    elif networks:
        facts["networks"] = networks
    if trial.fidelity is not None:
        facts |= {"epochs_trained": trial.fidelity.epochs, "epochs_planned": trial.fidelity.budget}
    if trial.reason:
        facts["reason"] = trial.reason
    return facts


def _facts(study: Study, trials: Sequence[Trial], own: Mapping[str, str]) -> dict[str, Any]:
    kind = told_kind(study.definition)
    baselines = {
        trial.label: told_values(trial.candidates, kind, own) for trial in trials if trial.kind is TrialKind.BASELINE
    }
    return {
        _OWNER: study.id,
        "nas_study": study.name,
        "state": study.state.value,
        "definition": study.definition.to_yaml(),
        "baselines": {label: scores for label, scores in baselines.items() if scores},
        "report": list(study.report),
    }
