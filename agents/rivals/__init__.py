"""The methods that REML is compared with, one a file, each a command."""
