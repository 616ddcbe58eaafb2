"""What all environments share: Gymnasium over a process of n rows."""
