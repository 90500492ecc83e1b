"""The search for the best model within a budget of bytes, milliseconds and memory."""

from .budget import Budget, parse_bytes, parse_milliseconds, parse_seconds
from .job import fit
from .space import Space

__all__ = ["Budget", "Space", "fit", "parse_bytes", "parse_milliseconds", "parse_seconds"]
