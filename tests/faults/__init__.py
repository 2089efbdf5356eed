"""Faults injected into real searches: kill -9 of their processes, and what must hold afterwards."""
