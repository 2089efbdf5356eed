"""``nas doctor``: what is installed, what can be reached, and what is wrong."""

from __future__ import annotations

import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated

import typer

from nas.commands.options import (
    AsJson,
    Database,
    DataRoots,
    RayAddress,
    Storage,
    console,
    note,
    say,
    settings_from,
)
from nas.errors import as_name
from nas.formatting import format_number

_STYLES: Mapping[str, str] = MappingProxyType({"note": "yellow", "wrong": "bold red"})


def doctor(
    start_ray: Annotated[
        bool, typer.Option("--start-ray", help="Start a private Ray (or join the cluster) and end it: some seconds.")
    ] = False,
    as_json: AsJson = False,
    database: Database = None,
    storage: Storage = None,
    data_root: DataRoots = None,
    ray_address: RayAddress = None,
) -> None:
    """Check the installation: packages, database, storage, disks, data sets, GPUs, shared memory, limits, Ray.

    The exit code is 1 if something is wrong; each such line says what to do. Nothing is changed.

    \b
    Examples:
      nas doctor
      nas doctor --start-ray --database postgresql://user@host/nas
      nas doctor --json
    """
    from nas.housekeeping.doctor import Verdict, examine

    settings = settings_from(database, storage, data_root, ray_address=ray_address)
    found, out = [], console()
    for finding in examine(settings, start_ray=start_ray):
        found.append(finding)
        if not as_json:
            mark = "WRONG" if finding.verdict is Verdict.WRONG else finding.verdict.value
            say(out, f"{mark:5}  {finding.name}: {as_name(finding.text)}", style=_STYLES.get(finding.verdict.value))
            if finding.remedy:
                say(out, f"{'':7}{finding.remedy}")
    wrong = [finding for finding in found if finding.verdict is Verdict.WRONG]
    if as_json:
        print(json.dumps({"findings": [vars(finding) for finding in found], "wrong": len(wrong)}, indent=2))
    elif wrong:
        note(f"{format_number(len(wrong), 'check')} found something wrong")
    if wrong:
        raise typer.Exit(1)
