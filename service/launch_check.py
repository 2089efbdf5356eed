"""Checks data and targets before a study is created, in a process of its own: they need torch, which stays out here."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from typing import Any

from nas.definition.requested_training import RequestedTraining
from nas.definition.sections import DataSpec
from nas.definition.study import StudyDefinition
from nas.errors import DefinitionError

log = logging.getLogger(__name__)

CHECK_SECONDS = 60.0


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

    def reference_point(self, definition: StudyDefinition) -> dict[str, float] | None:
        """Check a definition, and return the reference point of its hypervolume; None if it is still unknown.

        Raises:
            DefinitionError: If the data are missing or damaged, or no target can be reached; a line for each fault.
        """
        if not self._active:
            return None
        found = self._ask("nas.training.precheck", definition.to_dict(), definition.name)
        if found is None:
            return None
        _refuse("definition", found["faults"])
        point: dict[str, float] | None = found["reference_point"]
        return point

    def check_training(self, wanted: RequestedTraining, data: DataSpec) -> None:
        """Check the data and the package of a training.

        Raises:
            DefinitionError: If they are missing or damaged; a line for each fault.
        """
        if not self._active:
            return
        request = {"data": data.model_dump(mode="json"), "package": wanted.package, "start": wanted.start}
        found = self._ask("nas.training.precheck_training", request, "a training")
        if found is not None:
            _refuse("training", found["faults"])

    def _ask(self, module: str, request: Mapping[str, Any], name: str) -> dict[str, Any] | None:
        command = [sys.executable, "-m", module]
        text = json.dumps(request)
        with self._turn:
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
