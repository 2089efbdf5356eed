"""Measures of a network itself: counts by fvcore, latency by the clock."""
