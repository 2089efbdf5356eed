"""The words of a budget: units, scopes, and how exactly it is met. No torch here."""

from __future__ import annotations

from typing import Literal

Unit = Literal["macs", "params", "latency"]
Scope = Literal["conv", "network"]
TOLERANCE = 0.02
"""Relative share by which the cost of a result may differ from its target."""
