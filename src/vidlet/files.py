"""Files that are whole or absent: atomic writing, content hashes, and folders that one process uses at a time."""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import os
import platform
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from .errors import DataError

LONGEST_NAME = 255  # bytes, on the file systems that are in use
DRAFT_BYTES = 24  # of the name of a draft that are not its file's


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; on success it becomes ``path``, on any error it is removed.

    The temporary name keeps the suffix, for writers that choose a format by it. Parents are made. The content is
    flushed to the disk before the rename, so that a crash leaves either the old file or the new one. Drafts of this
    file that processes of this machine left when they were killed are removed. A link stays, and its file is written;
    what is no file (/dev/null, /dev/stdout, a named pipe) stays, too, and the whole content is copied into it.
    """
    final = Path(path)
    if _is_stream(final):
        with tempfile.TemporaryDirectory(prefix="vidlet-") as folder:
            whole = Path(folder) / final.name
            yield whole
            with whole.open("rb") as source, final.open("ab") as target:
                shutil.copyfileobj(source, target)
        return
    final = final.resolve() if final.is_symlink() else final
    machine = hashlib.sha256(platform.node().encode()).hexdigest()[:6]
    ending = f".{machine}-{os.getpid()}.part{final.suffix}"
    stem = _short(final)
    if final.name.startswith(".") and final.name.endswith(ending):  # a draft already: whoever made it renames it
        yield final
        return
    final.parent.mkdir(parents=True, exist_ok=True)
    _remove_drafts(final, stem, machine)
    draft = final.with_name(f".{stem}{ending}")
    try:
        yield draft
        with draft.open("rb") as handle:
            os.fsync(handle.fileno())
        draft.replace(final)
    except OSError as error:  # a full disk names no file, and the draft's name would say nothing
        if error.filename is None or str(error.filename) == str(draft):
            raise _named(error, final) from error
        raise
    finally:
        draft.unlink(missing_ok=True)


def _is_stream(path: Path) -> bool:
    """Whether a path is there and is a device, a pipe, or what the process has open."""
    try:
        status = path.stat()
    except (OSError, ValueError):
        return False
    opened = str(path).startswith(("/dev/fd/", "/dev/std", "/proc/self/fd/"))
    return opened or not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode))


def _short(final: Path) -> str:
    """The stem of a file's drafts: its own, or the begin of a long one and a hash, for a name that can be."""
    room = LONGEST_NAME - DRAFT_BYTES - len(os.fsencode(final.suffix))
    if len(os.fsencode(final.stem)) <= room:
        return final.stem
    known = hashlib.sha256(os.fsencode(final.stem)).hexdigest()[:8]
    return f"{final.stem[: max(0, room - 9) // 4]}-{known}"  # a letter takes up to four bytes


def _remove_drafts(final: Path, stem: str, machine: str) -> None:
    """Remove the drafts of a file whose process of this machine is gone."""
    if sys.platform == "win32":  # where asking whether a process lives would end it
        return
    begin, end = f".{stem}.{machine}-", f".part{final.suffix}"
    for found in os.scandir(final.parent):
        process = found.name.removeprefix(begin).removesuffix(end)
        if found.name == f"{begin}{process}{end}" and process.isdecimal() and not lives(int(process)):
            with contextlib.suppress(OSError):
                os.unlink(found.path)  # noqa: PTH108


def lives(process: int) -> bool:
    """Whether a process of this machine is there."""
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # it is another user's
        return True
    return True


def _named(error: OSError, path: Path) -> OSError:
    """The same error with the name of a file; FFmpeg's errors do not let themselves be given one."""
    try:
        error.filename = str(path)
    except AttributeError:
        return OSError(error.errno, error.strerror or str(error), str(path))
    return error


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a whole text file (UTF-8; names that are not text with escapes, as \\udcf6), or nothing."""
    with atomic_path(path) as draft:
        draft.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_bytes(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a whole binary file, or nothing."""
    with atomic_path(path) as draft:
        draft.write_bytes(data)


