"""Compression: small functions, each with a stated guarantee, and the steps that recipes list."""

from .steps import STEPS, find_step

__all__ = ["STEPS", "find_step"]
