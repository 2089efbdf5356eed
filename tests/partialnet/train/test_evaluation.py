from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from partialnet.errors import DataError
from partialnet.train import evaluate

from . import small


def test_figures_are_those_of_the_definition() -> None:
    logits = torch.tensor([[9.0, 8, 7, 6, 5, 4, 3]] * 4)
    targets = torch.tensor([0, 1, 4, 5])
    result = evaluate(nn.Identity(), [(logits[:3], targets[:3]), (logits[3:], targets[3:])])
    assert (result.top1, result.top5, result.n) == (0.25, 0.75, 4)
    total = sum(math.exp(value) for value in logits[0].tolist())
    expected = sum(math.log(total) - float(logits[0, target]) for target in targets) / 4
    assert result.loss == pytest.approx(expected, rel=1e-6)


def test_with_few_classes_top5_is_one() -> None:
    assert evaluate(nn.Identity(), [(torch.eye(3), torch.tensor([1, 2, 0]))]).top5 == 1.0


def test_nothing_is_changed() -> None:
    model = small.network()
    model[1].eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    first = evaluate(model, small.quadrants().batches(7))
    assert first == evaluate(model, small.quadrants().batches(7))
    assert first.n == 160
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert [module.training for module in model] == [True, False, True, True, True, True, True]


def test_no_image_is_refused() -> None:
    with pytest.raises(DataError, match="nothing to evaluate on"):
        evaluate(small.network(), [])
