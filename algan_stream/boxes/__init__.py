"""Boxes: one file each. Each says which parts of a frame are scored."""
