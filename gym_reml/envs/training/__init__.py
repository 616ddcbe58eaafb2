"""What `NetBuild` and environments like it share."""
