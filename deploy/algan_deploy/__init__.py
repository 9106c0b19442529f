"""Putting bundles to work on a machine, and telling what that machine can do."""
