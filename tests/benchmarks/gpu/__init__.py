"""What a GPU machine is to show, in one command: ``python -m tests.benchmarks gpu``."""
