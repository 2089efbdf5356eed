"""A Ray cluster that somebody else started: several real nodes on this machine, one of which dies during a search."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from nas.errors import ClusterFault, InputError
from nas.scratch import scratch_folder
from nas.settings import Settings
from nas.store import Store
from nas.study import Study, StudyState
from nas.sweep.cluster import quiet_ray, ray_session
from nas.sweep.joined import check_address, check_cluster, check_nodes, live_nodes, node_faults
from nas.sweep.progress import EpochDone, SearchEnded, SweepEvent, TrialPlaced, Warned
from nas.sweep.search import run_search
from nas.sweep.trainable import TrialContext
from nas.training.feasibility import reference_point
from nas.trial import TrialState
from tests.faults.studies import essence, small_study
from tests.nas.tiny import tiny
from tests.waiting import wait_for

TOKEN = "a-token-of-this-cluster-and-no-other"


class Nodes:
    """A cluster of Ray nodes on this machine, outside of any driver: a head without places for trials, and others."""

    def __init__(self, folder: Path) -> None:
        from ray.cluster_utils import Cluster

        self.folder = folder / "ray"  # as Ray names it below RAY_TMPDIR
        self.folder.mkdir()
        head = {"num_cpus": 0, "include_dashboard": False}
        # Otherwise Ray would end this process and all of its group at the end.
        self.cluster: Any = Cluster(initialize_head=True, head_node_args=head, shutdown_at_exit=False)
        self.address: str = self.cluster.address

    def add(self, **options: Any) -> Any:
        return self.cluster.add_node(num_cpus=1, **options)

    def kill(self, node: Any) -> None:
        """End a node as a loss of its machine does."""
        self.cluster.remove_node(node, allow_graceful=False)


@pytest.fixture(scope="module")
def nodes(shared_ray: ExitStack) -> Iterator[Nodes]:
    shared_ray.close()
    with pytest.MonkeyPatch.context() as patch, scratch_folder("ray") as folder, quiet_ray():
        for name, value in {**authentication(TOKEN), "RAY_TMPDIR": str(folder)}.items():
            patch.setenv(name, value)
        forget_token()
        started = Nodes(folder)
        yield started
        started.cluster.shutdown()
    forget_token()


def authentication(token: str) -> dict[str, str]:
    return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token}


def forget_token() -> None:
    """Make this process read Ray's token again."""
    from ray._raylet import AuthenticationTokenLoader, Config  # type: ignore[attr-defined]

    Config.initialize("")
    AuthenticationTokenLoader.instance().reset_cache()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(f"sqlite:///{tmp_path}/nas.db") as opened:
        yield opened


