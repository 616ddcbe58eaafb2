"""Episodes and trials as pictures and texts: arrays in, nothing of the product is known here."""
