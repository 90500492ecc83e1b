"""Data and runs in object storage: ``s3://bucket/clips/``, ``gs://``, ``https://host/clips.csv`` (vidlet[cloud]).

A folder there is a folder here, in scratch (VIDLET_SCRATCH): tables are copied at once; clips, pictures and shards of
records are empty files, filled when they are opened and emptied again, the oldest first, where there is too much of
them (VIDLET_SCRATCH_BYTES). What a command writes to an address goes there while it works, each file whole.

Keys and passwords are those of the environment (AWS_ACCESS_KEY_ID, ~/.aws, ...); an address that holds one is refused,
so that none reaches a log, a report or a model.
"""

from __future__ import annotations

import contextlib
import csv
import errno
import functools
import hashlib
import inspect
import json
import mimetypes
import os
import shutil
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, ParamSpec, TypeVar
from urllib.parse import urlsplit

from .errors import DataError, DependencyError, VidletError, reading
from .files import atomic_path, cache_folder, lives, write_text
from .progress import bar, follows, working
from .wording import how_to_install, shown

SCHEMES = ("s3", "gs", "gcs", "az", "abfs", "http", "https", "memory")
LAZY = frozenset({".mkv", ".ts", ".mts", ".m2ts", ".tfrecord", ".gz", ".webp", ".3gp"})  # beside videos and images
SCRATCH_BYTES = 50_000_000_000  # unless VIDLET_SCRATCH_BYTES says otherwise
RESTS_S = 600.0  # a file that was opened so lately is not emptied
SEND_S = 5.0  # between two looks at what is to be sent
PRODUCT = ".onnx"  # a run that has its model files is finished
COPIED = ("data", "path", "none")  # arguments of jobs that are read
WRITTEN = "out"
SENT = ".sent-"  # and the process that writes there
STAMPS = ("ETag", "etag", "md5Hash", "mtime", "created")  # what the libraries call what changes with the content
P = ParamSpec("P")
R = TypeVar("R")


def is_address(where: object) -> bool:
    """Whether a path is an address in object storage or on the web."""
    scheme, mark, _ = str(where).partition("://")
    return bool(mark) and scheme.lower() in SCHEMES


def reaching(job: Callable[P, R]) -> Callable[P, R]:
    """Let a job take addresses: of what it reads, and of the folder that it writes (its argument ``out``)."""
    names = inspect.signature(job)

    @functools.wraps(job)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        given = names.bind(*args, **kwargs).arguments
        away = {name: str(given[name]) for name in (*COPIED, WRITTEN) if is_address(given.get(name))}
        if not away:
            return job(*args, **kwargs)
        if given.get("join"):
            address = shown(next(iter(away.values())))
            raise DataError(f"{address}: --join needs a folder that all machines see and that locks, not an address")
        near = {name: local(given[name]) for name in away if name != WRITTEN}
        with publishing(away[WRITTEN]) if WRITTEN in away else contextlib.nullcontext() as folder:
            near |= {WRITTEN: folder} if WRITTEN in away else {}
            try:
                found = job(**{**given, **near})  # type: ignore[call-arg]
            except VidletError as error:
                told = str(error)
                for name, path in near.items():
                    told = told.replace(str(path), away[name].rstrip("/"))
                raise type(error)(told) from error
        if isinstance(found, dict) and folder is not None and "out" in found:
            found["out"] = away[WRITTEN].rstrip("/") + str(found["out"]).removeprefix(str(folder))
        return found

    return run


def local(where: Any) -> Any:
    """A path as it is; of an address its ``mirror``, at the same rate where it tells one (``AtRate``)."""
    if not is_address(where):
        return where
    found = mirror(str(where))
    return type(where)(found, where.fps) if hasattr(where, "fps") else found


def mirror(address: str) -> Path:
    """The folder or file here that stands for one at an address; clips in it are read when they are opened.

    Raises:
        DataError: nothing is there, it is not yours, or it cannot be reached.
        DependencyError: no library for this kind of address is installed.
    """
    there = _There(address)
    with working(f"list {address}"):
        files = there.listing()
    own = own_folder(address)
    state = own / "state.json"
    known = _state(own)["files"] if state.exists() else {}
    top = own / (PurePosixPath(there.path).name or "data")
    write_text(state, json.dumps({"address": address, "files": files, "file": there.is_file}))
    _state.cache_clear()
    eager = []
    for name, (size, stamp) in files.items():
        path = _below(top, name)
        if known.get(name) != [size, stamp] or not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.unlink(missing_ok=True)
            path.touch()
        if not _is_lazy(path):
            eager.append(path)
    for name in known.keys() - files.keys():
        _below(top, name).unlink(missing_ok=True)
    with bar(f"copy {address}", "file") as move:
        for done, path in enumerate(eager, 1):
            here(path)
            move(done, len(eager))
    return top / there.name if there.is_file else top


