"""The best ensemble of trained files that fits a byte limit, as one file that is scored again."""

from ..search.ensemble import ensemble

__all__ = ["ensemble"]
