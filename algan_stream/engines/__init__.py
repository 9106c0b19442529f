"""Engines: one file each. Each turns batches of network inputs into logits."""
