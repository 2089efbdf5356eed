"""Checks data and targets before a study is created, in a process of its own: they need torch, which stays out here."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import threading
from collections.abc import Mapping
from typing import Any

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
        found = self._ask(definition)
        if found is None:
            return None
        if found["faults"]:
            raise DefinitionError("\n".join(f"definition: {' '.join(fault.split())}" for fault in found["faults"]))
        point: dict[str, float] | None = found["reference_point"]
        return point

    def _ask(self, definition: StudyDefinition) -> dict[str, Any] | None:
        command = [sys.executable, "-m", "nas.training.precheck"]
        text = json.dumps(definition.to_dict())
        with self._turn:
            try:
                done = subprocess.run(
                    command, input=text, env=self._environment, capture_output=True, encoding="utf-8",
                    timeout=CHECK_SECONDS, check=False,
                )  # fmt: skip
            except subprocess.TimeoutExpired:
                log.warning("the check of %s takes over %.0f s; its search does it", definition.name, CHECK_SECONDS)
                return None
        if done.returncode != 0:
            log.error("the check of %s failed with %d: %s", definition.name, done.returncode, done.stderr[-2000:])
            return None
        answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return answer
