"""The command ``nas`` in this process: what it prints, and its exit code."""

from __future__ import annotations

import io
import os
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest

Said = tuple[int, str, str]
"""Exit code, standard output, standard error."""


def forget_settings(patch: pytest.MonkeyPatch) -> None:
    """Unset the environment variables that the program reads."""
    for key in [key for key in os.environ if key.startswith("NAS_")]:
        patch.delenv(key)


def invoke(*arguments: str | Path, cwd: Path | None = None) -> Said:
    """Run ``nas``, in the present folder if no other is given."""
    from nas.cli import _invoke

    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        if cwd is not None:
            patch.chdir(cwd)
        patch.setattr(sys, "argv", ["nas", *map(str, arguments)])
        code = _invoke()
    return code, out.getvalue(), err.getvalue()
