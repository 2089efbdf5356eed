"""Data sets by name, in memory or as folders of images."""
