from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from partialnet.data.sampling import stratified_split
from partialnet.errors import DataError

labels = st.lists(st.integers(0, 6), min_size=1, max_size=80)


@given(labels, st.floats(0, 1), st.integers(0, 2**31 - 1))
def test_a_split_is_a_partition_with_every_class_in_proportion(values: list[int], share: float, seed: int) -> None:
    targets = torch.tensor(values)
    count = round(share * len(values))
    first, second = stratified_split(targets, count, seed)
    assert len(second) == count
    assert sorted(first.tolist() + second.tolist()) == list(range(len(values)))
    for label in set(values):
        exact = values.count(label) * count / len(values)
        assert abs(int((targets[second] == label).sum()) - exact) < 1


def test_a_split_depends_on_the_seed_only() -> None:
    targets = torch.arange(100) % 5
    one, again, other = (stratified_split(targets, 20, seed)[1].tolist() for seed in (1, 1, 2))
    assert one == again != other
    state = torch.random.get_rng_state()
    stratified_split(targets, 20, 3)
    assert torch.equal(state, torch.random.get_rng_state())


def test_more_than_there_are_is_refused() -> None:
    with pytest.raises(DataError, match="11 images were requested, but there are 10"):
        stratified_split(torch.zeros(10, dtype=torch.int64), 11, 0)
