"""The plan of the proof goes on where it stopped, and its summary says what its lines hold."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from partialnet import Architecture
from tests.benchmarks import bench_proof, proof, proof_gpu, real_data
from tests.benchmarks.proof_networks import Bench, Job


def line(kind: str, seed: int, top1: float, target: float = proof.MAIN, **facts: Any) -> dict[str, Any]:
    architecture = Architecture("partialnet_micro", {"num_classes": 10}, {f"{kind}{target:g}": 1}).to_dict()
    return {
        "key": f"cifar10/{kind}/{target:g}/seed{seed}", "dataset": "cifar10", "kind": kind, "target": target,
        "seed": seed, "top1_test": top1, "macs": 3e6, "cpu_seconds": 3600.0, "search_cpu_seconds": 0.0,
        "architecture": architecture, **facts,
    }  # fmt: skip


def identity(kind: str, target: float = proof.MAIN) -> proof.Measured:
    return proof.measured(line(kind, 0, 0.0, target))


def test_each_job_is_planned_once_and_seeds_are_paired_early() -> None:
    jobs = list(proof.plan())
    assert len({job.key for job in jobs}) == len(jobs)
    first = jobs[: 2 * len(proof.DATASETS) * proof.SEEDS]
    assert {job.kind for job in first} == set(proof.MAIN_KINDS)
    assert [job.seed for job in first] == sorted(job.seed for job in first)
    for dataset in proof.DATASETS:
        for kind in proof.KINDS:
            assert {j.seed for j in jobs if (j.dataset, j.kind, j.target) == (dataset, kind, proof.MAIN)} == set(
                range(proof.SEEDS)
            )


def test_differences_are_paired_by_seed() -> None:
    lines = [line("learned-gates", seed, top1) for seed, top1 in enumerate((0.60, 0.62, 0.65))]
    lines += [line("scaled", seed, top1) for seed, top1 in ((1, 0.61), (2, 0.63), (3, 0.10))]
    [row] = bench_proof.differences(lines, "cifar10")
    # Pairs of seeds 1 and 2: 1 and 2 points.
    assert row.startswith("cifar10: learned-gates minus scaled: +1.50 +- 6.35 points (n = 2; ")


def test_latency_is_compared_at_equal_accuracy() -> None:
    lines = [line("scaled", 0, 0.6), line("learned-gates", 0, 0.59), line("learned-gates", 0, 0.61, 0.6)]
    latencies = {identity("scaled"): 2.0, identity("learned-gates"): 1.0, identity("learned-gates", 0.6): 1.6}
    [row] = bench_proof.latency_ratio(lines, latencies)
    # Half of the way from 1.0 to 1.6 ms, where the accuracy grows from 59 to 61 %.
    assert row.endswith("takes 1.600 ms: ratio 0.800; between two learned ones 0.650")
    [row] = bench_proof.latency_ratio([lines[0], lines[2]], latencies)
    assert row.endswith("takes 1.600 ms: ratio 0.800")
    [row] = bench_proof.latency_ratio(lines[:2], latencies)
    assert row.endswith("no learned network is as good")


def test_the_hypervolume_is_that_of_rectangles() -> None:
    # With the reference at 2.04 ms: 1.04 * 50 over 0.04 * 50 + ... of a front of one point each.
    assert bench_proof.hypervolume_ratio([(1.0, 50.0)], [(2.0, 50.0)]) == pytest.approx(1.04 / 0.04)


def test_lines_that_are_there_are_not_run_again_and_hours_end_the_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    monkeypatch.setattr(real_data, "RESULTS", tmp_path)
    trained: list[str] = []

    def train(_bench: Bench, job: Job) -> dict[str, Any]:
        trained.append(job.key)
        return {**line(job.kind, job.seed, 0.5), "key": job.key}

    monkeypatch.setattr(Bench, "train", train)
    jobs = [job.key for job in proof.plan()]
    proof.run((), 2)
    assert trained == jobs[:2]  # each takes an hour
    proof.run((), 3)
    assert trained == jobs[:3]
    proof.run((), 3)
    assert trained == jobs[:3]


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a fork of what has loaded libraries may fail")
def test_processes_share_the_plan_of_a_gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setattr(real_data, "RESULTS", tmp_path)
    jobs = {job.key for job in proof_gpu.plan()}
    assert len(jobs) == len(list(proof_gpu.plan()))

    def train(_bench: Bench, job: Job) -> dict[str, Any]:
        if job.seed == 1 and job.kind == "random":
            raise RuntimeError("out of memory")
        return {**line(job.kind, job.seed, 0.5), "key": job.key}

    monkeypatch.setattr(Bench, "train", train)
    proof_gpu.run((), 2, 0)  # no time
    assert not real_data.read(proof_gpu.GPU.name)
    proof_gpu.run((), 3, 60)
    done = [found["key"] for found in real_data.read(proof_gpu.GPU.name)]
    assert len(set(done)) == len(done)
    assert jobs - set(done) == {f"cifar10/random/{proof.MAIN:g}/seed1"}


def test_one_process_trains_all_networks_of_a_supernet() -> None:
    shared = [task for task in proof_gpu.tasks(proof_gpu.plan(), ()) if len(task) > 1]
    assert len(shared) == proof_gpu.RESNET_SEEDS
    for task in shared:
        assert [job.target for job in task] == list(proof_gpu.RESNET_TARGETS)
