"""Ray for one search: started privately and quietly, or joined; what fits on it; and the run of its trials."""

from __future__ import annotations

import logging
import math
import os
import secrets
import socket
import tempfile
import uuid
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

from nas.errors import InputError, NasError
from nas.scratch import scratch_folder, sweep_leftovers

# Read by Ray: no reports to its makers, no signal handler and no log files of its own, no change of folder; patience
# with a trial that returns on a busy machine, because the next one would be dropped without a word.
_ENVIRONMENT: Mapping[str, str] = MappingProxyType(
    {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_CHDIR_TO_TRIAL_DIR": "0",
        "RAY_AIR_NEW_OUTPUT": "0",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
        "TUNE_DISABLE_SIGINT_HANDLER": "1",
        "TUNE_FUNCTION_THREAD_TIMEOUT_S": "60",
        "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
        "TUNE_GLOBAL_CHECKPOINT_S": "86400",
        "TUNE_WARN_INSUFFICENT_RESOURCE_THRESHOLD_S": "86400",
    }
)
_OBJECT_STORE_BYTES = 128 * 2**20
_LONGEST_BASE = 23  # + 17 of our folder + 43 of Ray's session + 21 of a socket is below 107
_SHORT_FOLDERS = ("/tmp", "/var/tmp", "/dev/shm")  # noqa: S108  our folder in them is made by mkdtemp
_ANSWER_SECONDS = 5.0


@contextmanager
def quiet_ray() -> Iterator[None]:
    """Keep Ray's own messages out of the terminal; what matters is in the tables."""
    with _environment(_ENVIRONMENT):
        import ray  # noqa: F401  # importing it sets up its logger

        logger = logging.getLogger("ray")
        level = logger.level
        logger.setLevel(logging.CRITICAL)
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", module=r"ray\b.*")
                yield
        finally:
            logger.setLevel(level)


@contextmanager
def _environment(changes: Mapping[str, str | None]) -> Iterator[None]:
    """Set environment variables, or unset those that are None, and put them back afterwards."""
    before = {name: os.environ.get(name) for name in changes}
    _set_environment(changes)
    try:
        yield
    finally:
        _set_environment(before)


def _set_environment(values: Mapping[str, str | None]) -> None:
    for name, value in values.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


@contextmanager
def _own_token() -> Iterator[None]:
    """Let the next private Ray ask for a token that only this process and its children know.

    Ray's default is one token for all of a user's clusters, in a file that other users may be able to read. A private
    Ray asks for a token unless the environment says otherwise, so what it says is put aside.
    """
    from ray._raylet import AuthenticationTokenLoader  # type: ignore[attr-defined]  # compiled

    loader = AuthenticationTokenLoader.instance()
    with _environment({"RAY_AUTH_MODE": None, "RAY_AUTH_TOKEN": secrets.token_hex(32), "RAY_AUTH_TOKEN_PATH": None}):
        loader.reset_cache()
        yield
    loader.reset_cache()


@contextmanager
def ray_session(address: str | None = None, *, cpus: float | None = None, gpus: float | None = None) -> Iterator[None]:
    """Start a private Ray on this machine, or join the cluster at ``address``; one that runs already is used as it is.

    A private Ray has neither dashboard nor usage reports, asks every client for a token, and its files go when it ends.

    Args:
        address: Of a cluster; absent for a private Ray.
        cpus: To declare instead of what the machine has.
        gpus: To declare instead of what the machine has; they need not exist.

    Raises:
        InputError: If nothing answers at ``address``.
        InputError: If there is no place for the sockets of a private Ray.
        NasError: If a private Ray does not start.
    """
    import ray

    if ray.is_initialized():
        yield
        return
    common: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL, "configure_logging": False}
    if address is not None and address != "local":
        check_address(address)
        try:
            ray.init(address=address, **common)
            yield
        finally:
            ray.shutdown()
        return
    base = socket_base()
    sweep_leftovers([base])
    with scratch_folder("ray", base) as folder, _own_token():
        local = {"include_dashboard": False, "object_store_memory": _OBJECT_STORE_BYTES, "_temp_dir": str(folder)}
        try:
            start_patiently(lambda: ray.init(address="local", num_cpus=cpus, num_gpus=gpus, **local, **common))
            yield
        finally:
            ray.shutdown()


def socket_base() -> Path:
    """Return a folder whose name leaves room for those of Ray's sockets, which have at most 107 characters in all.

    It is the system's folder for temporary files, or where that has a long name, one of those that every system has.

    Raises:
        InputError: If there is none that may be written.
    """
    asked = tempfile.gettempdir()
    for place in (asked, *_SHORT_FOLDERS):
        if len(os.fsencode(place)) <= _LONGEST_BASE and Path(place).is_dir() and os.access(place, os.W_OK | os.X_OK):
            return Path(place)
    raise InputError(
        f"TMPDIR is {asked}, of {len(os.fsencode(asked))} characters, but Ray's sockets need a folder of at most "
        f"{_LONGEST_BASE}, and none of {', '.join(_SHORT_FOLDERS)} may be written; set TMPDIR to a shorter one"
    )


