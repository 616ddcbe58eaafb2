"""What there is: the registered environments, a line each or in full. Needs the package's core dependencies alone."""
