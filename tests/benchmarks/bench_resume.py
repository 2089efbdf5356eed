"""Where a training is interrupted, how, and whether its continuation ends with the very weights of an undisturbed one.

Run by ``python -m tests.benchmarks bench_resume``. Processes are really killed: they are forks, which send SIGKILL to
themselves after a step. Each writes a checkpoint after each step. The network is a PartialNet with stochastic depth and
averaged weights, the data are the embedded digits with mixup, cutmix, erasing and RandAugment.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import signal
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from nas.definition.sections import DataSpec
from nas.definition.training import TrainRequest
from nas.training.files import CHECKPOINTS
from nas.training.standalone import AVERAGE, PACKAGE, Keeping, Watch, train_alone
from partialnet.architecture import Architecture
from partialnet.package import WEIGHTS
from partialnet.train import Recipe
from partialnet.train.kept import KeptCheckpoints
from partialnet.train.launching import RENDEZVOUS
from partialnet.train.loop import TrainingStopped
from partialnet.train.processes import joined

REQUEST = TrainRequest(
    Architecture("partialnet_micro", {"num_classes": 10, "in_chans": 1, "patch_size": 1, "depths": [1, 1, 2, 1]}),
    DataSpec(name="digits", train_limit=300),
    Recipe(
        drop_path=0.1, ema_decay=0.9, rand_augment="m5-mstd0.5-inc1", erasing=0.2, mixup=0.2, cutmix=1.0, accumulation=2
    ),
    epochs=2,
    batch_size=44,
)
STEPS = 6  # of an epoch: 270 images
_STOPPED, _LOST = 3, 4
_EVERY_STEP = 1e-9
_LONGEST_SECONDS = 300.0


@dataclass(frozen=True)
class Interruption:
    """An interruption of a training.

    Args:
        where: Place, for people.
        step: Number of steps after which it happens.
        kill: Whether a process is killed; otherwise all write a checkpoint and stop.
        damage: Whether the newest checkpoint is damaged afterwards.
    """

    where: str
    step: int
    kill: bool
    damage: bool = False


PLACES = {
    "the first step": 1, "a middle step": 3, "the last step of an epoch": STEPS, "the first of the next": STEPS + 1
}  # fmt: skip
INTERRUPTIONS = (
    *(Interruption(where, step, kill) for where, step in PLACES.items() for kill in (True, False)),
    Interruption("a middle step, newest checkpoint damaged", 3, kill=True, damage=True),
)


def _run(index: int, count: int, out: Path, meeting: str, interruption: Interruption | None) -> None:
    torch.set_num_threads(1)
    if count > 1:
        own = {"RANK": str(index), "WORLD_SIZE": str(count), RENDEZVOUS: meeting, "GLOO_SOCKET_IFNAME": "lo"}
        os.environ.update(own)
    taken: list[int] = []

    def step() -> None:
        taken.append(1)
        if interruption and interruption.kill and len(taken) == interruption.step + 1 and index == count - 1:
            os.kill(os.getpid(), signal.SIGKILL)

    def stop() -> bool:
        return bool(interruption and not interruption.kill and len(taken) == interruption.step)

    keeping = Keeping(_EVERY_STEP, 3, stop, loggers=None)
    with joined(torch.device("cpu")):
        try:
            train_alone(REQUEST, out, (), resume=True, watch=Watch(step=step), keeping=keeping)
        except TrainingStopped:
            os._exit(_STOPPED)
        except RuntimeError:  # the other process was killed
            if interruption is None:
                raise
            os._exit(_LOST)


def train(out: Path, processes: int, interruption: Interruption | None = None) -> list[int]:
    """Train in forked processes, and return their exit codes."""
    with tempfile.TemporaryDirectory() as folder:
        context = multiprocessing.get_context("fork")
        arguments = (processes, out, f"file://{folder}/meet", interruption)
        children = [context.Process(target=_run, args=(index, *arguments)) for index in range(processes)]
        for child in children:
            child.start()
        for child in children:
            child.join(_LONGEST_SECONDS)
            child.kill()
            child.join()
    return [child.exitcode or 0 for child in children]


def weights_of(out: Path) -> list[str]:
    """Return the digests of the weights and of the averaged weights."""
    return [hashlib.sha256((out / name / WEIGHTS).read_bytes()).hexdigest() for name in (PACKAGE, AVERAGE)]


def outcome(folder: Path, processes: int, interruption: Interruption, expected: Sequence[str]) -> str:
    """Interrupt a training, continue it, and return what came of it."""
    codes = train(folder, processes, interruption)
    if not all(codes):
        return f"not interrupted (exit codes {codes})"
    kept = KeptCheckpoints(folder / CHECKPOINTS)
    if interruption.damage:
        newest = kept.files()[0]
        newest.write_bytes(newest.read_bytes()[:-1])
    codes = train(folder, processes)
    if any(codes):
        return f"failed (exit codes {codes})"
    return "yes" if weights_of(folder) == expected else "NO"


def main() -> None:
    """Print the table."""
    print("| interrupted after | how | processes | same weights and averages |\n|---|---|---|---|")
    found = []
    with tempfile.TemporaryDirectory(prefix="resume-") as place:
        for processes in (1, 2):
            whole = Path(place) / f"whole-{processes}"
            assert train(whole, processes) == [0] * processes
            for number, interruption in enumerate(INTERRUPTIONS):
                folder = Path(place) / f"{processes}-{number}"
                found.append(outcome(folder, processes, interruption, weights_of(whole)))
                how = "SIGKILL" if interruption.kill else "stop"
                print(f"| {interruption.where} | {how} | {processes} | {found[-1]} |", flush=True)
    equal = found.count("yes")
    verdict = "ok" if equal == len(found) else "MISSED"
    print(f"torch {torch.__version__}; {equal} of {len(found)} bitwise equal: {verdict}")


if __name__ == "__main__":
    main()
