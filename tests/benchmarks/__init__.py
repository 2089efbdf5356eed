"""Our own speed and quality. ``make bench`` runs all; ``python -m tests.benchmarks NAME`` one.

A benchmark prints ratios against a baseline timed in the same run, interleaved, as medians with their spread, and names
the machine, the versions and n.
"""