class Lock:
    """A folder that one process uses at a time. The system lets go of it when the process ends, however it ends.

        with Lock(folder): ...
        held = Lock(folder).hold()  # until ``held`` is gone

    Raises:
        DataError: on entering, another process (or another lock of this one) has it.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        self._descriptor: int | None = None
        self._made = False  # by this lock: where nothing was written into the folder, it goes again

    def acquire(self) -> bool:
        """Take the folder if nobody has it; say whether that was so. A file system without locks locks nothing."""
        made = not self.folder.exists()
        self.folder.mkdir(parents=True, exist_ok=True)
        descriptor = _open_for_lock(self.folder)
        try:
            _lock(descriptor)
        except OSError as error:
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES, errno.EAGAIN, errno.EDEADLK):
                os.close(descriptor)
                return False
        if not _stands(descriptor, self.folder):  # whoever made it took it away in between
            os.close(descriptor)
            return self.acquire()
        self._descriptor, self._made = descriptor, made
        return True

    def hold(self) -> Lock:
        """Take the folder, for as long as this object lives."""
        if not self.acquire():
            raise DataError(f"{self.folder}: another process writes into it; choose another --out, or wait for it")
        return self

    def release(self) -> None:
        """Let go."""
        if self._descriptor is not None:
            if self._made:
                with contextlib.suppress(OSError):
                    self.folder.rmdir()  # refuses a folder that holds something
            os.close(self._descriptor)
            self._descriptor = None

    def __enter__(self) -> Lock:
        return self.hold()

    def __exit__(self, *_: object) -> None:
        self.release()

    def __del__(self) -> None:
        self.release()


def _open_for_lock(folder: Path) -> int:
    """A descriptor to lock: the folder's own, or where folders cannot be opened (Windows) that of a file in it."""
    if hasattr(os, "O_DIRECTORY"):
        return os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    return os.open(folder / ".lock", os.O_RDWR | os.O_CREAT)


def _stands(descriptor: int, folder: Path) -> bool:
    """Whether an open folder is still the one at its path."""
    if not hasattr(os, "O_DIRECTORY"):
        return True
    try:
        return os.path.samestat(os.fstat(descriptor), folder.stat())
    except FileNotFoundError:
        return False


def _lock(descriptor: int) -> None:
    try:
        import fcntl
    except ImportError:  # Windows
        import msvcrt

        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
        return
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def sha256_of(path: str | os.PathLike[str]) -> str:
    """Return the SHA-256 of a file's content, in hexadecimal."""
    with Path(path).open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest() if hasattr(hashlib, "file_digest") else _digest(handle)


def cache_folder(*parts: str) -> Path:
    """A folder for what can be made again: below $VIDLET_CACHE, else $XDG_CACHE_HOME/vidlet, else ~/.cache/vidlet."""
    root = os.environ.get("VIDLET_CACHE") or Path(os.environ.get("XDG_CACHE_HOME") or _home() / ".cache") / "vidlet"
    return Path(root).joinpath(*parts)


def _home() -> Path:
    """The user's home; where there is none (an unknown user in a container) a folder of the user's for temporary files.

    Where another one made that first, or others may write into it, it is one that only this process knows.
    """
    try:
        return Path.home()
    except RuntimeError:
        if not hasattr(os, "getuid"):  # Windows, where each user has such a folder
            return Path(tempfile.gettempdir()) / "vidlet"
        return _own_folder(Path(tempfile.gettempdir()) / f"vidlet-{os.getuid()}", os.getuid())


@functools.lru_cache(maxsize=8)
def _own_folder(place: Path, user: int) -> Path:
    """A folder that is this user's alone: this one, made if need be, else a new one of this process."""
    with contextlib.suppress(OSError):
        place.mkdir(mode=0o700)
    with contextlib.suppress(OSError):
        status = place.lstat()
        if stat.S_ISDIR(status.st_mode) and status.st_uid == user and not status.st_mode & 0o022:
            return place
    return Path(tempfile.mkdtemp(prefix="vidlet-"))


def _digest(handle) -> str:  # type: ignore[no-untyped-def]  # Python 3.10 has no hashlib.file_digest
    digest = hashlib.sha256()
    while block := handle.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()
