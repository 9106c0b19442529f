"""What the doctor looks at: a module for each part of a machine, a function for each check."""
