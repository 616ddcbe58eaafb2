"""Methods on the same tasks under the same protocol: what is trained, tested and tabulated."""
