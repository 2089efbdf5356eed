"""What callers may hand in by mistake: batches of one image, and batches that are no pairs of tensors."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn

from partialnet.errors import DataError
from partialnet.search.result import SearchProgress, StepRecord
from partialnet.search.state import SearchState
from partialnet.train import Recipe, evaluate, fit
from tests.partialnet.search_runs import METHODS, random_batches, same_state, search, small_net
from tests.partialnet.train import small

SINGLE = random_batches(1, size=1, seed=5)


class Interrupted(Exception):
    pass


@pytest.mark.parametrize("method", METHODS)
def test_a_last_single_image_is_left_out(method: str) -> None:
    whole, other = small_net(), small_net()
    expected = search(whole, method=method)
    found = search(other, method=method, batches=[*random_batches(), *SINGLE])
    assert found.history == expected.history
    assert same_state(whole, other)


@pytest.fixture(scope="module")
def uninterrupted() -> list[StepRecord]:
    return search(batches=[*random_batches(), *SINGLE]).history


@pytest.mark.parametrize("place", [2, 3, 4, 11])
def test_it_is_left_out_after_an_interruption_too(place: int, uninterrupted: list[StepRecord]) -> None:
    batches = [*random_batches(), *SINGLE]
    states: list[SearchState] = []

    def stop(progress: SearchProgress) -> None:
        if progress.step == place:
            states.append(progress.state())
            raise Interrupted

    with pytest.raises(Interrupted):
        search(batches=batches, callback=stop)
    assert search(batches=batches, resume=states[0]).history == uninterrupted


@pytest.mark.parametrize("method", METHODS)
def test_nothing_but_single_images_is_refused(method: str) -> None:
    words = r"batches yields 1 image\(s\) of \(3, 6, 6\) at once, which batch normalisation cannot be trained with"
    with pytest.raises(DataError, match=words):
        search(method=method, batches=SINGLE)


def test_a_single_image_counts_where_nothing_is_normalised_by_the_batch() -> None:
    def plain() -> nn.Module:
        model = small_net()
        model.norm, model.first = nn.Identity(), model.second  # type: ignore[assignment]
        return nn.Sequential(model.stem, model.second, nn.AdaptiveAvgPool2d(1), nn.Flatten(), model.head)

    one = search(plain(), batches=[*random_batches(), *SINGLE], steps=4, method="fractional")
    other = search(plain(), batches=random_batches(), steps=4, method="fractional")
    assert one.history[2].loss == other.history[2].loss
    assert one.history[3].loss != other.history[3].loss


WRONG = {
    "a dict with 'image', 'label'": {"image": torch.zeros(2, 3, 6, 6), "label": torch.zeros(2)},
    "an empty dict": {},
    "a Tensor": torch.zeros(2, 3, 6, 6),
    "a tuple of Tensor, Tensor, Tensor": (torch.zeros(2), torch.zeros(2), torch.zeros(2)),
    "a list of Tensor, list": [torch.zeros(2, 3, 6, 6), [0, 1]],
    "a NoneType": None,
}


@pytest.mark.parametrize("kind", list(WRONG))
@pytest.mark.parametrize("method", METHODS)
def test_batches_of_another_kind_are_described(method: str, kind: str) -> None:
    batches: list[Any] = [WRONG[kind] if WRONG[kind] is not None else ...]
    kind = kind.replace("NoneType", "ellipsis")
    with pytest.raises(DataError, match=rf"batches yields {kind}, but must yield pairs of tensors \(inputs, targets\)"):
        search(method=method, batches=batches)
    if method == "supernet":
        with pytest.raises(DataError, match=f"validation yields {kind}, but must"):
            search(method=method, validation=batches)


class Few:
    """Training batches of a fixed kind."""

    def __init__(self, *batches: Any) -> None:
        self.batches = batches

    def __iter__(self) -> Iterator[Any]:
        return iter(self.batches)

    def __len__(self) -> int:
        return len(self.batches)

    def set_epoch(self, epoch: int) -> None:
        pass


def trained(*batches: Any) -> float:
    """Return the mean loss of an epoch in which next to nothing is learned."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(108, 8), nn.BatchNorm1d(8), nn.Linear(8, 4))
    torch.manual_seed(0)
    for parameter in model.parameters():
        nn.init.normal_(parameter)
    result = fit(model, Few(*batches), recipe=Recipe(learning_rate=1e-12), epochs=1, seed=0)
    return result.history[0].loss


def test_a_training_takes_the_same_care() -> None:
    pairs = random_batches()
    with pytest.raises(DataError, match=r"train_batches yields 1 image\(s\) of \(3, 6, 6\) at once"):
        trained(*SINGLE)
    with pytest.raises(DataError, match="train_batches yields a dict with 'image', 'label', but must"):
        trained(WRONG["a dict with 'image', 'label'"])
    with pytest.raises(DataError, match="batches yields a Tensor, but must"):
        evaluate(small.network(), [torch.zeros(2, 1, 8, 8)])  # type: ignore[list-item]
    assert trained(*pairs, *SINGLE) == pytest.approx(trained(*pairs), rel=1e-5)  # the mean over the same three steps
