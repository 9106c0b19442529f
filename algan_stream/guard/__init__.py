"""Camera faults apart from defects: what is wrong with the picture, not with the part; see docs/guard.md."""
