"""The table of learned optimizers."""

from __future__ import annotations

from .hierarchical import Hierarchical
from .per_parameter import PerParameter

RULES = {rule.name: rule for rule in (Hierarchical, PerParameter)}
"""Every learned optimizer by name. A new one is a file and a row here."""
