"""The block of PartialNet: a partial convolution, then an MLP."""

# No postponed annotations: torch.fx hands the types of forward to TorchScript, which accepts no strings.
from timm.layers import DropPath
from torch import Tensor, nn

from partialnet.layers.folding import Absorb, Folding, NormBefore
from partialnet.layers.partial_conv import PartialConv2d
from partialnet.layers.spatial_attention import Shortcut


class Block(nn.Module):
    """Mix space by a partial convolution, then channels by an MLP.

    With self-attention beside the convolution the mixer has a shortcut of its own: x = x + mixer(x); x = x + mlp(x).
    Otherwise one shortcut spans both: x = x + mlp(mixer(x)). Attention over all channels, which only ablations have,
    follows the mixer: attention(mixer(x)).
    """

    def __init__(
        self, mixer: nn.Module, attention: nn.Module | None, mlp: nn.Module, drop_path: float, mixer_shortcut: bool
    ) -> None:
        super().__init__()
        self.mixer_shortcut = mixer_shortcut
        self.mixer = mixer
        self.attention = attention
        self.mlp = mlp
        self.drop_path = DropPath(drop_path) if drop_path > 0 else nn.Identity()
        self.join: nn.Module = Shortcut()

    def foldings(self) -> list[Folding]:
        """Foldings of the inference form.

        They are the mixer's last normalisation, if only the MLP uses its output; and the gating at the end of the MLP,
        with the shortcut.
        """
        return [*self._mixer_foldings(), Absorb("mlp.fc2", "mlp.spatial", join="join")]

    def _mixer_foldings(self) -> list[Folding]:
        if self.mixer_shortcut:
            return []
        if self.attention is not None:
            return [NormBefore("attention.norm", "mlp.fc1")]
        rest = getattr(self.mixer, "rest", None)
        if not isinstance(self.mixer, PartialConv2d) or not hasattr(rest, "norm"):
            return []
        return [NormBefore("mixer.rest.norm", "mlp.fc1", start=self.mixer.channels - self.mixer.attended_channels)]

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, dim, H, W] to the same shape."""
        mixed = self.mixer(x)
        if self.attention is not None:
            mixed = self.attention(mixed)
        if self.mixer_shortcut:
            x = mixed = x + mixed
        out: Tensor = self.join(self.drop_path(self.mlp(mixed)), x)
        return out
