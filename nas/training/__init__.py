"""One training on one machine: that of a trial, or a standalone one. Loads torch, but never Ray."""
