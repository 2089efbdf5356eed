"""PartialNet: a convolution on part of the channels, attention on the rest.

Papers: PartialNet (arXiv 2502.01303); PATNet (arXiv 2503.03148), the same networks. Original code:
github.com/haiduo/PartialNet. Skeleton after FasterNet (arXiv 2303.03667), network interface after timm.

``partialnet.variants`` holds widths, depths and activations, ``partialnet.models.entrypoints`` the names for timm. Each
partial convolution is called ``stages.{i}.blocks.{j}.mixer``; this name is its key in an architecture's active
channels.
"""

# No postponed annotations: torch.fx hands the types of forward to TorchScript, which accepts no strings.
import inspect
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import timm
from timm.layers import SelectAdaptivePool2d, trunc_normal_
from timm.models import build_model_with_cfg, register_notrace_function, register_notrace_module
from timm.models._features import feature_take_indices
from torch import Tensor, nn

from partialnet.architecture import Architecture
from partialnet.blocks import block_names
from partialnet.errors import ArchitectureError
from partialnet.layers.channel_attention import gaussian_statistics
from partialnet.layers.matrix_conv import MatrixConv2d
from partialnet.layers.mlp import Mlp
from partialnet.layers.norms import checkpoint_blocks
from partialnet.layers.partial_conv import RestKind, make_rest
from partialnet.layers.recording import is_recorded, is_scripting
from partialnet.layers.self_attention import RelativePositionBias
from partialnet.layers.spatial_attention import FullSpatialAttention, GatedHalf, PartialSpatialAttention
from partialnet.models.block import Block
from partialnet.models.chosen import Chosen, hidden_width, hidden_widths, is_present, searched_kinds
from partialnet.models.embedding import PatchEmbed, PatchMerging, ResizedPatchEmbed
from partialnet.models.mixers import build_mixer
from partialnet.models.options import ACTIVATIONS, AttentionKind, MixerKind, attention_of, check_options, default_rests
from partialnet.variants import PREFIX, VARIANTS, model_name

__all__ = ["PartialNet", "build_variant", "create"]

_NO_OPTIONS = frozenset(
    {
        "active_channels", "hidden_channels", "absent_blocks", "kernel_sizes", "attended_channels", "searchable",
        "level_step", "registered_name",
    }
)  # fmt: skip

# Code that depends on the size of a map cannot be traced symbolically (torch.fx), so it stays one node.
register_notrace_function(gaussian_statistics)
register_notrace_module(RelativePositionBias)
register_notrace_module(GatedHalf)
register_notrace_module(MatrixConv2d)


class Stage(nn.Module):
    """Blocks of one width, after a merging if the width changes."""

    def __init__(self, downsample: nn.Module, blocks: Sequence[nn.Module]) -> None:
        super().__init__()
        self.grad_checkpointing = False
        self.downsample = downsample
        self.blocks = nn.Sequential(*blocks)

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, C, H, W] to the stage's width and map."""
        x = self.downsample(x)
        if self.grad_checkpointing and self.training and not is_scripting():
            x = checkpoint_blocks(self.blocks, x)
        else:
            x = self.blocks(x)
        return x


