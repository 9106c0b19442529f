"""Training of ALGAN (arXiv 2202.10281): from a folder of good images to a model bundle."""
