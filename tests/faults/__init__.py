"""Faults injected into real searches: kill -9 and signals at their processes, and what must hold afterwards."""
