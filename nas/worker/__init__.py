"""Processes that run jobs: the worker, its children, and the lease of a search in one's own process."""