def here(path: str | os.PathLike[str]) -> None:
    """See to it that a file that stands for one at an address holds what that one holds; others are left alone.

    Raises:
        DataError: it cannot be copied.
    """
    text = os.fspath(path)
    if not isinstance(text, str) or not text.startswith(_scratch() + os.sep):
        return
    own = Path(_scratch()) / Path(text).relative_to(_scratch()).parts[0]
    if not (own / "state.json").exists():
        return
    with _locks[text]:
        try:
            if os.stat(text).st_size:  # noqa: PTH116
                os.utime(text)
                return
        except OSError:
            return
        _copy(Path(text), own)


def address_of(folder: Path) -> str | None:
    """The address that a folder here stands for (``mirror``, ``publishing``); None: it stands for none."""
    if out := sending.get(folder):
        return out.there.address
    text = str(folder)
    if not text.startswith(_scratch() + os.sep):
        return None
    own = Path(_scratch()) / Path(text).relative_to(_scratch()).parts[0]
    return str(_state(own)["address"]) if (own / "state.json").exists() else None


def own_folder(address: str) -> Path:
    """Where this machine keeps what it has of an address."""
    return Path(_scratch()) / hashlib.sha256(address.rstrip("/").encode()).hexdigest()[:16]


class Outgoing:
    """A folder of this process whose whole files are sent to an address; it begins with what is there.

    Raises:
        DataError: nothing can be written there.
    """

    def __init__(self, address: str) -> None:
        self.there = _There(address, must_exist=False)
        self.there.check_writable()
        self.folder = own_folder(address) / f"{SENT}{os.getpid()}"
        for left in self.folder.parent.glob(f"{SENT}*"):  # by a process that was killed
            if not lives(int(left.name.removeprefix(SENT))):
                shutil.rmtree(left, ignore_errors=True)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.sent: dict[str, tuple[int, int]] = {}  # name -> stamp of what need not be sent again
        self.bring()

    def bring(self) -> None:
        """Copy what is there and not here."""
        self.there.bring(self.folder, self.sent)

    def send(self, last: bool = True) -> None:
        """Copy there what changed here; the models of the run itself only at the ``last`` time."""
        self.there.send(self.folder, self.sent, last)

    def end(self) -> None:
        """Remove what is here; it was sent."""
        shutil.rmtree(self.folder, ignore_errors=True)


sending: dict[Path, Outgoing] = {}  # by their folders, inside of ``publishing``


@contextmanager
def publishing(address: str) -> Iterator[Path]:
    """A folder here whose files go to an address, each when it is whole, the model last; it begins with what is there.

    Raises:
        DataError: nothing can be written there.
    """
    if follows():  # the first process writes
        yield own_folder(address) / f"{SENT}{os.getpid()}"
        return
    out = Outgoing(address)
    ended = threading.Event()

    def send() -> None:
        while not ended.wait(SEND_S):
            with contextlib.suppress(Exception):  # the end tries again, and tells
                out.send(last=False)

    sender = threading.Thread(target=send, name="vidlet-sender", daemon=True)
    sender.start()
    sending[out.folder] = out
    try:
        yield out.folder
    finally:
        del sending[out.folder]
        ended.set()
        sender.join()
        with working(f"send to {address}"):
            out.send()
        out.end()