def trial_processes() -> dict[int, str]:
    """Return the processes of Ray's actors that run trials."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            title = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if "ImplicitFunc" in title:
            found[int(entry.name)] = title
    return found


@pytest.mark.ray
@pytest.mark.cluster
@pytest.mark.long
class TestSearch:
    """One search on a cluster whose nodes come and go; and what it leaves of the cluster."""

    def search(self, store: Store, folder: Path, address: str, watch: Any = None) -> Study:
        definition = small_study(sweep={"trials": 2, "seed": 5, "concurrent": 1})
        made = store.create_study(definition, reference_point=reference_point(definition))
        settings = Settings(storage=str(folder / "storage"), ray_address=address)
        return run_search(store, made.id, settings, progress=watch)

    def test_trials_move_from_a_lost_node_to_a_new_one(self, nodes: Nodes, store: Store, tmp_path: Path) -> None:
        before = set(trial_processes())
        doomed = nodes.add()
        pids: dict[int, int] = {}
        warnings: list[str] = []
        lost = []

        def lose(event: SweepEvent) -> None:
            match event:
                case TrialPlaced():
                    pids[event.number] = event.placement.pid
                case Warned():
                    warnings.append(event.message)
                case EpochDone() if (event.number, event.record.epoch) == (1, 1) and not lost:
                    lost.append(doomed)
                    nodes.kill(doomed)
                    nodes.add()

        disturbed = self.search(store, tmp_path, nodes.address, lose)
        assert lost
        assert disturbed.state is StudyState.FINISHED
        # Until Ray notices the loss, it may start the trial again on the dead node.
        assert {warning.partition(":")[0] for warning in warnings} == {"trial 1 continues from its last whole epoch"}
        assert {trial.state for trial in store.trials(disturbed.id)} == {TrialState.COMPLETE}
        # The cluster is as before: its nodes, its folder; without our processes and files.
        with ray_session(nodes.address):
            assert len(live_nodes()) == 2
        wait_for(lambda: set(trial_processes()) <= before, seconds=60)
        assert list((nodes.folder / "session_latest" / "artifacts").iterdir()) == []
        whole = self.search(store, tmp_path, nodes.address)
        storage = tmp_path / "storage"
        assert essence(store, disturbed.id, storage) == essence(store, whole.id, storage)


@pytest.mark.ray
@pytest.mark.cluster
def test_a_cluster_that_is_away_pauses_the_study(store: Store, tmp_path: Path, shared_ray: ExitStack) -> None:
    shared_ray.close()  # a search uses the Ray that its process has already
    study = store.create_study(small_study(), reference_point={"top1": 0.0, "macs": 1e9})
    ended: list[SearchEnded] = []
    settings = Settings(storage=str(tmp_path / "storage"), ray_address="127.0.0.1:1")
    paused = run_search(
        store, study.id, settings, progress=lambda event: isinstance(event, SearchEnded) and ended.append(event)
    )
    assert paused.state is StudyState.PAUSED
    assert (paused.reason or "").startswith("no Ray cluster answers at 127.0.0.1:1 (Connection refused)")
    assert [event.passing for event in ended] == [True]  # a worker tries again
    assert {trial.state for trial in store.trials(study.id)} == {TrialState.QUEUED}


@pytest.mark.ray
@pytest.mark.cluster
class TestToken:
    """A cluster refuses whoever does not know its token, and the error says so at once."""

    @pytest.mark.parametrize(
        "environment",
        [authentication("a-token-of-another-cluster-entirely"), {"RAY_AUTH_MODE": "disabled"}],
        ids=["another token", "none"],
    )
    def test_without_the_token(
        self, nodes: Nodes, environment: Mapping[str, str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("RAY_AUTH_TOKEN")
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        forget_token()
        began = time.monotonic()
        with pytest.raises(InputError, match=r"refuses this client: its token is missing or wrong; put the token"):
            check_cluster(nodes.address)
        with pytest.raises(ClusterFault, match="its token is missing"), ray_session(nodes.address):
            pass
        assert time.monotonic() - began < 10
        monkeypatch.undo()
        forget_token()

    def test_with_it(self, nodes: Nodes) -> None:
        assert check_cluster(nodes.address) == nodes.address

    def test_the_environment_stays_as_it_was(self, nodes: Nodes, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("RAY_AUTH_MODE")
        forget_token()
        assert check_cluster(nodes.address) == nodes.address  # a token that is there is used
        assert "RAY_AUTH_MODE" not in os.environ
        monkeypatch.undo()
        forget_token()


class TestAddress:
    @pytest.mark.parametrize("address", ["auto", "local"])
    def test_ray_resolves_its_own_words(self, address: str) -> None:
        check_address(address)

    @pytest.mark.parametrize(
        ("address", "message"),
        [
            ("cluster", "must be HOST:PORT"),
            ("host:0", "must be HOST:PORT"),
            ("ray://host:10001", "is one of Ray's client, which cannot run a search"),
            ("127.0.0.1:1", "no Ray cluster answers at 127.0.0.1:1"),
        ],
    )
    def test_others_are_refused_at_once(self, address: str, message: str) -> None:
        with pytest.raises(InputError, match=message):
            check_address(address)

    @pytest.mark.ray
    @pytest.mark.cluster
    def test_auto_takes_the_cluster_of_rays_own_variable(self, nodes: Nodes, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("RAY_ADDRESS", nodes.address)
        assert check_cluster("auto") == nodes.address


class TestNode:
    """What a node lacks is said before a trial fails there."""

    def context(self, folder: Path, **changes: Any) -> TrialContext:
        return TrialContext("a-study", tiny(), **{"data_roots": (), "storage": str(folder), **changes})

    def test_a_node_without_data_and_storage(self, tmp_path: Path) -> None:
        context = self.context(tmp_path / "here", data_roots=(tmp_path, tmp_path / "none"))
        data, storage = node_faults(context, "studies/a-study/nodes/marker")
        assert data == f"there is no data root {tmp_path / 'none'}"
        assert "is another place there; use a folder that all nodes share, or a URL" in storage

    def test_a_storage_that_it_cannot_open(self, tmp_path: Path) -> None:
        (fault,) = node_faults(self.context(tmp_path, storage="nothing://there"), "studies/a-study/nodes/marker")
        assert fault.startswith("the storage cannot be read: storage 'nothing://there' cannot be used")

    @pytest.mark.ray
    @pytest.mark.cluster
    @pytest.mark.slow
    def test_each_node_is_asked_and_named(self, nodes: Nodes, tmp_path: Path) -> None:
        node = nodes.add()
        try:
            with ray_session(nodes.address):
                check_nodes(self.context(tmp_path))
                assert list(tmp_path.rglob("*")) == [  # the marker is gone
                    tmp_path / "studies", tmp_path / "studies/a-study", tmp_path / "studies/a-study/nodes"
                ]  # fmt: skip
                with pytest.raises(ClusterFault, match=r"other nodes of .* cannot run trials: .*: there is no"):
                    check_nodes(self.context(tmp_path, data_roots=(tmp_path / "none",)))
        finally:
            nodes.kill(node)
