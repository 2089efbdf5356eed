"""Whole studies as files that travel: to a colleague, into another store, or to an issue."""