class _There:
    """What is at an address.

    Raises:
        DataError, DependencyError: see ``mirror``.
    """

    def __init__(self, address: str, must_exist: bool = True) -> None:
        parts = urlsplit(address)
        if parts.username or parts.password or parts.query:
            raise DataError(f"{shown(address)}: holds a password or a key; put those into the environment instead")
        self.address = address
        with self._told("no such folder, file or bucket"):
            self.files, self.path = _files_of(address)
        self.on_web = parts.scheme.lower().startswith("http")
        self.path = self.path.rstrip("/")
        self.name = PurePosixPath(self.path).name
        self.is_file = False
        if must_exist:
            with self._told("no such folder, file or bucket"):
                self.files.invalidate_cache()
                self.is_file = self.on_web or self.files.info(self.path)["type"] == "file"
        self.root = self.path.rpartition("/")[0] if self.is_file else self.path

    def listing(self) -> dict[str, list[Any]]:
        """Relative name -> [bytes, what changes with its content], of everything below the root."""
        if self.on_web:
            return self._listed_on_web()
        with self._told("no such folder, file or bucket"):
            found = self.files.find(self.root, detail=True)
        names = {}
        for path, info in found.items():
            name = path.removeprefix(self.root).lstrip("/")
            if name and not any(part.startswith(".") for part in name.split("/")):
                stamp = next(
                    (str(info[key]) for key in ("ETag", "etag", "md5Hash", "mtime", "created") if key in info), ""
                )
                names[name] = [int(info["size"]), stamp]
        if not names:
            raise DataError(f"{self.address}: an empty folder, or none")
        return names

    def _listed_on_web(self) -> dict[str, list[Any]]:
        """A table on the web and what it names; the web lists no folders."""
        if not self.name.lower().endswith((".csv", ".tsv", ".txt", ".parquet")):
            raise DataError(f"{self.address}: on the web labelled data are a table, clips.csv, that names its clips")
        with self._told("no such table"):
            content = self.files.cat_file(self.path)
        stamp = hashlib.sha256(content).hexdigest()[:16]
        named = _names_in_table(content, self.name.lower().endswith(".parquet"), self.address)
        return {self.name: [-1, stamp], **{name: [-1, ""] for name in named if name and "://" not in name}}

    def read(self, name: str, to: Path) -> None:
        """Copy a file that the listing named."""
        with self._told("is gone"):
            self.files.get_file(f"{self.root}/{name}", str(to))

    def check_writable(self) -> None:
        """Refuse an address at which nothing can be written."""
        if self.on_web:
            raise DataError(f"{self.address}: the web can be read, not written; take s3:// or gs://")
        probe = f"{self.path}/.vidlet-{os.getpid()}"
        with self._told("no such bucket"):
            self.files.pipe_file(probe, b"vidlet")
            self.files.rm_file(probe)

    def bring(self, folder: Path, sent: dict[str, tuple[int, int]]) -> None:
        """Copy into a folder what is there and not among those that were sent or brought, and add it to them."""
        with self._told("cannot be listed"):
            self.files.invalidate_cache()
            found = self.files.find(self.path, detail=True) if self.files.exists(self.path) else {}
        names = {path.removeprefix(self.path).lstrip("/") for path in found}
        for name in sorted(names - sent.keys()):
            path = _below(folder, name)
            if not name or any(part.startswith(".") for part in name.split("/")):
                continue
            with atomic_path(path) as draft, self._told("is gone"):
                self.files.get_file(f"{self.path}/{name}", str(draft))
            sent[name] = _stamp(path)

    def send(self, folder: Path, sent: dict[str, tuple[int, int]], last: bool) -> None:
        """Copy whole files that changed since; the models of the run itself only at the end."""

        def is_product(path: Path) -> bool:
            return path.parent == folder and path.suffix == PRODUCT

        for path in sorted(_whole_files(folder), key=is_product):
            name = path.relative_to(folder).as_posix()
            if is_product(path) and not last:
                continue
            with contextlib.suppress(FileNotFoundError):
                stamp = _stamp(path)
                if sent.get(name) != stamp:
                    content = path.read_bytes()
                    with self._told("no such bucket"):
                        self.files.pipe_file(f"{self.path}/{name}", content)
                    sent[name] = stamp

    @contextmanager
    def _told(self, absent: str) -> Iterator[None]:
        """Say in one line what a library for storage raises."""
        try:
            yield
        except (DataError, DependencyError):
            raise
        except ImportError as error:
            raise DependencyError(f"{self.address}: {error}; {how_to_install('cloud')}") from error
        except FileNotFoundError as error:
            raise DataError(f"{self.address}: {absent}") from error
        except PermissionError as error:
            raise DataError(f"{self.address}: not yours to use ({_reason(error)})") from error
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise
            if any(word in str(error) for word in ("ACCESS_DENIED", "Forbidden", "NoSuchBucket", "NO_SUCH_BUCKET")):
                what = absent if "NOSUCHBUCKET" in str(error).upper().replace("_", "") else "not yours to use"
                raise DataError(f"{self.address}: {what} ({_reason(error)})") from error
            raise DataError(f"{self.address}: cannot be reached ({_reason(error)})") from error
        except Exception as error:  # each library has its own
            raise DataError(f"{self.address}: cannot be reached ({_reason(error)})") from error


