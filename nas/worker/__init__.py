"""Processes that run jobs: the worker, its children, and the lease of a search in the user's own process."""
