"""Latency, throughput, memory and bytes of a model file on this machine."""

from ..runtime import benchmark

__all__ = ["benchmark"]