def _files_of(address: str) -> tuple[Any, str]:
    """The file system of an address (fsspec), and the path in it: Amazon's and Google's by Arrow's own clients."""
    import fsspec

    scheme = urlsplit(address).scheme.lower()
    if scheme not in ("s3", "gs", "gcs"):
        found: tuple[Any, str] = fsspec.core.url_to_fs(address)
        return found
    from fsspec.implementations.arrow import ArrowFSWrapper
    from pyarrow import fs

    if scheme == "s3":
        client = fs.S3FileSystem(
            endpoint_override=os.environ.get("AWS_ENDPOINT_URL"), connect_timeout=10, request_timeout=60
        )
    else:
        client = fs.GcsFileSystem()
    return ArrowFSWrapper(client), address.partition("://")[2]


_locks: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)
_held_bytes = 0


def _copy(path: Path, own: Path) -> None:
    """Fill an empty file."""
    global _held_bytes  # noqa: PLW0603
    state = _state(own)
    there = _opened(state["address"])
    name = Path(*path.relative_to(own).parts[1:]).as_posix()
    size = state["files"].get(name, [-1])[0]
    if not size:
        return
    with atomic_path(path) as draft:
        there.read(name, draft)
        if size >= 0 and draft.stat().st_size != size:
            raise DataError(f"{state['address']}: {name}: changed while it was read; run the command again")
    _held_bytes += path.stat().st_size
    most = int(os.environ.get("VIDLET_SCRATCH_BYTES") or SCRATCH_BYTES)
    if _is_lazy(path) and _held_bytes > most:
        _held_bytes = _make_room(path, most // 2)


def _make_room(kept: Path, most: int) -> int:
    """Empty the clips that were opened longest ago until no more than ``most`` bytes are left; how many are.

    Who reads one at this moment goes on reading what it was.
    """
    clips = (path for path in Path(_scratch()).rglob("*") if path.is_file() and _is_lazy(path))
    found = [(path.stat(), path) for path in clips if path != kept]
    held = sum(status.st_size for status, _ in found)
    for status, path in sorted(found, key=lambda item: item[0].st_mtime):
        if held <= most or time.time() - status.st_mtime < RESTS_S:
            break
        with contextlib.suppress(OSError), atomic_path(path) as draft:
            draft.touch()
        held -= status.st_size
    return held


@functools.lru_cache(maxsize=8)
def _opened(address: str) -> _There:
    return _There(address)


@functools.lru_cache(maxsize=8)
def _state(own: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((own / "state.json").read_text())
    return found


def _scratch() -> str:
    return os.path.abspath(os.environ.get("VIDLET_SCRATCH") or cache_folder("scratch"))  # noqa: PTH100


def _below(folder: Path, name: str) -> Path:
    """A file of a listing; a name that leads out of the folder is refused."""
    if name.startswith("/") or ".." in name.split("/"):
        raise DataError(f"{shown(name)}: a name that leads out of its folder")
    return folder / name


def _is_lazy(path: Path) -> bool:
    kind = mimetypes.guess_type(path.name)[0] or ""
    return kind.startswith(("video/", "image/")) or path.suffix.lower() in LAZY


def _whole_files(folder: Path) -> list[Path]:
    return [
        path
        for path in folder.rglob("*")
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    ]


def _stamp(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns


def _reason(error: BaseException) -> str:
    return shown(" ".join(str(error).split())[:160] or type(error).__name__)


def _names_in_table(content: bytes, parquet: bool, where: str) -> list[str]:
    """The cells of the column of a table that names its clips."""

    def column(names: Iterable[str]) -> str | None:
        return next((name for name in names if name.strip().lower() in ("path", "name", "file_name")), None)

    if not parquet:
        rows = csv.DictReader(content.decode("utf-8-sig", "replace").splitlines())
        found = column(rows.fieldnames or ())
        return [row[found] for row in rows] if found else []
    with reading(where, "a Parquet file"):
        from pyarrow import BufferReader
        from pyarrow.parquet import ParquetFile

        table = ParquetFile(BufferReader(content))
        found = column(table.schema_arrow.names)
        return [str(name or "") for name in table.read([found]).column(0).to_pylist()] if found else []
