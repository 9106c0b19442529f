"""`algan-stream build`: one file for each target."""
