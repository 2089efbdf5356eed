"""The strided convolutions of PartialNet: from the image to patches, and from one stage to the next."""

# No postponed annotations: torch.fx hands the types of forward to TorchScript, which accepts no strings.
import torch.nn.functional as F
from torch import Tensor, nn

from partialnet.layers.folding import Folding, NormAfter


class PatchEmbed(nn.Module):
    """Cut the image into patches: strided convolution, batch normalisation."""

    def __init__(self, in_chans: int, embed_dim: int, patch_size: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_chans, embed_dim, patch_size, patch_size, bias=False)
        self.norm = nn.BatchNorm2d(embed_dim)

    def foldings(self) -> list[Folding]:
        """Foldings of the inference form."""
        return [NormAfter("proj", "norm")]

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, in_chans, H, W] to [B, embed_dim, H // patch_size, W // patch_size]."""
        out: Tensor = self.norm(self.proj(x))
        return out


class ResizedPatchEmbed(PatchEmbed):
    """Resize the image to ``resolution`` x ``resolution`` pixels, then cut it into patches.

    The resolution is then a property of the network, like its width, whatever the images are.
    """

    def __init__(self, in_chans: int, embed_dim: int, patch_size: int, resolution: int) -> None:
        super().__init__(in_chans, embed_dim, patch_size)
        self.resolution = resolution

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, in_chans, H, W] to [B, embed_dim, resolution // patch_size, resolution // patch_size]."""
        size = [self.resolution, self.resolution]
        x = F.interpolate(x, size=size, mode="bilinear", align_corners=False)
        out: Tensor = self.norm(self.proj(x))
        return out


class PatchMerging(nn.Module):
    """Double the width on a map ``stride`` times smaller: strided convolution, batch normalisation."""

    def __init__(self, dim: int, stride: int) -> None:
        super().__init__()
        self.reduction = nn.Conv2d(dim, 2 * dim, stride, stride, bias=False)
        self.norm = nn.BatchNorm2d(2 * dim)

    def foldings(self) -> list[Folding]:
        """Foldings of the inference form."""
        return [NormAfter("reduction", "norm")]

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, dim, H, W] to [B, 2 * dim, H // stride, W // stride]."""
        out: Tensor = self.norm(self.reduction(x))
        return out
