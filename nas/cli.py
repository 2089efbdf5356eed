"""The command ``nas``: one entry point, errors in one line, meaningful exit codes.

Exit codes: 0 success, 1 a failed job, 2 invalid input, 130 interrupted. ``NAS_DEBUG=1`` shows tracebacks.
Importing this module loads neither torch nor ray; each command loads what it needs when it runs.
"""

from __future__ import annotations

import inspect
import io
import logging
import os
import sys
import warnings
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import typer
from pydantic import ValidationError
from typer.core import TyperGroup

from nas.commands import study as study_commands
from nas.commands import trainings as training_commands
from nas.commands.bench import bench
from nas.commands.cam import cam
from nas.commands.control import pause, resume, stop
from nas.commands.datasets import datasets
from nas.commands.db import status, upgrade
from nas.commands.doctor import doctor
from nas.commands.export import export
from nas.commands.gc import gc, pin
from nas.commands.model import model
from nas.commands.options import OwnProcess
from nas.commands.optuna_mirror import optuna_mirror
from nas.commands.pareto import pareto
from nas.commands.predict import predict
from nas.commands.probe import network, table
from nas.commands.probe import serve as probe_serve
from nas.commands.report import report
from nas.commands.run import run
from nas.commands.serve import serve
from nas.commands.studies import studies
from nas.commands.token import create, link, listed, revoke
from nas.commands.train import train
from nas.commands.trial import trial
from nas.commands.worker import worker
from nas.errors import NasError, explain
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


class _ShowsStudy(TyperGroup):
    """``nas study NAME`` is short for ``nas study show NAME``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put ``show`` before the name of a study."""
        if not args or args[0] not in (*self.commands, *ctx.help_option_names):
            args = ["show", *args]
        return super().parse_args(ctx, args)


def make_app() -> typer.Typer:
    """Return the command with all its sub-commands."""
    app = typer.Typer(
        name="nas",
        callback=_top,
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode="rich",
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    panels: dict[str, tuple[Callable[..., None], ...]] = {
        "Search": (run, studies, pareto, trial, report, pause, resume, stop, optuna_mirror),
        "Networks": (model, cam, bench, export, predict, train),
        "Service and data": (serve, worker, datasets, doctor, gc, pin),
    }
    for panel, commands in panels.items():
        for command in commands:
            app.command(help=_unwrapped(command), rich_help_panel=panel)(command)
    probe = typer.Typer(help="Measure latency: networks, tables of a device, another machine.", no_args_is_help=True)
    probes: dict[str, Callable[..., None]] = {"network": network, "table": table, "serve": probe_serve}
    _add_all(probe, probes)
    app.add_typer(probe, name="probe", rich_help_panel="Networks")
    database = typer.Typer(help="Check and upgrade the database's schema.", no_args_is_help=True)
    for command in (status, upgrade):
        database.command(help=_unwrapped(command))(command)
    app.add_typer(database, name="db", rich_help_panel="Service and data")
    study = typer.Typer(cls=_ShowsStudy, help="Show a study (nas study NAME), or pack and unpack whole ones.")
    wholes: dict[str, Callable[..., None]] = {
        "show": study_commands.study, "export": study_commands.export, "import": study_commands.import_
    }  # fmt: skip
    _add_all(study, wholes)
    app.add_typer(study, name="study", rich_help_panel="Search")
    trainings = typer.Typer(help="List, show, stop, resume and delete the trainings of a database or a service.")
    of_training: dict[str, Callable[..., None]] = {
        "list": training_commands.listed, "show": training_commands.show, "stop": training_commands.stop,
        "resume": training_commands.resume, "package": training_commands.package, "delete": training_commands.delete,
    }  # fmt: skip
    _add_all(trainings, of_training)
    app.add_typer(trainings, name="trainings", rich_help_panel="Networks")
    tokens = typer.Typer(help="Create, list and revoke the tokens of the service.", no_args_is_help=True)
    _add_all(tokens, {"create": create, "list": listed, "revoke": revoke, "link": link})
    app.add_typer(tokens, name="token", rich_help_panel="Service and data")
    return app


def _add_all(app: typer.Typer, commands: Mapping[str, Callable[..., None]]) -> None:
    for name, command in commands.items():
        app.command(name, help=_unwrapped(command))(command)


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
        code = make_app()(standalone_mode=False, prog_name="nas", obj=process)
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
