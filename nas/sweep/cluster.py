"""Ray for one search: a private one or a cluster; the number of trials that fit; the run of the trials."""

from __future__ import annotations

import logging
import math
import os
import secrets
import shutil
import tempfile
import time
import uuid
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any

from nas.errors import ClusterFault, InputError, NasError
from nas.scratch import scratch_folder, sweep_leftovers
from nas.settings import LOCAL_RAY
from nas.sweep.joined import joined_ray, live_nodes

# Ray reads these: no usage reports, no signal handler, no log files, no change of the working folder; a cluster whose
# control store is gone ends the driver after 20 s; a training's end is seen soon, and its processes may take minutes to
# load torch; and patience with a trial that returns on a busy machine, because Ray would otherwise silently drop the
# next one.
_ENVIRONMENT: Mapping[str, str] = MappingProxyType(
    {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_CHDIR_TO_TRIAL_DIR": "0",
        "RAY_AIR_NEW_OUTPUT": "0",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        "RAY_gcs_rpc_server_reconnect_timeout_s": "20",
        "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
        "RAY_TRAIN_METRICS_ENABLED": "0",
        "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "300",
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
_LOOK_SECONDS = 2.0
_MOST_AT_ONCE = 1000  # without a number, Ray would start one trial after another
_SHORT_FOLDERS = ("/tmp", "/var/tmp", "/dev/shm")  # noqa: S108  mkdtemp creates our folder in them
# What Ray calls to start processes that copy logs to the driver, ask a cloud for machines and answer Ray's commands.
_UNUSED_PROCESSES = ("start_log_monitor", "start_monitor", "start_api_server")


@contextmanager
def quiet_ray() -> Iterator[None]:
    """Keep Ray's own messages out of the terminal inside the block; the tables hold the results."""
    with _environment(_ENVIRONMENT):
        import ray  # its import sets up its logger

        worker: Any = ray._private.worker
        printed = worker.print_to_stdstream
        worker.print_to_stdstream = lambda *_lines, **_options: None  # the loss of a node: pages of a raylet's log
        logger = logging.getLogger("ray")
        level = logger.level
        logger.setLevel(logging.CRITICAL)
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", module=r"ray\b.*")
                yield
        finally:
            logger.setLevel(level)
            worker.print_to_stdstream = printed


@contextmanager
def _environment(changes: Mapping[str, str | None]) -> Iterator[None]:
    """Set environment variables inside the block, or unset those that are None, and restore them at its end."""
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
    """Make a private Ray use a token that only this process and its children know, inside the block.

    By default, Ray uses one token for all of a user's clusters, in a file that other users may be able to read. Ray
    uses token authentication by default; we clear the variables that could switch it off.
    """
    from ray._raylet import AuthenticationTokenLoader  # type: ignore[attr-defined]  # compiled

    loader = AuthenticationTokenLoader.instance()
    with _environment({"RAY_AUTH_MODE": None, "RAY_AUTH_TOKEN": secrets.token_hex(32), "RAY_AUTH_TOKEN_PATH": None}):
        loader.reset_cache()
        yield
    loader.reset_cache()


@contextmanager
def ray_session(address: str = LOCAL_RAY, *, cpus: float | None = None, gpus: float | None = None) -> Iterator[None]:
    """Start a private Ray on this machine, or join the cluster at ``address``; a Ray that already runs is used as it
    is.

    A private Ray has no processes but those that run tasks, and demands a token from each client. Its files are deleted
    at its end.

    Args:
        address: Address of a cluster; ``local`` for a private Ray.
        cpus: Number of CPUs to declare; None for those of the machine.
        gpus: Number of GPUs to declare, which need not exist; None for those of the machine.

    Raises:
        ClusterFault: If the cluster at ``address`` cannot be joined.
        InputError: If no folder is suitable for the sockets of a private Ray.
        NasError: If a private Ray does not start.
    """
    import ray

    if ray.is_initialized():
        yield
        return
    common: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL, "configure_logging": False}
    if address != LOCAL_RAY:
        with joined_ray(address, _ENVIRONMENT, **common):
            yield
        return
    base = socket_base()
    sweep_leftovers([base])
    with scratch_folder("ray", base) as folder, _own_token():
        local = {"include_dashboard": False, "object_store_memory": _OBJECT_STORE_BYTES, "_temp_dir": str(folder)}
        try:
            with _without_unused_processes():
                start_patiently(lambda: ray.init(address="local", num_cpus=cpus, num_gpus=gpus, **local, **common))
            yield
        finally:
            ray.shutdown()


@contextmanager
def _without_unused_processes() -> Iterator[None]:
    """Make a Ray that is started inside the block leave out processes that a search does not use.

    Ray has no settings for them. Waiting for them is half of Ray's start, and each holds memory and polls all the time.
    """
    from ray._private.node import Node

    before = {name: getattr(Node, name) for name in _UNUSED_PROCESSES if hasattr(Node, name)}
    for name in before:
        setattr(Node, name, lambda _node, **_options: None)
    try:
        yield
    finally:
        for name, start in before.items():
            setattr(Node, name, start)


def socket_base() -> Path:
    """Return a folder whose name leaves room for those of Ray's sockets, which have at most 107 characters in total.

    It is the system's folder for temporary files; if its name is too long, a folder that all systems have.

    Raises:
        InputError: If there is no writable one.
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
    """Start a private Ray, with retries: on a busy machine it can exceed Ray's own limit of 30 s.

    Raises:
        NasError: If each attempt exceeded the limit.
    """
    import ray

    for attempt in range(attempts):
        try:
            init()
            return
        except Exception as error:  # Ray raises a plain Exception here
            ray.shutdown()
            if "timed out during startup" not in str(error):
                raise
            if attempt == attempts - 1:
                raise NasError(
                    f"Ray did not start within 30 s, {attempts} times in a row: the machine is busy; try again later "
                    "or with fewer searches at a time"
                ) from error


def fitting_trials(nodes: Sequence[Mapping[str, float]], cpus: float, gpus: float) -> int:
    """Return how many trials fit at once on the nodes of a cluster.

    Args:
        nodes: Resources of each node, as Ray reports them.
        cpus: Number of CPUs for each trial.
        gpus: Number of GPUs for each trial: a fraction of one, or a whole number.

    Raises:
        InputError: If not even one trial fits; the message gives its request and the resources.
    """
    if gpus > 1 and gpus != int(gpus):
        raise InputError(f"sweep.gpus_per_trial is {gpus:g}, but must be a fraction of one GPU or a whole number")
    count = sum(_fitting(node, cpus, gpus) for node in nodes)
    if count < 1:
        there = [tuple(node.get(name, 0.0) for name in ("CPU", "GPU")) for node in nodes]
        shown = " or ".join(f"{cpu:g} and {gpu:g}" for cpu, gpu in sorted(set(there), reverse=True)) or "none"
        where = "" if len(nodes) == 1 else " on a node"
        raise InputError(
            f"a trial asks for {cpus:g} CPUs and {gpus:g} GPUs, but there are {shown}{where}; "
            "lower sweep.cpus_per_trial or sweep.gpus_per_trial"
        )
    return count


def _fitting(resources: Mapping[str, float], cpus: float, gpus: float) -> int:
    shares = [math.floor(resources.get("CPU", 0.0) / cpus + 1e-9)]
    if gpus > 0:
        there = resources.get("GPU", 0.0)
        # A trial uses one GPU: free parts of several GPUs do not add up to one share.
        shares.append(math.floor(there / gpus + 1e-9) if gpus >= 1 else int(there) * math.floor(1 / gpus + 1e-9))
    return min(shares)


class Places:
    """The number of trials that may run at once on a cluster; nodes may come and go.

    Args:
        cpus: Number of CPUs for each trial.
        gpus: Number of GPUs for each trial.
        most: Greatest number; None for as many as fit.
        fixed: Whether the nodes stay the same, as in a private Ray.

    Raises:
        InputError: If not even one trial fits on a fixed node.
        ClusterFault: If not even one trial fits at present.
    """

    def __init__(self, cpus: float, gpus: float, most: int | None, *, fixed: bool) -> None:
        self._request = (cpus, gpus)
        self._most = most
        self._fixed = fixed
        self._looked_at = time.monotonic()
        try:
            self._count = self._limited(fitting_trials([node["Resources"] for node in live_nodes()], cpus, gpus))
        except InputError as error:
            if fixed:
                raise
            raise ClusterFault(str(error)) from error

    def __call__(self) -> int:
        """Return the number; it is counted again every few seconds."""
        if not self._fixed and time.monotonic() - self._looked_at > _LOOK_SECONDS:
            self._looked_at = time.monotonic()
            self._count = self._limited(sum(_fitting(node["Resources"], *self._request) for node in live_nodes()))
        return self._count

    def _limited(self, count: int) -> int:
        return count if self._most is None else min(count, self._most)


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
    stop: Callable[[], bool],
    scheduler: Any = None,
    private: bool = False,
) -> None:
    """Run trials until the searcher has no more or ``stop`` returns true. Ray must have been started.

    Processes are reused for trial after trial: starting one and importing torch takes longer than many epochs.

    Args:
        trainable: Function of a config and ``context``, importable by name on each machine of the cluster.
        context: Data that all trials share, sent once through Ray's object store.
        searcher: Searcher in Ray's interface; it limits the number of trials at once.
        recorder: Callback in Ray's interface.
        name: Name of the experiment, which is made unique.
        cpus: Number of CPUs for each trial.
        gpus: Number of GPUs for each trial.
        stop: Function that is called several times a second; true ends the running trials.
        scheduler: Early stopping in Ray's interface; None lets each trial run to its end.
        private: Whether this process started Ray, so that Ray's processes have its environment.
    """
    from ray import tune

    stopper = type("Stopper", (_Stopper, tune.Stopper), {})(stop)
    resources = {"cpu": cpus, **({"gpu": gpus} if gpus else {})}
    name = f"{name}-{uuid.uuid4().hex[:12]}"
    spare = _spare_processes_taken() if private else nullcontext()
    with scratch_folder("tune") as folder, _without_traces(name), spare:
        tuner = tune.Tuner(
            tune.with_resources(tune.with_parameters(trainable, context=context), resources),
            tune_config=tune.TuneConfig(
                search_alg=searcher,
                scheduler=scheduler,
                num_samples=-1,
                max_concurrent_trials=_MOST_AT_ONCE,
                reuse_actors=True,
                trial_dirname_creator=lambda trial: f"trial-{trial.trial_id}",
            ),
            run_config=tune.RunConfig(
                name=name,
                storage_path=str(folder),
                verbose=0,
                callbacks=[recorder],
                stop=stopper,
            ),
        )
        tuner.fit()


@contextmanager
def _spare_processes_taken() -> Iterator[None]:
    """Let trials take processes that Ray keeps ready, inside the block.

    Tune gives its trials environment variables, even if Ray's processes have them already. Ray would then start each
    trial in a new process, by way of another one that sets up the environment.
    """
    from ray.tune.execution import class_cache

    added, copied = class_cache.DEFAULT_ENV_VARS, class_cache.ENV_VARS_TO_PROPAGATE
    class_cache.DEFAULT_ENV_VARS, class_cache.ENV_VARS_TO_PROPAGATE = {}, set()
    try:
        yield
    finally:
        class_cache.DEFAULT_ENV_VARS, class_cache.ENV_VARS_TO_PROPAGATE = added, copied


@contextmanager
def _without_traces(experiment: str) -> Iterator[None]:
    """Delete the files of an experiment that Tune keeps in the folder of Ray's session, at the end of the block."""
    from ray.train.constants import _get_ray_train_session_dir

    session = Path(_get_ray_train_session_dir())
    try:
        yield
    finally:
        for folder in session.glob(f"*/{experiment}"):
            shutil.rmtree(folder, ignore_errors=True)
            with suppress(OSError):  # another experiment of the same second lies there
                folder.parent.rmdir()
