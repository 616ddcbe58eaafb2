"""What environments of trials share, and the wrapper that makes trials of any environment."""
