"""How time and memory grow with the sizes of environments and meta-updates."""
