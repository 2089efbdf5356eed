"""timm knows our names after ``import partialnet``, whichever is imported first, and that import stays light."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from partialnet.architecture import Architecture, ConversionRules
from partialnet.networks import architecture_of, create
from partialnet.package import Preprocessing, save_package

KNOWN = """
    partial, pat = timm.list_models("partialnet*"), timm.list_models("patnet*")
    assert len(partial) == 7 and len(pat) == 6, (partial, pat)
    model = timm.create_model("partialnet_t2", num_classes=10, features_only=True, embed_dim=16)
    assert model.feature_info.channels() == [16, 32, 64, 128]
    assert timm.create_model("patnet_t0", num_classes=10, embed_dim=16).num_classes == 10
"""


LOADED_ONCE = """
import gc, os
import huggingface_hub.hf_api, safetensors.torch, torch, torchvision, yaml  # most of what an import of timm takes
gc.freeze()  # they stay the same for all
failed = []
for name, code in CASES.items():
    if (child := os.fork()) == 0:
        try:
            exec(compile(code, name, "exec"), {"__name__": "__main__"})
        except BaseException:
            import traceback
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    failed += [name] * (os.waitpid(child, 0)[1] != 0)
assert not failed, failed
"""


def packaged(folder: Path) -> str:
    """Return code that loads a package of a network of timm in a process that knows nothing of it."""
    options = {"num_classes": 10, "channels": [16, 16, 32, 32], "layers": [1, 1, 1, 1]}
    network = create(Architecture("timm/resnet18", options, {}, ConversionRules(convert=("layer1.*",))))
    save_package(folder, network, Preprocessing("none", tuple("0123456789"), (3, 32, 32), (0.0,) * 3, (1.0,) * 3))
    wanted = architecture_of(network).id
    return f"import partialnet\nassert partialnet.load_package({str(folder)!r}).architecture.id == {wanted!r}"


def run(code: str) -> None:
    """Run ``code`` in a fresh interpreter in which a warning is an error (timm warns of names registered twice)."""
    command = [sys.executable, "-W", "error::UserWarning", "-c", code]
    result = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert result.returncode == 0, result.stderr


def ours_first(heavy: str, folder: Path) -> str:
    """Return code up to an import of timm that fails, here of another one: that changes nothing."""
    return textwrap.dedent(f"""
    import importlib, sys
    before = list(sys.meta_path)
    import partialnet
    importlib.reload(partialnet)
    assert not {heavy}
    assert len(sys.meta_path) == len(before) + 1
    found = importlib.util.find_spec("timm")
    assert not {heavy} and found.loader.get_filename("timm") == found.origin
    sys.path.insert(0, {str(folder)!r})
    try:
        import timm
    except RuntimeError as error:
        assert str(error) == "not this one"
    else:
        raise AssertionError("the broken one was imported")
    sys.path.remove({str(folder)!r})
    """)


NEXT_ONE_REGISTERS = f"""
import timm
assert sys.meta_path == before
assert timm.__loader__ is timm.__spec__.loader and type(timm.__loader__) is type(partialnet.__loader__)
assert not [name for name in sys.modules if name.startswith(("partialnet.layers", "partialnet.models.partialnet"))]
{textwrap.dedent(KNOWN)}
importlib.reload(timm)
importlib.reload(partialnet)
{textwrap.dedent(KNOWN)}
"""


TIMM_FIRST = f"""
import importlib, sys, timm
assert not timm.list_models("partialnet*")
before = list(sys.meta_path)
import partialnet
assert sys.meta_path == before
{textwrap.dedent(KNOWN)}
importlib.reload(partialnet)
"""
BY_WAY_OF_A_MODULE_THAT_NEEDS_TIMM = f"import partialnet.fuse, timm\n{textwrap.dedent(KNOWN)}"
THREADS_THAT_IMPORT_AT_ONCE = f"""
import importlib, threading
import partialnet
names = ["timm", "partialnet.models.partialnet", "partialnet", "partialnet.architecture"] * 3
barrier, failures = threading.Barrier(len(names)), []

def load(name):
    barrier.wait()
    try:
        importlib.import_module(name)
    except BaseException as error:
        failures.append((name, error))

threads = [threading.Thread(target=load, args=(name,)) for name in names]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
assert not failures, failures
import timm
{textwrap.dedent(KNOWN)}
"""


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    """A folder with a timm that cannot be imported."""
    (tmp_path / "timm").mkdir()
    (tmp_path / "timm" / "__init__.py").write_text("raise RuntimeError('not this one')")
    return tmp_path


def test_ours_first_loads_nothing_heavy(broken: Path) -> None:
    run(ours_first('{"timm", "torch", "numpy"} & set(sys.modules)', broken))


def test_all_orders(broken: Path, tmp_path: Path) -> None:
    """Each in a process of its own that has no timm yet."""
    cases = {
        "ours first": ours_first('{"timm"} & set(sys.modules)', broken) + NEXT_ONE_REGISTERS,
        "timm first": TIMM_FIRST,
        "by way of a module that needs timm": BY_WAY_OF_A_MODULE_THAT_NEEDS_TIMM,
        "threads that import at once": THREADS_THAT_IMPORT_AT_ONCE,
        "a package is loaded": packaged(tmp_path / "package"),
    }
    run(f"CASES = {cases!r}\n{LOADED_ONCE}")
