"""Studies: many trainings that together fill one table of the paper, or search for a configuration."""
