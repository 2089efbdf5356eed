"""A network in a folder: architecture, weights, and the preprocessing of its images.

::

    architecture.json    the network, and the number of convolved channels of each layer
    model.safetensors    weights and buffers of the training form
    preprocessing.json   input size, normalisation, class names
    README.md            for people
    model.onnx           the inference form for other runtimes, if requested
    model.pt2            the same as a program of torch.export, if requested
    model-int8.onnx      the same with 8-bit integers, if requested
    int8.json            how that was made, and its scores and times beside those of the float form

A new folder appears whole or not at all: it is written beside its place and then renamed. A folder that is there
already stays the same one, since it may be a mount point, named by a link, or where somebody's shell stands. Its
files are replaced; ``architecture.json``, without which nothing is loaded, goes first and comes last.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_args

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from partialnet.architecture import Architecture
from partialnet.data.augmentation import Interpolation
from partialnet.errors import ArchitectureError, PackageError, is_text
from partialnet.files import save_safetensors
from partialnet.json_text import parse_json
from partialnet.networks import architecture_of, create, output_count
from partialnet.onnx_export import to_onnx
from partialnet.state_dicts import faults, in_words, plain_names, unwrap
from partialnet.torch_export import to_torch_export

ARCHITECTURE = "architecture.json"
WEIGHTS = "model.safetensors"
PREPROCESSING = "preprocessing.json"
README = "README.md"
ONNX = "model.onnx"
PROGRAM = "model.pt2"
INT8 = "model-int8.onnx"
INT8_REPORT = "int8.json"
SCHEMA = 1
_FILES = (ARCHITECTURE, WEIGHTS, PREPROCESSING, README, ONNX, PROGRAM, INT8, INT8_REPORT)
_SCRATCH = ".partialnet-"  # a folder so named is left behind by a process that was killed


@dataclass(frozen=True)
class Preprocessing:
    """Preprocessing of the network's images, and meaning of its outputs.

    Args:
        name: Name of the data set.
        class_names: Names of the classes in the order of the outputs.
        input_shape: Channels, height, width of the input.
        mean: Mean of images in [0, 1] for each channel.
        std: Standard deviation of images in [0, 1] for each channel.
        crop: Share of the shorter side that the central square of an image has.
        interpolation: Filter that scales it, ``"bilinear"`` or ``"bicubic"``.

    Raises:
        PackageError: If the parts do not fit each other.
    """

    name: str
    class_names: tuple[str, ...]
    input_shape: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    crop: float = 1.0
    interpolation: str = "bilinear"

    def __post_init__(self) -> None:
        if len(self.input_shape) != 3 or min(self.input_shape) < 1:
            raise PackageError(f"input_shape is {list(self.input_shape)}, but must be channels, height, width")
        for key, values in (("mean", self.mean), ("std", self.std)):
            if len(values) != self.input_shape[0] or not all(map(math.isfinite, values)):
                raise PackageError(f"{key} is {list(values)}, but must be {self.input_shape[0]} numbers, one a channel")
        if min(self.std) <= 0:
            raise PackageError(f"std is {list(self.std)}, but must be positive")
        if not 0 < self.crop <= 1:
            raise PackageError(f"crop is {self.crop}, but must be above 0 and at most 1")
        if self.interpolation not in get_args(Interpolation):
            raise PackageError(f"interpolation is {self.interpolation!r}, but must be bilinear or bicubic")
        for text in (self.name, *self.class_names):
            if not is_text(text):
                raise PackageError(f"the name {text!r} is not valid text")

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form; usual values of the crop and its filter are left out, as in older files."""
        usual = {"crop": 1.0, "interpolation": "bilinear"}
        content = {key: value for key, value in asdict(self).items() if key not in usual or value != usual[key]}
        return {"schema": SCHEMA, **content}

    @classmethod
    def from_dict(cls, data: Any) -> Preprocessing:
        """Read the JSON form.

        Raises:
            PackageError: If a key is missing or unknown, or a value has the wrong type.
        """
        optional = {"crop", "interpolation"}
        expected = {"schema", *cls.__dataclass_fields__} - optional
        if not isinstance(data, Mapping) or set(data) - optional != expected:
            found = sorted(data) if isinstance(data, Mapping) else type(data).__name__
            raise PackageError(f"must be an object with the keys {sorted(expected)}, but got {found}")
        if data["schema"] != SCHEMA:
            raise PackageError(f"schema is {data['schema']!r}, but must be {SCHEMA}")
        try:
            channels, height, width = (int(value) for value in data["input_shape"])
            mean, std = (tuple(float(value) for value in data[key]) for key in ("mean", "std"))
            names = tuple(str(value) for value in data["class_names"])
            crop, interpolation = float(data.get("crop", 1.0)), str(data.get("interpolation", "bilinear"))
        except (TypeError, ValueError) as error:
            raise PackageError(f"a value has the wrong type: {error}") from None
        return cls(str(data["name"]), names, (channels, height, width), mean, std, crop, interpolation)


