"""The section of a study definition on its network: of this package's family, or a converted one. No torch, no ray."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from nas.definition.space import Real, StrictModel, Whole, parse_ratio
from partialnet.architecture import Architecture, ConversionRules
from partialnet.errors import ArchitectureError
from partialnet.variants import VARIANTS, Variant, model_name


class ModelSpec(StrictModel):
    """A network of this package's family: the name of a variant and the options that differ from it."""

    name: str = "micro"
    embed_dim: Whole | None = Field(default=None, ge=8, le=1024)
    depths: tuple[Annotated[Whole, Field(ge=1, le=64)], ...] | None = Field(default=None, min_length=4, max_length=4)
    patch_size: Whole | None = Field(default=None, ge=1, le=32)
    merge_strides: tuple[Annotated[Whole, Field(ge=1, le=4)], ...] | None = Field(
        default=None, min_length=3, max_length=3
    )
    feature_dim: Whole | None = Field(default=None, ge=8, le=8192)
    drop_path_rate: Real | None = Field(default=None, ge=0, lt=1)
    act_layer: Literal["gelu", "relu"] | None = None
    resolution: Whole | None = Field(
        default=None, ge=4, le=1024, description="pixels to which the network resizes its images; as they are if absent"
    )

    @field_validator("name")
    @classmethod
    def _known(cls, value: str) -> str:
        try:
            model_name(value)
        except ArchitectureError as error:
            raise ValueError(str(error)) from None
        return value

    @property
    def model(self) -> str:
        """Registered model name."""
        return model_name(self.name)

    @property
    def variant(self) -> Variant:
        """Values of the variant."""
        return VARIANTS[self.model.removeprefix("partialnet_")]

    @property
    def options(self) -> dict[str, Any]:
        """Options that the definition gives."""
        return self.model_dump(exclude={"name"}, exclude_none=True)

    @property
    def smaller(self) -> dict[str, Any]:
        """Options that make the network smaller, with their values."""
        return {"embed_dim": self.value("embed_dim")}

    def architecture(self, active_channels: Mapping[str, int], **options: Any) -> Architecture:
        """Return the architecture, with further options such as the number of classes."""
        return Architecture(self.model, {**self.options, **options}, active_channels)

    def reshaped(self, options: Mapping[str, Any]) -> ModelSpec:
        """Return the same network with other options."""
        return ModelSpec(**{**self.model_dump(exclude_none=True), **options})

    def value(self, option: str) -> Any:
        """Return the value of ``option``: the given one, or that of the variant."""
        given = getattr(self, option)
        return getattr(self.variant, option) if given is None else given


WEIGHTS = r"^[A-Za-z0-9][A-Za-z0-9._-]*\.(safetensors|pt|pth|bin)$"
"""Name of a file with weights: a file directly under a data root, never a path."""

Scalar = bool | int | float | str
"""Value of an option of a network's constructor."""


class ConvertedSpec(StrictModel):
    """A network of another family, whose spatial convolutions learn their split.

    Its source is one of ``timm``, ``torchvision`` and ``installed``, the entry points of installed packages. Patterns
    name convolutions as the network does; ``*`` stands for any text.
    """

    timm: str | None = Field(default=None, min_length=1, description="name of a network of timm")
    torchvision: str | None = Field(default=None, min_length=1, description="name of a classifier of torchvision")
    installed: str | None = Field(default=None, min_length=1, description="name that an installed package registered")
    options: dict[str, Scalar | tuple[Scalar, ...]] = Field(default_factory=dict, description="constructor arguments")
    convert: tuple[str, ...] = Field(default=("*",), min_length=1, description="patterns of the convolutions to split")
    keep: tuple[str, ...] = Field(default=(), description="patterns of the convolutions that stay whole")
    rest: Literal["channel_attention", "identity", "se_attention", "srm_attention", "self_attention"] = (
        "channel_attention"
    )
    num_heads: Whole = Field(default=4, ge=1, le=64)
    attn_drop: Real = Field(default=0.1, ge=0, lt=1)
    min_ratio: dict[str, float] = Field(default_factory=dict, description="lowest ratio of a search by pattern")

    max_ratio: dict[str, float] = Field(default_factory=dict, description="highest ratio of a search by pattern")
    weights: Annotated[str, Field(pattern=WEIGHTS)] | None = Field(
        default=None, description="file of a data root with the weights to start from: safetensors, or a state dict"
    )
    fresh: tuple[str, ...] = Field(
        default=(), description="patterns of the tensors that start new although there are weights, such as fc.*"
    )

    @field_validator("min_ratio", "max_ratio", mode="before")
    @classmethod
    def _parse_ratios(cls, value: Any) -> Any:
        return {key: parse_ratio(ratio) for key, ratio in value.items()} if isinstance(value, Mapping) else value

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        given = [source for source in SOURCES if getattr(self, source) is not None]
        if len(given) != 1:
            got = ", ".join(given) or "none"
            raise ValueError(f"give one source of the network, of {', '.join(SOURCES)}; got {got}")
        if self.fresh and self.weights is None:
            raise ValueError("fresh: all tensors start new without 'weights'; leave it out, or name a file")
        if fixed := sorted({"num_classes", "in_chans"} & set(self.options)):
            raise ValueError(f"options: {', '.join(fixed)} follows from the data set; leave it out")
        return self

    @property
    def model(self) -> str:
        """Source and name of the network, such as ``timm/resnet18``."""
        [(source, name)] = [(source, getattr(self, source)) for source in SOURCES if getattr(self, source)]
        return f"{source}/{name}"

    @property
    def smaller(self) -> dict[str, Any]:
        """Options that make the network smaller, with their values; they are unknown here."""
        return {}

    def architecture(self, active_channels: Mapping[str, int], **options: Any) -> Architecture:
        """Return the architecture, with further options such as the number of classes."""
        rules = ConversionRules(
            self.convert, self.keep, self.rest, self.num_heads, self.attn_drop, self.min_ratio, self.max_ratio
        )
        return Architecture(self.model, {**self.options, **options}, active_channels, rules)

    def reshaped(self, options: Mapping[str, Any]) -> ConvertedSpec:
        """Return the same network with other constructor arguments, which is not searched: upper bounds are left out.
        """
        # Bounds belong to the widths that are searched; at other widths they may leave a layer no choice.
        return self.model_copy(update={"options": {**self.options, **options}, "max_ratio": {}})


SOURCES = ("timm", "torchvision", "installed")
"""Keys of a definition's network that name a source of other families."""


def _family_of(value: Any) -> str:
    keys = value if isinstance(value, Mapping) else vars(value) if isinstance(value, StrictModel) else ()
    return "(converted)" if any(source in keys for source in SOURCES) else "(partialnet)"


# Names in parentheses are no keys, and are left out of messages.
NetworkSpec = Annotated[
    Annotated[ModelSpec, Tag("(partialnet)")] | Annotated[ConvertedSpec, Tag("(converted)")],
    Discriminator(_family_of),
]
"""The network of a definition: of this package's family, or a converted one."""
