"""The published shape of a network, scaled to a cost."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from partialnet import Architecture, create
from partialnet.architecture import ConversionRules
from partialnet.errors import ArchitectureError
from partialnet.networks import base_network
from partialnet.scaling import ScaledShape, Scaling, scaling_of
from tests.samples import examples

MICRO = scaling_of(Architecture("partialnet_micro", {"num_classes": 10}, {}))


def squared(shape: ScaledShape) -> float:
    """A cost in closed form: quadratic in the width, linear in the depth, relative to the published shape."""
    return shape.width**2 * shape.depth


@pytest.mark.parametrize(
    ("scaling", "target", "width", "depth"),
    [
        (Scaling(64, (2, 2, 2, 2), 2, lambda w, d: {}, 1.0), 1.0, 1.0, 1.0),
        (Scaling(64, (2, 2, 2, 2), 2, lambda w, d: {}, 1.0), 0.25, 0.5, 1.0),
        (Scaling(64, (2, 2, 2, 2), 2, lambda w, d: {}, 1.0), 2.25, 1.5, 1.0),  # width precedes depth
        (Scaling(4, (2, 2, 2, 2), 4, lambda w, d: {}, 1.0), 1.5, 1.0, 1.5),  # no width fits, so depth does
        (Scaling(4, (2, 2, 2, 2), 4, lambda w, d: {}, 1.0), 6.0, 2.0, 1.5),  # neither fits alone
        (Scaling(64, (), 1, lambda w, d: {}, 1.0), 0.5625, 0.75, 1.0),
    ],
)  # fmt: skip
def test_width_is_scaled_before_depth(scaling, target, width, depth):
    [(shape, cost), *_] = scaling.nearest(squared, target)
    assert (shape.width, shape.depth, cost) == (width, depth, target)


@given(st.floats(0.4, 3.5))
def test_no_shape_that_was_looked_at_is_closer(target):
    asked: dict[tuple[float, float], float] = {}

    def cost(shape: ScaledShape) -> float:
        asked[shape.width, shape.depth] = squared(shape)
        return squared(shape)

    found = MICRO.nearest(cost, target)
    offs = [abs(value / target - 1) for _, value in found]
    assert offs == sorted(offs)
    assert offs[0] == min(abs(value / target - 1) for value in asked.values())
    assert offs[0] <= 0.1  # micro is narrow: neighbouring widths differ by a quarter of the cost


def test_shapes_of_this_package_are_buildable():
    assert MICRO.ratio == 1 / 4
    assert MICRO.depths == (1, 1, 2, 1)
    assert (1, 1, 3, 1) in MICRO.patterns
    assert list(MICRO.widths)[:2] == [8, 10]
    options = MICRO.shape(18, (1, 1, 3, 1)).options
    network = create(Architecture("partialnet_micro", {"num_classes": 10, **options}, {}), searchable=True)
    assert [len(stage.blocks) for stage in network.stages] == [1, 1, 3, 1]
    given_shape = scaling_of(Architecture("partialnet_t0", {"embed_dim": 40, "depths": [2, 2, 2, 2]}, {}))
    assert (given_shape.width, given_shape.depths) == (40, (2, 2, 2, 2))


@pytest.mark.parametrize(
    ("model", "options", "width", "depths", "scaled"),
    [
        ("timm/resnet18", {}, 512, (2, 2, 2, 2), {"channels": (32, 64, 128, 256), "layers": (1, 1, 1, 1)}),
        ("timm/resnet26", {"channels": [16, 32]}, 32, (2, 2), {"channels": (8, 16), "layers": (1, 1)}),
        ("timm/convnext_atto", {}, 320, (2, 2, 6, 2), {"dims": (20, 40, 80, 160), "depths": (1, 1, 3, 1)}),
        ("torchvision/mobilenet_v2", {}, 64, (), {"width_mult": 0.5}),
    ],
)
def test_families_that_can_be_scaled(model, options, width, depths, scaled):
    scaling = scaling_of(Architecture(model, options, {}, ConversionRules()))
    assert (scaling.width, scaling.depths, scaling.ratio) == (width, depths, 1.0)
    half = tuple(depth // 2 for depth in depths)
    shape = scaling.shape(width // 2, half)
    assert shape.options == scaled
    assert (shape.width, shape.depth) == (0.5, 0.5 if depths else 1.0)
    if not options:
        whole, narrow = (
            sum(p.numel() for p in base_network(model, {"num_classes": 10, **given}).parameters())
            for given in ({}, shape.options)
        )
        assert narrow < whole / 2


def test_a_family_without_a_rule_is_named():
    with pytest.raises(ArchitectureError, match=r"timm/ghostnet_050: there is no rule .* take[s]? width_mult"):
        scaling_of(Architecture("timm/ghostnet_050", {"num_classes": 10}, {}, ConversionRules()))


RESNET = scaling_of(Architecture("timm/resnet18", {"channels": [16, 32, 64, 128]}, {}, ConversionRules()))


@settings(max_examples=examples(30))
@given(st.floats(0.15, 6))
@example(0.361328125)  # no stages in proportion are closer than 2.2 %
@example(0.16)  # nor than 4 % here
def test_a_resnet_has_a_shape_within_a_hundredth_or_two_of_every_cost(target):
    """The widths of its stages are free but even, so steps of the last one are fine, whatever the others do."""

    def cost(shape: ScaledShape) -> float:
        stages = zip(shape.options["channels"], shape.options["layers"], (16, 32, 64, 128), strict=True)
        return sum(layers * (width / published) ** 2 for width, layers, published in stages) / 8

    [closest, *_] = RESNET.all_near(cost, target)
    assert cost(closest) == pytest.approx(target, rel=0.02)
    assert all(width % 2 == 0 for width in closest.options["channels"])
