"""One training on one machine: of a trial, or on its own. Loads torch, never Ray."""
