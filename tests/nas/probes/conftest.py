"""Fixtures of the probes' tests."""

from tests.nas.probes.clock import clock  # noqa: F401
