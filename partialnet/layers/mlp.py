"""The MLP of a block: pointwise convolutions to a hidden width and back."""

# No postponed annotations: torch.fx hands the types of forward to TorchScript, which accepts no strings.
from torch import Tensor, nn

from partialnet.layers.folding import Absorb, Folding, NormAfter, ReluAfter


class Mlp(nn.Module):
    """Pointwise expansion and reduction, then ``spatial``: attention on half of the channels (PAT_sp), or nothing."""

    def __init__(self, dim: int, hidden_dim: int, act_layer: type[nn.Module], spatial: nn.Module) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(dim, hidden_dim, 1, bias=False)
        self.norm = nn.BatchNorm2d(hidden_dim)
        self.act = act_layer()
        self.fc2 = nn.Conv2d(hidden_dim, dim, 1, bias=False)
        self.spatial = spatial

    def foldings(self) -> list[Folding]:
        """Foldings of the inference form."""
        return [NormAfter("fc1", "norm"), ReluAfter("fc1", "act"), Absorb("fc2", "spatial")]

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, dim, H, W] to the same shape."""
        out: Tensor = self.spatial(self.fc2(self.act(self.norm(self.fc1(x)))))
        return out