def start_patiently(init: Callable[[], object], attempts: int = 3) -> None:
    """Start a private Ray; again where it was too slow for Ray's own patience of 30 s, as on a machine that is busy.

    Raises:
        NasError: If it was too slow every time.
    """
    import ray

    for attempt in range(attempts):
        try:
            init()
            return
        except Exception as error:  # what Ray raises here is an Exception, no more
            ray.shutdown()
            if "timed out during startup" not in str(error):
                raise
            if attempt == attempts - 1:
                raise NasError(
                    f"Ray did not start within 30 s, {attempts} times in a row: this machine is too busy; try again "
                    "when it does less, or with fewer searches at a time"
                ) from error


def check_address(address: str) -> None:
    """Check that something answers at a cluster's address: Ray itself tries for minutes, deaf to Ctrl-C.

    Args:
        address: ``HOST:PORT``; ``auto`` and ``local`` are Ray's to look up.

    Raises:
        InputError: If it is no address, or nothing answers there.
    """
    if address in ("auto", "local"):
        return
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise InputError(f"Ray address {address!r} must be HOST:PORT, such as 10.0.0.5:6379, or 'auto'")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_ANSWER_SECONDS).close()
    except OSError as error:
        raise InputError(
            f"no Ray cluster answers at {address} ({error.strerror or error}); is it running, and is the address right?"
        ) from None


def fitting_trials(resources: Mapping[str, float], cpus: float, gpus: float) -> int:
    """Return how many trials fit at once on a cluster.

    Args:
        resources: Ray's count of the cluster.
        cpus: Per trial.
        gpus: Per trial: a fraction of one, or a whole number.

    Raises:
        InputError: If not even one does; says what it asks for and what there is.
    """
    if gpus > 1 and gpus != int(gpus):
        raise InputError(f"sweep.gpus_per_trial is {gpus:g}, but must be a fraction of one GPU or a whole number")
    shares = [math.floor(resources.get("CPU", 0.0) / cpus + 1e-9)]
    if gpus > 0:
        there = resources.get("GPU", 0.0)
        # A trial lies on one GPU: two of 0.3 and a half-free one do not add up.
        shares.append(math.floor(there / gpus + 1e-9) if gpus >= 1 else int(there) * math.floor(1 / gpus + 1e-9))
    if min(shares) < 1:
        raise InputError(
            f"a trial asks for {cpus:g} CPUs and {gpus:g} GPUs, but there are {resources.get('CPU', 0):g} and "
            f"{resources.get('GPU', 0):g}; lower sweep.cpus_per_trial or sweep.gpus_per_trial"
        )
    return min(shares)


class _Stopper:
    """Ends all trials once ``closed`` returns true."""

    def __init__(self, closed: Callable[[], bool]) -> None:
        self._closed = closed

    def __call__(self, _trial_id: str, _result: Mapping[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        return self._closed()

    def __reduce__(self) -> tuple[type[object], tuple[()]]:
        return object, ()


def run_trials(
    trainable: Callable[..., None],
    context: Any,
    searcher: Any,
    recorder: Any,
    *,
    name: str,
    cpus: float,
    gpus: float,
    concurrent: int,
    stop: Callable[[], bool],
) -> None:
    """Run trials until the searcher has no more or ``stop`` returns true. Ray must have been started.

    Processes are used again for trial after trial: starting one and importing torch takes longer than many an epoch.

    Args:
        trainable: A function of a config and ``context``, by name importable wherever trials run.
        context: Goes to the trials once, through Ray's object store.
        searcher: Ray's kind.
        recorder: Ray's kind of callback.
        name: Of the experiment, made unique here.
        cpus: Per trial.
        gpus: Per trial.
        concurrent: Trials at once.
        stop: Asked several times a second; ends what runs.
    """
    from ray import tune

    stopper = type("Stopper", (_Stopper, tune.Stopper), {})(stop)
    resources = {"cpu": cpus, **({"gpu": gpus} if gpus else {})}
    with scratch_folder("tune") as folder:
        tuner = tune.Tuner(
            tune.with_resources(tune.with_parameters(trainable, context=context), resources),
            tune_config=tune.TuneConfig(
                search_alg=searcher,
                num_samples=-1,
                max_concurrent_trials=concurrent,
                reuse_actors=True,
                trial_dirname_creator=lambda trial: f"trial-{trial.trial_id}",
            ),
            run_config=tune.RunConfig(
                name=f"{name}-{uuid.uuid4().hex[:12]}",
                storage_path=str(folder),
                verbose=0,
                callbacks=[recorder],
                stop=stopper,
            ),
        )
        tuner.fit()
