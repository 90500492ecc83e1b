"""Files that are whole or absent: atomic writing and content hashes."""

import contextlib
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; on success it becomes ``path``, on any error it is removed.

    The temporary name keeps the suffix, for writers that choose a format by it. Parents are made. The content is
    flushed to the disk before the rename, so that a crash leaves either the old file or the new one.
    """
    final = Path(path)
    final.parent.mkdir(parents=True, exist_ok=True)
    draft = final.with_name(f".{final.stem}.{os.getpid()}.part{final.suffix}")
    try:
        yield draft
        with draft.open("rb") as handle:
            os.fsync(handle.fileno())
        draft.replace(final)
    except OSError as error:  # a full disk names no file, and the draft's name would say nothing
        if error.filename is None or str(error.filename) == str(draft):
            error.filename = str(final)
        raise
    finally:
        draft.unlink(missing_ok=True)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a whole text file (UTF-8), or nothing."""
    with atomic_path(path) as draft:
        draft.write_text(text, encoding="utf-8")


def write_bytes(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a whole binary file, or nothing."""
    with atomic_path(path) as draft:
        draft.write_bytes(data)


def sha256_of(path: str | os.PathLike[str]) -> str:
    """Return the SHA-256 of a file's content, in hexadecimal."""
    with Path(path).open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest() if hasattr(hashlib, "file_digest") else _digest(handle)


def cache_folder(*parts: str) -> Path:
    """A folder for what can be made again: below $VIDLET_CACHE, else $XDG_CACHE_HOME/vidlet, else ~/.cache/vidlet."""
    root = os.environ.get("VIDLET_CACHE") or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vidlet"
    return Path(root).joinpath(*parts)


def _digest(handle) -> str:  # type: ignore[no-untyped-def]  # Python 3.10 has no hashlib.file_digest
    digest = hashlib.sha256()
    while block := handle.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()
