"""A training on a Ray cluster: its driver, and what each of its processes runs."""
