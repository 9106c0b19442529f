"""Sinks: one file each. Each takes verdicts out of the service."""
