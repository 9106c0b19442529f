"""A rendered production line: parts, defects and a conveyor, for the demo and for tests without data."""
