"""Checks data and targets before a study is created, in a process of its own: they need torch, which stays out here."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from nas.definition.requested_training import RequestedTraining
from nas.definition.sections import DataSpec
from nas.definition.study import StudyDefinition
from nas.errors import DefinitionError, LimitError

log = logging.getLogger(__name__)

CHECK_SECONDS = 60.0
_TURN_SECONDS = 10.0  # that a look waits for another check; its writer looks again with the next change
_MOST_LOOKS = 4  # that wait together: each holds a thread, and all requests share few of them
_MOST_LAUNCHES = 8  # that wait together, for the same reason
_LAUNCH_SECONDS = 120.0  # that a launch waits for the checks before it
_KNOWN = 32
_UNSEEN = ("name", "question", "expected_time")  # keys that no check looks at


@dataclass(frozen=True)
class Look:
    """What a check of data and targets found.

    Args:
        faults: A line for each fault.
        notes: Sentences about the networks, such as the reachable targets.
        reference_point: Reference point of the hypervolume by metric; None if it is still unknown.
    """

    faults: tuple[str, ...]
    notes: tuple[str, ...]
    reference_point: dict[str, float] | None


class LaunchCheck:
    """Checks definitions where the data are: beside the embedded worker.

    Args:
        environment: Environment of the check, with the data roots.
        active: Whether definitions are checked; elsewhere, the search does it before its first trial.
    """

    def __init__(self, environment: Mapping[str, str], *, active: bool) -> None:
        self._environment = dict(environment)
        self._active = active
        self._turn = threading.Lock()  # each check holds torch in memory
        self._looks = threading.BoundedSemaphore(_MOST_LOOKS)
        self._launches = threading.BoundedSemaphore(_MOST_LAUNCHES)
        self._known: OrderedDict[str, Look] = OrderedDict()

    def reference_point(self, definition: StudyDefinition) -> dict[str, float] | None:
        """Check a definition, and return the reference point of its hypervolume; None if it is still unknown.

        Raises:
            DefinitionError: If the data are missing or damaged, or no target can be reached; a line for each fault.
            LimitError: If too many launches are being checked.
        """
        if not self._active:
            return None
        with self._launch_turn():
            found = self._ask(definition)
        if found is None:
            return None
        _refuse("definition", found.faults)
        return found.reference_point

    def look(self, definition: StudyDefinition) -> Look | None:
        """Check a definition that is being written; None if it cannot be checked here or now.

        A definition whose check found no fault is not checked again.
        """
        if not self._active:
            return None
        seen = {key: value for key, value in definition.to_dict().items() if key not in _UNSEEN}
        key = json.dumps(seen, sort_keys=True)
        known = self._known.get(key)
        if known is not None:
            return known
        if not self._looks.acquire(blocking=False):
            return None
        try:
            if not self._turn.acquire(timeout=_TURN_SECONDS):
                return None
            try:
                found = self._known.get(key) or self._ask(definition)
            finally:
                self._turn.release()
        finally:
            self._looks.release()
        if found is not None and not found.faults:
            self._known[key] = found
            if len(self._known) > _KNOWN:
                self._known.popitem(last=False)
        return found

    def check_training(self, wanted: RequestedTraining, data: DataSpec) -> None:
        """Check the data and the package of a training.

        Raises:
            DefinitionError: If they are missing or damaged; a line for each fault.
            LimitError: If too many launches are being checked.
        """
        if not self._active:
            return
        request = {"data": data.model_dump(mode="json"), "package": wanted.package}
        with self._launch_turn():
            found = self._run("nas.training.precheck_training", request, "a training")
        if found is not None:
            _refuse("training", found["faults"])

    @contextmanager
    def _launch_turn(self) -> Iterator[None]:
        """Wait for the turn of a launch; inside the block, no other check runs."""
        if not self._launches.acquire(blocking=False):
            raise LimitError(
                f"the data and targets of {_MOST_LAUNCHES} launches are being checked already; nothing was launched: "
                "send this one again in some seconds"
            )
        try:
            if not self._turn.acquire(timeout=_LAUNCH_SECONDS):
                raise LimitError(
                    f"the checks of other launches take over {_LAUNCH_SECONDS:.0f} s; nothing was launched: "
                    "send this one again later"
                )
            try:
                yield
            finally:
                self._turn.release()
        finally:
            self._launches.release()

    def _ask(self, definition: StudyDefinition) -> Look | None:
        found = self._run("nas.training.precheck", definition.to_dict(), definition.name)
        if found is None:
            return None
        return Look(tuple(found["faults"]), tuple(found["notes"]), found["reference_point"])

    def _run(self, module: str, request: Mapping[str, Any], name: str) -> dict[str, Any] | None:
        command = [sys.executable, "-m", module]
        text = json.dumps(request)
        try:
            done = subprocess.run(
                command, input=text, env=self._environment, capture_output=True, encoding="utf-8",
                timeout=CHECK_SECONDS, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            log.warning("the check of %s takes over %.0f s; its job does it", name, CHECK_SECONDS)
            return None
        if done.returncode != 0:
            log.error("the check of %s failed with %d: %s", name, done.returncode, done.stderr[-2000:])
            return None
        answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return answer


def _refuse(place: str, faults: Sequence[str]) -> None:
    if faults:
        raise DefinitionError("\n".join(f"{place}: {' '.join(fault.split())}" for fault in faults))
