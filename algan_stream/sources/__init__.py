"""Sources: one file each. Each announces frames to the pipeline."""
