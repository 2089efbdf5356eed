"""Network families, registered with timm on import."""
