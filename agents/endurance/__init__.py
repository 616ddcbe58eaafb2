"""What the environments and commands endure: random configurations, many steps, kills and faults."""
