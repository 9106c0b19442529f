"""Subcommands of `algan-stream`, one file each."""
