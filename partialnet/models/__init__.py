"""Network families, registered with timm on import."""

from partialnet.models import partialnet, patnet

__all__ = ["partialnet", "patnet"]
