"""An episode of building and training a network, drawn and written."""
