"""Layers: partial convolution, attention on the remaining channels, and the layer that learns its split."""
