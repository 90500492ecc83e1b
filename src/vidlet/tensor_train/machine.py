"""What elementary steps cost on a machine: the measured constants behind every plan.

A product of matrices costs a call, its FLOPs at one rate (products with few columns at a worse one), and what does
not fit the cache: reading, and writing to memory that is allocated afresh. A reordering copies element by element.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.nn import functional


@dataclass(frozen=True)
class Machine:
    """Constants of one machine and one thread; times in seconds, float32."""

    call_s: float
    flops_per_s: float
    narrow: int  # products with fewer columns are slow: they cost as many columns as ``narrow_columns``
    narrow_columns: int
    cache_bytes: int  # reads up to so many bytes, and writes of half as many, are free
    read_bytes_per_s: float
    write_bytes_per_s: float
    copy_elements_per_s: float
    conv_flops_per_s: float  # of a dense convolution

    def product_s(self, rows: int, inner: int, columns: int) -> float:
        """(rows, inner) @ (inner, columns)."""
        wide = columns if columns >= self.narrow else self.narrow_columns
        work = 2 * rows * inner * (wide if rows > 1 else columns) / self.flops_per_s
        return self.call_s + work + self._read_s(4 * inner * (rows + columns)) + self._write_s(4 * rows * columns)

    def copy_s(self, elements: int) -> float:
        """Reorder so many numbers."""
        return self.call_s + elements / self.copy_elements_per_s + self._write_s(4 * elements)

    def _read_s(self, count: int) -> float:
        return count / self.read_bytes_per_s if count > self.cache_bytes else 0.0

    def _write_s(self, count: int) -> float:
        return count / self.write_bytes_per_s if 2 * count > self.cache_bytes else 0.0


# Measured on one core of an AMD EPYC with AVX-512, torch 2.13, one thread: `measure_machine()`.
EPYC = Machine(
    call_s=3e-6,
    flops_per_s=80e9,
    narrow=16,
    narrow_columns=40,
    cache_bytes=8_000_000,
    read_bytes_per_s=15e9,
    write_bytes_per_s=4.5e9,
    copy_elements_per_s=1.1e9,
    conv_flops_per_s=60e9,
)


def measure_machine() -> Machine:
    """The constants of this machine at torch's present number of threads; takes about a second and 100 MB."""
    a, b = torch.randn(1024, 256), torch.randn(256, 256)
    call_s = _seconds(lambda: a[:1, :4] @ b[:4, :4], 200)
    flops_per_s = 2 * 1024 * 256 * 256 / _seconds(lambda: a @ b, 20)
    slim = b[:, :4].contiguous()
    narrow_columns = round(_seconds(lambda: a @ slim, 20) * flops_per_s / (2 * 1024 * 256))
    weight, row = torch.randn(8192, 2048), torch.randn(1, 8192)
    read = weight.numel() * 4 / _seconds(lambda: row @ weight, 7)
    column, wide = torch.randn(8192, 1), torch.randn(1, 2048)
    write = weight.numel() * 4 / _seconds(lambda: column @ wide, 7)
    cube = torch.randn(640, 20, 4, 4)
    copy = cube.numel() / _seconds(lambda: cube.transpose(1, 2).contiguous(), 20)
    clip, kernel = torch.randn(1, 32, 8, 16, 16), torch.randn(32, 32, 3, 3, 3)
    conv = 2 * 2048 * kernel.numel() / _seconds(lambda: functional.conv3d(clip, kernel, padding=1), 7)
    return Machine(
        call_s=2 * call_s,
        flops_per_s=flops_per_s,
        narrow=EPYC.narrow,
        narrow_columns=max(narrow_columns, EPYC.narrow),
        cache_bytes=EPYC.cache_bytes,
        read_bytes_per_s=read,
        write_bytes_per_s=write,
        copy_elements_per_s=copy,
        conv_flops_per_s=conv,
    )


def _seconds(call: Callable[[], object], repeat: int) -> float:
    """The median time of one call."""
    call()
    times = []
    for _ in range(repeat):
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
    return statistics.median(times)