class PartialNet(nn.Module):
    """Embedding, stages of partial-convolution blocks, head.

    Args:
        in_chans: Number of channels of the image.
        num_classes: Number of outputs; 0 leaves the classifier out.
        global_pool: Pooling: ``"avg"``, or ``""`` to keep the map.
        embed_dim: Width of the first stage; each merging doubles it.
        depths: Number of blocks of each stage.
        mlp_ratio: Hidden width of the MLP, divided by the stage's width.
        act_layer: Activation: ``"gelu"`` or ``"relu"``; the head uses it as well.
        patch_size: Kernel and stride of the embedding, in pixels.
        merge_strides: Kernel and stride of the merging before each stage but the first.
        feature_dim: Width of the head.
        rests: Operation of each stage on the channels that are not convolved (see ``PartialConv2d``; ``"identity"`` is
            PConv). None means self-attention in the last stage, and channel attention in the others.
        mixers: Spatial mixing of each stage: ``"partial"``, or ``"conv"`` or ``"depthwise"`` on all channels, without
            attention. None means partial in all.
        full_attention: Attentions that act on all channels instead of the remaining ones, among ``"channel"``,
            ``"spatial"`` and ``"self"``.
        use_spatial_attn: Whether the MLPs end in PAT_sp.
        num_heads: Number of heads of the self-attention.
        drop_rate: Dropout before the classifier.
        drop_path_rate: Stochastic depth rate of the last block; it grows linearly from 0.
        attn_drop_rate: Dropout of the self-attention.
        kernel_size: Kernel size of the partial convolutions.
        resolution: Height and width in pixels to which the network resizes its images; None leaves them as they are.
        active_channels: Number of convolved channels by layer name; other layers convolve a quarter.
        hidden_channels: Hidden width by name of the MLP, where it differs from ``mlp_ratio``.
        absent_blocks: Names of the blocks that are left out; they are the identity.
        kernel_sizes: Kernel size by name of the partial convolution, where it differs from ``kernel_size``.
        attended_channels: Number of channels that the attention serves by name of the partial convolution, where it
            leaves some out.
        searchable: Kinds of choices to learn, of ``"split"``, ``"attention"``, ``"kernel"``, ``"mlp_ratio"`` and
            ``"depth"``; True means the split. The choices start from the numbers above.
        level_step: Step between the numbers of active channels to choose from; None for halvings of the width.
        registered_name: Registered model name for :meth:`architecture`.

    Raises:
        ArchitectureError: If an option is out of its range, a layer is unknown or a width cannot be split; the message
            gives the layer, the value and what would be right.
    """

    def __init__(
        self,
        in_chans: int = 3,
        num_classes: int = 1000,
        global_pool: str = "avg",
        *,
        embed_dim: int,
        depths: Sequence[int],
        mlp_ratio: float = 2.0,
        act_layer: str = "gelu",
        patch_size: int = 4,
        merge_strides: Sequence[int] = (2, 2, 2),
        feature_dim: int = 1280,
        rests: Sequence[RestKind] | None = None,
        mixers: Sequence[MixerKind] | None = None,
        full_attention: Sequence[AttentionKind] = (),
        use_spatial_attn: bool = True,
        num_heads: int = 4,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        attn_drop_rate: float = 0.1,
        kernel_size: int = 3,
        resolution: int | None = None,
        active_channels: Mapping[str, int] | None = None,
        hidden_channels: Mapping[str, int] | None = None,
        absent_blocks: Collection[str] = (),
        kernel_sizes: Mapping[str, int] | None = None,
        attended_channels: Mapping[str, int] | None = None,
        searchable: bool | Collection[str] = False,
        level_step: int | None = None,
        registered_name: str = PREFIX + "t0",
    ) -> None:
        super().__init__()
        depths, merge_strides = tuple(depths), tuple(merge_strides)
        rests = default_rests(len(depths)) if rests is None else tuple(rests)
        mixers = tuple("partial" for _ in depths) if mixers is None else tuple(mixers)
        options: dict[str, Any] = {
            "in_chans": in_chans, "embed_dim": embed_dim, "depths": depths, "mlp_ratio": mlp_ratio,
            "act_layer": act_layer, "patch_size": patch_size, "merge_strides": merge_strides,
            "feature_dim": feature_dim, "rests": rests, "use_spatial_attn": use_spatial_attn, "num_heads": num_heads,
            "drop_rate": drop_rate, "drop_path_rate": drop_path_rate, "attn_drop_rate": attn_drop_rate,
            "kernel_size": kernel_size, "mixers": mixers, "full_attention": tuple(sorted(full_attention)),
            "resolution": resolution,
        }  # fmt: skip
        check_options(options, num_classes, global_pool)
        self._options = options
        self._registered_name = registered_name
        self.num_classes = num_classes
        self.in_chans = in_chans
        self.searched = searched_kinds(searchable)
        self.searchable = bool(self.searched)
        self._level_step = level_step
        self.grad_checkpointing = False
        embedding = in_chans, embed_dim, patch_size
        self.patch_embed = PatchEmbed(*embedding) if resolution is None else ResizedPatchEmbed(*embedding, resolution)
        chosen = Chosen(
            active_channels or {}, hidden_channels or {}, frozenset(absent_blocks), kernel_sizes or {},
            attended_channels or {},
        )  # fmt: skip
        self.stages = nn.Sequential(*self._build_stages(chosen))
        self.feature_info = [
            {"num_chs": width, "reduction": reduction, "module": f"stages.{i}"}
            for i, (width, reduction) in enumerate(zip(self._widths(), self._reductions(), strict=True))
        ]
        self.num_features = self._widths()[-1]
        self.head_hidden_size = feature_dim
        self.global_pool = SelectAdaptivePool2d(pool_type=global_pool)
        self.conv_head: nn.Module = nn.Conv2d(self.num_features, feature_dim, 1, bias=False)
        self.act: nn.Module = ACTIVATIONS[act_layer]()
        self.flatten: nn.Module = nn.Flatten(1) if global_pool else nn.Identity()
        self.head_drop: nn.Module = nn.Dropout(drop_rate) if drop_rate > 0 else nn.Identity()
        self.classifier = nn.Linear(feature_dim, num_classes) if num_classes > 0 else nn.Identity()
        self.apply(_init_weights)

    def shape_name(self) -> str:
        """Return the width of the first stage and the resolution in words, such as ``width 16, resolution 24``."""
        resolution = self._options["resolution"]
        seen = "" if resolution is None else f", resolution {resolution}"
        return f"width {self._options['embed_dim']}{seen}"

    def _widths(self) -> list[int]:
        return [self._options["embed_dim"] * 2**i for i in range(len(self._options["depths"]))]

    def _reductions(self) -> list[int]:
        strides = (self._options["patch_size"], *self._options["merge_strides"])
        return [math.prod(strides[: i + 1]) for i in range(len(strides))]

    def _build_stages(self, chosen: Chosen) -> list[Stage]:
        options = self._options
        chosen.check(options["depths"])
        names = block_names(options["depths"])
        blocks: dict[int, list[nn.Module]] = {}
        for index, name in enumerate(names):
            rate = options["drop_path_rate"] * index / max(1, len(names) - 1)
            stage = int(name.split(".")[1])
            blocks.setdefault(stage, []).append(self._build_block(name, stage, chosen, rate))
        strides = (None, *options["merge_strides"])
        return [
            Stage(nn.Identity() if stride is None else PatchMerging(self._widths()[i - 1], stride), blocks[i])
            for i, stride in enumerate(strides)
        ]

    def _build_block(self, name: str, stage: int, chosen: Chosen, drop_path: float) -> nn.Module:
        # One block stays, so that each network has a partial convolution.
        droppable = "depth" in self.searched and name != f"stages.{len(self._options['depths']) - 1}.blocks.0"
        if name in chosen.absent and not droppable:
            return nn.Identity()
        options, width = self._options, self._widths()[stage]
        heads = {"num_heads": options["num_heads"], "attn_drop": options["attn_drop_rate"]}
        rest: RestKind = options["rests"][stage] if options["mixers"][stage] == "partial" else "identity"
        full = attention_of(rest) in options["full_attention"]
        try:
            mixer = build_mixer(
                f"{name}.mixer", options["mixers"][stage], width, "identity" if full else rest, chosen,
                kernel_size=options["kernel_size"], heads=heads, searched=self.searched, level_step=self._level_step,
            )  # fmt: skip
            attention = make_rest(rest, width, **heads) if full else None
        except ArchitectureError as error:
            raise ArchitectureError(f"{name}.mixer: {error}") from error
        mlp = self._build_mlp(f"{name}.mlp", width, chosen.hidden_channels.get(f"{name}.mlp"))
        if not droppable:
            return Block(mixer, attention, mlp, drop_path, rest == "self_attention")
        # Imported here, because a fixed network needs nothing of the search.
        from partialnet.models.searchable_block import SearchableBlock

        present = name not in chosen.absent
        return SearchableBlock(
            mixer, attention, mlp, drop_path, rest == "self_attention", channels=width, present=present
        )

    def _build_mlp(self, name: str, width: int, hidden: int | None) -> nn.Module:
        options = self._options
        spatial = FullSpatialAttention if "spatial" in options["full_attention"] else PartialSpatialAttention
        parts = (
            ACTIVATIONS[options["act_layer"]],
            spatial(width) if options["use_spatial_attn"] else nn.Identity(),
        )
        usual = round(width * options["mlp_ratio"])
        if "mlp_ratio" not in self.searched:
            return Mlp(width, usual if hidden is None else hidden, *parts)
        from partialnet.layers.searchable_mlp import SearchableMlp

        try:
            return SearchableMlp(width, hidden_widths(usual), *parts, usual if hidden is None else hidden)
        except ArchitectureError as error:
            raise ArchitectureError(f"{name}: {error}") from error

    def architecture(self) -> Architecture:
        """Return the complete architecture of this network: ``create`` of it has the same state dict layout.

        Raises:
            ArchitectureError: If layers were pruned, so that no options describe it.
        """
        if isinstance(self.conv_head, nn.Identity):
            raise ArchitectureError("a network pruned for its intermediate maps has no architecture of its own")
        pool = self.global_pool.pool_type
        options = {**self._options, "num_classes": self.num_classes, "global_pool": pool}
        # Recorded only if they are unusual, so that other networks keep their description and id.
        usual_mixers = ("partial",) * len(options["depths"])
        for key, usual in (("mixers", usual_mixers), ("full_attention", ()), ("resolution", None)):
            if options[key] == usual:
                del options[key]
        modules = dict(self.named_modules())
        blocks = block_names(options["depths"])
        if strange := [name for name in blocks if name not in modules]:
            raise ArchitectureError(f"{strange[0]} is missing: parts of the network were wrapped, compiled or removed")
        present = [name for name in blocks if is_present(modules[name])]
        absent = [name for name in blocks if name not in present]
        active = {
            f"{name}.mixer": int(mixer.active_channels)
            for name in present
            if not isinstance(mixer := modules[f"{name}.mixer"], nn.Conv2d)
        }
        hidden = {f"{name}.mlp": hidden_width(modules[f"{name}.mlp"]) for name in present}
        kernels = {
            name: mixer.kernel_size
            for name in active
            if (mixer := modules[name]).kernel_size != options["kernel_size"]
        }
        attended = {
            name: int(mixer.attended_channels)
            for name, n in active.items()
            if (mixer := modules[name]).attended_channels < mixer.channels - n
        }
        ratio = options["mlp_ratio"]
        other = {
            name: width
            for name, width in hidden.items()
            if width != round(ratio * self._widths()[int(name.split(".")[1])])
        }
        return Architecture(self._registered_name, options, active, None, other, absent, kernels, attended)

    def map_sizes(self, height: int, width: int) -> list[tuple[int, int]]:
        """Return height and width of each stage's map for an image of this size, in pixels.

        Raises:
            ArchitectureError: If a map would be smaller than 1x1; the message gives the stage, and what would be right.
        """
        sizes = []
        height, width = (self._options["resolution"] or size for size in (height, width))
        for i, reduction in enumerate(self._reductions()):
            if min(height, width) < reduction:
                strides = list(self._options["merge_strides"])
                raise ArchitectureError(
                    f"an image of {height}x{width} pixels leaves no map in stages.{i}, which is {reduction} times "
                    f"smaller: patch_size={self._options['patch_size']}, merge_strides={strides}; "
                    f"use smaller ones, or images of at least {self._reductions()[-1]} pixels"
                )
            # floor of floor: strides divide one after the other, and so does their product
            sizes.append((height // reduction, width // reduction))
        return sizes

    def no_weight_decay(self) -> set[str]:
        """Return the parameters without weight decay, besides one-dimensional ones."""
        return {name for name, _ in self.named_parameters() if name.endswith("position.table")}

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Return timm's patterns that group parameters by depth."""
        blocks = [
            (r"^stages\.(\d+)\.downsample", (0,)),
            (r"^stages\.(\d+)\.blocks\.(\d+)", None),
            (r"^conv_head", (99999,)),
        ]
        return {"stem": r"^patch_embed", "blocks": r"^stages\.(\d+)" if coarse else blocks}

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Trade time for memory in training: recompute each block in the backward pass."""
        self.grad_checkpointing = enable
        for stage in self.stages:
            if isinstance(stage, Stage):
                stage.grad_checkpointing = enable

    def get_classifier(self) -> nn.Module:
        """Return the last linear layer."""
        return self.classifier

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the classifier, and the pooling if given (``""`` keeps the map); new weights are initialised.

        Raises:
            ArchitectureError: If an argument is out of its range.
        """
        pool = self.global_pool.pool_type if global_pool is None else global_pool
        check_options(self._options, num_classes, pool)
        reference = next(self.parameters())
        self.num_classes = num_classes
        self.global_pool = SelectAdaptivePool2d(pool_type=pool)
        self.flatten = nn.Flatten(1) if pool else nn.Identity()
        self.classifier = nn.Linear(self.head_hidden_size, num_classes) if num_classes > 0 else nn.Identity()
        self.classifier.apply(_init_weights).to(device=reference.device, dtype=reference.dtype).train(self.training)

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | list[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        """Return the maps of selected stages, after the last stage's unless ``intermediates_only``.

        Args:
            x: Images [B, in_chans, H, W].
            indices: Last n stages for an integer, all stages for None, otherwise these stages.
            norm: Argument of timm's interface without effect: there is no final normalisation.
            stop_early: Whether to skip the stages after the last selected one.
            output_fmt: Format of the maps, ``"NCHW"``.
            intermediates_only: Whether to leave out the final map.

        Raises:
            ArchitectureError: If ``output_fmt`` is another format.
        """
        del norm
        if output_fmt != "NCHW":
            raise ArchitectureError(f"output_fmt is {output_fmt!r}, but must be 'NCHW'")
        take, last = feature_take_indices(len(self.stages), indices)
        x = self.patch_embed(x)
        intermediates = []
        for i, stage in enumerate(self.stages[: last + 1] if stop_early else self.stages):
            x = stage(x)
            if i in take:
                intermediates.append(x)
        return intermediates if intermediates_only else (x, intermediates)

    def prune_intermediate_layers(
        self, indices: int | list[int] = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Drop the layers that the selected intermediates do not need; return the indices of the intermediates."""
        del prune_norm
        take, last = feature_take_indices(len(self.stages), indices)
        shortened = last < len(self.stages) - 1
        self.stages = self.stages[: last + 1]
        if shortened:
            self.num_features = self._widths()[last]
        if prune_head or shortened:
            self.conv_head = nn.Identity()
            self.act = nn.Identity()
            self.head_hidden_size = self.num_features
            self.reset_classifier(0, "")
        return list(take)

    def forward_features(self, x: Tensor) -> Tensor:
        """Map images [B, in_chans, H, W] to the last stage's map.

        Raises:
            ArchitectureError: If the image is too small, or has another number of channels.
        """
        if not is_scripting():
            self._check_input(x)
        x = self.patch_embed(x)
        out: Tensor = self.stages(x)
        return out

    def _check_input(self, x: Tensor) -> None:
        if is_recorded(x):
            return
        if x.dim() != 4 or x.shape[1] != self.in_chans:
            raise ArchitectureError(
                f"the input has shape {list(x.shape)}, but must be [batch, {self.in_chans}, height, width]"
            )
        self.map_sizes(x.shape[2], x.shape[3])

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Map the last stage's map to logits [B, num_classes], or to the input of the classifier."""
        x = self.flatten(self.act(self.conv_head(self.global_pool(x))))
        x = self.head_drop(x)
        return x if pre_logits else self.classifier(x)

    def forward(self, x: Tensor) -> Tensor:
        """Map images [B, in_chans, H, W] to logits [B, num_classes]."""
        return self.forward_head(self.forward_features(x))


def create(
    architecture: Architecture, *, searchable: bool | Collection[str] = False, level_step: int | None = None
) -> PartialNet:
    """Build the network that ``architecture`` describes, with new weights.

    Args:
        architecture: Architecture to build; its missing options are the variant's.
        searchable: Kinds of choices to learn, see :class:`PartialNet`; they start from those of the architecture.
        level_step: Step between the numbers of active channels to choose from; None for halvings of the width.

    Raises:
        ArchitectureError: If the model or an option is unknown, or a layer cannot be built; the message says which.
    """
    name = model_name(architecture.model)
    known = set(inspect.signature(PartialNet).parameters) - _NO_OPTIONS
    unknown = sorted(set(architecture.options) - known)
    if unknown:
        raise ArchitectureError(f"{name}: unknown options {', '.join(unknown)}; known: {', '.join(sorted(known))}")
    network = timm.create_model(
        name,
        **architecture.options,
        active_channels=dict(architecture.active_channels),
        hidden_channels=dict(architecture.hidden_channels),
        absent_blocks=architecture.absent_blocks,
        kernel_sizes=dict(architecture.kernel_sizes),
        attended_channels=dict(architecture.attended_channels),
        searchable=searchable,
        level_step=level_step,
    )
    assert isinstance(network, PartialNet)
    return network


def _init_weights(module: nn.Module) -> None:
    # A network without values (device "meta") has none to set, and pretending to takes most of the time of building it.
    if isinstance(module, (nn.Linear, nn.Conv2d)) and not module.weight.is_meta:
        # The default bounds are +-2, and one draw in millions hits them: many networks would have such a weight.
        trunc_normal_(module.weight, std=0.02, a=-0.1, b=0.1)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def build_variant(variant: str, pretrained: bool = False, **kwargs: Any) -> PartialNet:
    """Build a variant as timm does: its registered names call this function.

    Args:
        variant: Key of ``VARIANTS``.
        pretrained: Whether to load weights; there are none, so timm refuses.
        kwargs: Options of timm (``features_only``, ...) and of the constructor; missing ones are the variant's.
    """
    model_args = asdict(VARIANTS[variant])
    del model_args["input_size"]
    # A caller may want another kind of features; what it does not name stays.
    features = {"out_indices": (0, 1, 2, 3), "flatten_sequential": True, **(kwargs.pop("feature_cfg", None) or {})}
    network: PartialNet = build_model_with_cfg(
        PartialNet,
        PREFIX + variant,
        pretrained,
        feature_cfg=features,
        **{**model_args, "registered_name": PREFIX + variant, **kwargs},
    )
    return network
