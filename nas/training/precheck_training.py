"""``python -m nas.training.precheck_training``: checks the data and the package of a training.

It reads one JSON object from standard input (``data``, ``package``), and writes one to standard output:
``faults``, a line for each with the key that it is about.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nas.definition.sections import DataSpec
from nas.errors import NasError
from nas.settings import Settings
from nas.training.packages import find_package
from partialnet.data import load
from partialnet.errors import PartialNetError


def precheck(request: Mapping[str, Any], data_roots: Sequence[Path]) -> dict[str, Any]:
    """Return all faults of a training's data and package.

    Args:
        request: Data section, and name of the package or None.
        data_roots: Folders to search for both.
    """
    faults = []
    spec = DataSpec.model_validate(request["data"])
    try:
        load(
            spec.name,
            data_roots,
            validation_fraction=spec.validation_fraction,
            train_limit=spec.train_limit,
            image_size=spec.image_size,
            folder=spec.folder,
            skip_broken=spec.skip_broken,
        )
    except PartialNetError as error:
        faults.append(f"data.name: {error}")
    if request["package"] is not None:
        try:
            _check_package(find_package(request["package"], data_roots))
        except (NasError, PartialNetError) as error:
            faults.append(f"package: {error}")
    return {"faults": faults}


def _check_package(folder: Path) -> None:
    from partialnet.package import load_package  # with all libraries of networks, which take two seconds

    load_package(folder)


def main() -> None:
    """Check the request of standard input."""
    json.dump(precheck(json.load(sys.stdin), Settings().data_roots), sys.stdout)


if __name__ == "__main__":
    main()
