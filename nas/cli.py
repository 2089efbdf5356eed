"""The command ``nas``: one entry point, errors in one line, meaningful exit codes.

Exit codes: 0 success, 1 a failed job, 2 invalid input, 130 interrupted. ``NAS_DEBUG=1`` shows tracebacks.
Importing this module loads neither torch nor ray; each command loads what it needs when it runs.
"""

from __future__ import annotations

import importlib
import inspect
import io
import logging
import os
import sys
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Annotated, Any

import typer
from pydantic import ValidationError
from typer.core import TyperGroup

from nas.commands.options import OwnProcess
from nas.errors import NasError, explain
from nas.host.garbage import search_rarely
from nas.host.interrupts import interrupt_on_signals, say_interrupted
from nas.versions import own_version
from partialnet.errors import PartialNetError, TrainingDiverged


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"nas {own_version()}")
        raise typer.Exit


def _top(
    show_version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    """Neural architecture search over learned split ratios.

    \b
    A first search, from definition to exported network:
      nas run studies/digits_quickstart.yaml
      nas pareto latest --plot front.html
      nas export latest 3 --out my-network
      nas predict my-network image.png
    """


class _Commands(TyperGroup):
    """All commands. typer ends without a word at an interruption that none of them handles; we say so."""

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        """Read the arguments, at which modules load as well."""
        try:
            return super().make_context(info_name, args, parent, **extra)
        except KeyboardInterrupt:
            raise typer.Abort from None

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise typer.Abort from None


class _ShowsStudy(TyperGroup):
    """``nas study NAME`` is short for ``nas study show NAME``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put ``show`` before the name of a study."""
        if not args or args[0] not in (*self.commands, *ctx.help_option_names):
            args = ["show", *args]
        return super().parse_args(ctx, args)


_PANELS: Mapping[str, Mapping[str, str]] = MappingProxyType({
    "Search": {
        "run": "run:run", "studies": "studies:studies", "pareto": "pareto:pareto", "trial": "trial:trial",
        "report": "report:report", "pause": "control:pause", "resume": "control:resume", "stop": "control:stop",
        "optuna-mirror": "optuna_mirror:optuna_mirror",
    },
    "Networks": {
        "model": "model:model", "cam": "cam:cam", "bench": "bench:bench", "export": "export:export",
        "predict": "predict:predict", "train": "train:train",
    },
    "Service and data": {
        "serve": "serve:serve", "worker": "worker:worker", "datasets": "datasets:datasets", "doctor": "doctor:doctor",
        "gc": "gc:gc", "pin": "gc:pin",
    },
})  # fmt: skip
"""Commands by panel of the help, with module and function of each."""


@dataclass(frozen=True)
class _Group:
    panel: str
    help: str
    commands: Mapping[str, str]
    shows_study: bool = False


_GROUPS: Mapping[str, _Group] = MappingProxyType({
    "probe": _Group(
        "Networks", "Measure latency: networks, tables of a device, another machine.",
        {"network": "probe:network", "table": "probe:table", "serve": "probe:serve"},
    ),
    "db": _Group(
        "Service and data", "Check and upgrade the database's schema.", {"status": "db:status", "upgrade": "db:upgrade"}
    ),
    "study": _Group(
        "Search", "Show a study (nas study NAME), or pack and unpack whole ones.",
        {"show": "study:study", "export": "study:export", "import": "study:import_"}, shows_study=True,
    ),
    "trainings": _Group(
        "Networks", "List, show, stop, resume and delete the trainings of a database or a service.",
        {
            "list": "trainings:listed", "show": "trainings:show", "stop": "trainings:stop",
            "resume": "trainings:resume", "package": "trainings:package", "delete": "trainings:delete",
        },
    ),
    "token": _Group(
        "Service and data", "Create, list and revoke the tokens of the service.",
        {"create": "token:create", "list": "token:listed", "revoke": "token:revoke", "link": "token:link"},
    ),
})  # fmt: skip
"""Groups of commands."""


def make_app(wanted: str | None = None) -> typer.Typer:
    """Return the command with its sub-commands.

    Args:
        wanted: Name of the only sub-command or group that the caller runs, whose module alone is then loaded; any
            other text stands for all.
    """
    app = typer.Typer(
        name="nas",
        cls=_Commands,
        callback=_top,
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode="rich",
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    known = wanted in _GROUPS or any(wanted in commands for commands in _PANELS.values())
    for panel, commands in _PANELS.items():
        _add(app, {name: place for name, place in commands.items() if not known or name == wanted}, panel)
    for name, group in _GROUPS.items():
        if not known or name == wanted:
            kind = _ShowsStudy if group.shows_study else TyperGroup
            below = typer.Typer(cls=kind, help=group.help, no_args_is_help=True)
            _add(below, group.commands)
            app.add_typer(below, name=name, rich_help_panel=group.panel)
    return app


def _add(app: typer.Typer, commands: Mapping[str, str], panel: str | None = None) -> None:
    for name, place in commands.items():
        module, function = place.split(":")
        command = getattr(importlib.import_module(f"nas.commands.{module}"), function)
        app.command(name, help=_unwrapped(command), rich_help_panel=panel)(command)


def _unwrapped(command: Callable[..., None]) -> str:
    """Return a command's docstring with each paragraph in one line, so that the terminal's width decides the line
    breaks.

    Paragraphs that begin with ``\\b``, such as examples, stay as they are.
    """
    paragraphs = inspect.cleandoc(command.__doc__ or "").split("\n\n")
    return "\n\n".join(text if text.startswith("\b") else " ".join(text.split()) for text in paragraphs)


def main() -> None:
    """Run the command line and exit."""
    interrupt_on_signals()
    search_rarely()
    if not os.environ.get("NAS_DEBUG"):
        # These warnings are meant for developers of the libraries, not for users of the command.
        warnings.filterwarnings("ignore", category=FutureWarning)
        warnings.filterwarnings("ignore", category=DeprecationWarning)
    if isinstance(sys.stdout, io.TextIOWrapper):  # a name may hold what the terminal's encoding does not know
        sys.stdout.reconfigure(errors="backslashreplace")
    logging.basicConfig(level=logging.INFO if os.environ.get("NAS_DEBUG") else logging.ERROR, stream=sys.stderr)
    try:
        sys.exit(_invoke(OwnProcess()))
    except BrokenPipeError:
        # The reader of our output (head, less) has gone, which is no error. Python would complain at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)


def _invoke(process: OwnProcess | None = None) -> int:
    # the root of click's usage errors: typer brings its own copy of click, whose place changes between releases
    usage_error = typer.BadParameter.__mro__[1]
    try:
        code = make_app(next(iter(sys.argv[1:]), None))(standalone_mode=False, prog_name="nas", obj=process)
    except KeyboardInterrupt:
        return say_interrupted()
    except typer.Abort:
        return say_interrupted()
    except BrokenPipeError:
        raise
    except Exception as error:
        if os.environ.get("NAS_DEBUG"):
            raise
        if isinstance(error, usage_error):
            return _usage(error)
        return _fail(*_explain(error))
    return code if isinstance(code, int) else 0


def _explain(error: Exception) -> tuple[str, int]:
    """Return an error in one line (one for each fault of a definition), and the exit code."""
    if isinstance(error, NasError):
        return explain(error), error.exit_code
    if isinstance(error, PartialNetError):
        return explain(error), 1 if isinstance(error, TrainingDiverged) else 2
    return f"unexpected {type(error).__name__}: {' '.join(str(error).split())} (NAS_DEBUG=1 shows where)", 1


def _usage(error: Exception) -> int:
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "nas"
    message = getattr(error, "format_message", lambda: str(error))()
    if type(error).__name__ == "NoArgsIsHelpError":
        print(message)
        return 2
    cause = error.__cause__
    if isinstance(cause, ValidationError):  # typer's message says what would be right, but not the given value
        message = f"{message.rstrip('.')}, but got {cause.errors()[0]['input']!r}"
    return _fail(f"{' '.join(message.split()).rstrip('.')}; see `{command} --help`", 2)


def _fail(message: str, code: int) -> int:
    for line in message.splitlines() or [""]:
        print(f"nas: {line}", file=sys.stderr)
    return code


if __name__ == "__main__":
    main()