@dataclass(frozen=True)
class Int8Form:
    """The 8-bit form of a network.

    Args:
        file: ONNX file, which is copied.
        plain: ONNX file of the float form that it was made from, as :func:`to_onnx` wrote it.
        report: Facts of its making, scores and times beside those of the float form, as JSON values.
    """

    file: Path
    plain: Path
    report: Mapping[str, Any]


@dataclass(frozen=True)
class Package:
    """A loaded folder.

    Args:
        model: Network in eval mode, on the CPU.
        architecture: Architecture of the network.
        preprocessing: Preprocessing of its images.
    """

    model: nn.Module
    architecture: Architecture
    preprocessing: Preprocessing


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read the weights of a safetensors file, or of a checkpoint of a training (ours, or one of timm).

    Names of wrappers (``module.``, ``_orig_mod.``, ``model.``) before all others go. No code of a file runs.

    Raises:
        PackageError: If it is missing or damaged; the message names it.
    """
    if not path.is_file():
        raise PackageError(f"{path}: there is no such file")
    if zipfile.is_zipfile(path):  # the format of torch.save
        return plain_names(_weights_of_checkpoint(path))
    try:
        tensors: dict[str, Tensor] = load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise PackageError(f"{path}: not a readable safetensors file ({error})") from error
    return plain_names(tensors)


def _weights_of_checkpoint(path: Path) -> dict[str, Tensor]:
    from timm.models import load_state_dict

    try:
        state: dict[str, Tensor] = load_state_dict(str(path), use_ema=False)
    except (RuntimeError, OSError, ValueError, EOFError, SafetensorError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise PackageError(f"{path}: not a readable checkpoint ({reason})") from error
    except (AttributeError, TypeError, KeyError):  # timm takes whatever it finds for names and tensors
        state = {}
    if not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise PackageError(f"{path}: a checkpoint without weights; they must be under state_dict or model, or alone")
    return state


def load_tensors(model: nn.Module, tensors: Mapping[str, Tensor], source: str | Path) -> None:
    """Copy ``tensors`` into ``model``; they must match the model's tensors in names and shapes, without others.

    Raises:
        PackageError: If they do not; the message names the source and the first missing, unknown or misshapen tensors.
    """
    if found := faults(model.state_dict(), tensors):
        raise PackageError(f"{source}: does not hold the weights of this architecture: {in_words(found)}")
    model.load_state_dict(dict(tensors), strict=True)


def save_tensors(model: nn.Module, path: Path) -> None:
    """Write the state of ``model`` as safetensors, from any device, without the names of wrappers."""
    state = plain_names(unwrap(model).state_dict())
    state = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in state.items()}
    save_safetensors(state, path)


def check_target(folder: Path, *, overwrite: bool = False) -> None:
    """Refuse a place where no package can be written, before work is spent on it.

    Args:
        folder: Folder of the future package.
        overwrite: Whether an existing package may be replaced. Other files are never removed.

    Raises:
        PackageError: If the folder is not free; the message names what is in the way.
    """
    try:
        folder.resolve()
    except RuntimeError:
        raise PackageError(f"{folder}: is a symbolic link that leads back to itself; remove it") from None
    if not folder.exists():
        return
    if not folder.is_dir():
        raise PackageError(f"{folder}: is a file, but must be a folder that does not exist yet")
    entries = sorted(entry.name for entry in folder.iterdir() if not entry.name.startswith(_SCRATCH))
    if not entries:
        return
    if not overwrite:
        raise PackageError(f"{folder}: exists and is not empty; choose another folder, or force it to be replaced")
    foreign = [name for name in entries if name not in _FILES]
    if foreign:
        raise PackageError(f"{folder}: holds {foreign[0]!r}, which no export wrote, so it is not replaced")


def save_package(
    folder: Path,
    model: nn.Module,
    preprocessing: Preprocessing,
    *,
    readme: str = "",
    overwrite: bool = False,
    onnx: bool = False,
    program: bool = False,
    int8: Int8Form | None = None,
) -> Path:
    """Write a package: a new folder appears whole or not at all, one that is there keeps its place.

    Args:
        folder: Folder to write, which is missing or empty.
        model: Fixed network in its training form, which :func:`~partialnet.networks.create` built; wrappers of
            ``torch.compile`` and data parallelism are removed.
        preprocessing: Preprocessing of its images.
        readme: Model card; none is written if empty.
        overwrite: Whether an existing package is replaced.
        onnx: Whether to write the inference form as well, for images of the size that ``preprocessing`` names.
        program: Whether to write it as a program of ``torch.export`` as well.
        int8: Its 8-bit form to add, if there is one.

    Returns:
        The folder ``folder``.

    Raises:
        ArchitectureError: If the inference form computes other outputs in ONNX Runtime, or as a program.
        PackageError: If ``folder`` is not free, or :func:`load_package` would refuse the result: a network that still
            learns its split, is fused, has no architecture, has weights that are not finite, or does not fit
            ``preprocessing``.
    """
    check_target(folder, overwrite=overwrite)
    network, architecture = _check_network(folder, model)
    _check_fit(architecture, network, preprocessing)
    place = folder.resolve()
    present = place.exists()
    beside = place if present else place.parent
    beside.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=_SCRATCH, dir=beside) as scratch:
        fresh = Path(scratch) / "new"
        fresh.mkdir()
        architecture.save(fresh / ARCHITECTURE)
        save_tensors(network, fresh / WEIGHTS)
        text = json.dumps(preprocessing.to_dict(), indent=2, ensure_ascii=False) + "\n"
        (fresh / PREPROCESSING).write_text(text, encoding="utf-8")
        if readme:
            (fresh / README).write_text(readme, encoding="utf-8")
        if onnx and int8 is not None:
            shutil.copyfile(int8.plain, fresh / ONNX)
        elif onnx:
            to_onnx(network, fresh / ONNX, input_shape=preprocessing.input_shape)
        if program:
            to_torch_export(network, fresh / PROGRAM, input_shape=preprocessing.input_shape)
        if int8 is not None:
            shutil.copyfile(int8.file, fresh / INT8)
            report = json.dumps(int8.report, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
            (fresh / INT8_REPORT).write_text(report, encoding="utf-8")
        if present:
            _exchange(fresh, place, Path(scratch) / "old")
        else:
            fresh.rename(place)
    return folder


def _check_network(folder: Path, model: nn.Module) -> tuple[nn.Module, Architecture]:
    """Return the network inside ``model`` and its architecture, if a package can be loaded again that holds them."""
    network = unwrap(model)
    if any(hasattr(module, "set_level") for module in network.modules()):
        raise PackageError(f"{folder}: the network still learns its split; apply to_fixed before it is saved")
    try:
        architecture = architecture_of(network)
    except ArchitectureError as error:
        raise PackageError(f"{folder}: {error}") from error
    try:
        with torch.device("meta"):
            own = create(architecture).state_dict()
    except ArchitectureError as error:
        raise PackageError(f"{folder}: the network is not what its architecture describes: {error}") from error
    if found := faults(own, network.state_dict()):
        raise PackageError(
            f"{folder}: the network does not hold the weights of its architecture, so it could not be loaded again: "
            f"{in_words(found)}; save the training form, with finite weights, as it was before fuse"
        )
    return network, architecture


def _exchange(fresh: Path, folder: Path, old: Path) -> None:
    """Move the files of ``folder`` to ``old`` and those of ``fresh`` into it; all go back if that fails."""
    old.mkdir()
    before = [name for name in _FILES if os.path.lexists(folder / name)]
    try:
        for name in before:
            (folder / name).rename(old / name)
        for name in reversed(_FILES):
            if (fresh / name).exists():
                (fresh / name).rename(folder / name)
    except BaseException:
        for name in reversed(_FILES):
            if os.path.lexists(old / name):
                (old / name).replace(folder / name)
            elif name not in before:
                (folder / name).unlink(missing_ok=True)
        raise


def load_package(folder: Path | str) -> Package:
    """Load a package; all tensors must be present and fit.

    Args:
        folder: Folder that :func:`save_package` wrote.

    Raises:
        PackageError: If a file is missing or damaged, or the files do not fit each other; the message names the file.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise PackageError(f"{folder}: there is no such folder; an exported one holds {', '.join(_FILES[:3])}")
    for name in _FILES[:3]:
        if not (folder / name).is_file():
            raise PackageError(f"{folder}: not an exported network: {name} is missing")
    try:
        architecture = Architecture.load(folder / ARCHITECTURE)
        model = create(architecture)
    except ArchitectureError as error:
        message = str(error)
        prefix = "" if message.startswith(str(folder)) else f"{folder / ARCHITECTURE}: "
        raise PackageError(f"{prefix}{message}") from error
    preprocessing = _load_preprocessing(folder / PREPROCESSING)
    try:
        _check_fit(architecture, model, preprocessing)
    except PackageError as error:
        raise PackageError(f"{folder / PREPROCESSING}: {error}") from None
    load_tensors(model, read_tensors(folder / WEIGHTS), folder / WEIGHTS)
    return Package(model.eval(), architecture, preprocessing)


def _load_preprocessing(path: Path) -> Preprocessing:
    try:
        return Preprocessing.from_dict(parse_json(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise PackageError(f"{path}: cannot be read ({error.strerror})") from error
    except (PackageError, ValueError) as error:
        raise PackageError(f"{path}: {error}") from error


def _check_fit(architecture: Architecture, model: nn.Module, preprocessing: Preprocessing) -> None:
    names, classes = len(preprocessing.class_names), output_count(model)
    if names != classes:
        raise PackageError(f"class_names has {names} entries, but the network {classes} outputs")
    channels = architecture.options.get("in_chans", 3)
    if preprocessing.input_shape[0] != channels:
        raise PackageError(f"input_shape has {preprocessing.input_shape[0]} channels, but the network takes {channels}")
