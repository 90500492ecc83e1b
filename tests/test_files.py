"""A file under a final name is whole or absent."""

import hashlib
import os
import stat
import subprocess
import sys

import pytest

from vidlet import files
from vidlet.errors import DataError
from vidlet.files import Lock, atomic_path, cache_folder, sha256_of, write_bytes, write_text


def test_an_error_while_writing_leaves_the_old_file_and_no_draft(tmp_path):
    write_text(tmp_path / "a.txt", "old")
    with pytest.raises(RuntimeError), atomic_path(tmp_path / "a.txt") as draft:
        draft.write_text("half")
        raise RuntimeError
    assert (tmp_path / "a.txt").read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_the_draft_keeps_the_suffix_and_parents_are_made(tmp_path):
    with atomic_path(tmp_path / "new" / "clip.mp4") as draft:
        assert draft.suffix == ".mp4"
        draft.write_bytes(b"x")
    assert (tmp_path / "new" / "clip.mp4").read_bytes() == b"x"


def test_the_hash_is_sha256_of_the_content(tmp_path):
    write_bytes(tmp_path / "b", b"abc" * 1_000_000)
    assert sha256_of(tmp_path / "b") == hashlib.sha256(b"abc" * 1_000_000).hexdigest()


def test_the_cache_follows_its_variable(monkeypatch, tmp_path):
    monkeypatch.setenv("VIDLET_CACHE", str(tmp_path))
    assert cache_folder("features") == tmp_path / "features"


@pytest.mark.skipif(sys.platform == "win32", reason="owners and modes of POSIX")
@pytest.mark.parametrize("taken", ["", "link", "writable", "other"])
def test_without_a_home_the_cache_is_the_users_alone(monkeypatch, tmp_path, taken):
    for name in ("VIDLET_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pathlib.Path.home", lambda: (_ for _ in ()).throw(RuntimeError("no home")))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    if taken == "other":
        stranger = os.getuid() + 1
        monkeypatch.setattr("os.getuid", lambda: stranger)
    place = tmp_path / f"vidlet-{os.getuid()}"
    (tmp_path / "elsewhere").mkdir()
    if taken == "link":
        place.symlink_to(tmp_path / "elsewhere")
    elif taken:
        place.mkdir()
        place.chmod(0o777 if taken == "writable" else 0o755)
    root = cache_folder().parents[1]
    assert (root == place) == (not taken)
    assert root.parent == tmp_path and stat.S_IMODE(root.lstat().st_mode) == 0o700 and not root.is_symlink()
    assert cache_folder().parents[1] == root


def test_a_full_disk_is_an_error_with_the_name_of_the_file_whoever_raises_it(tmp_path):
    import av

    for kind in (OSError(28, "No space left on device"), av.error.OSError(28, "No space left on device")):
        with pytest.raises(OSError, match=r"a\.mp4") as caught, atomic_path(tmp_path / "a.mp4") as draft:
            draft.write_bytes(b"x")
            raise kind
        assert caught.value.errno == 28
        assert list(tmp_path.iterdir()) == []


def test_a_folder_is_used_by_one_process_at_a_time(tmp_path):
    code = f"from vidlet.files import Lock; lock = Lock({str(tmp_path)!r}); print(lock.acquire(), flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout.readline() == "True\n"
        with pytest.raises(DataError, match="another process writes into it"), Lock(tmp_path):
            pass
        other.kill()  # the system lets go of what a dead process held
    with Lock(tmp_path / "new"):
        assert (tmp_path / "new").is_dir()
    assert not (tmp_path / "new").exists()  # nothing was written into it
    with Lock(tmp_path / "new"):
        (tmp_path / "new" / "a").touch()
    assert (tmp_path / "new" / "a").exists() and tmp_path.exists()
    with Lock(tmp_path):
        assert not Lock(tmp_path).acquire()
    with Lock(tmp_path):
        pass


def test_a_folder_that_was_taken_away_while_it_was_locked_is_made_again(tmp_path, monkeypatch):
    taken = []

    def taken_away_once(descriptor):
        if not taken:
            taken.append((tmp_path / "new").rmdir())
        lock(descriptor)

    lock = files._lock
    monkeypatch.setattr(files, "_lock", taken_away_once)
    with Lock(tmp_path / "new"):
        assert taken and (tmp_path / "new").is_dir() and not Lock(tmp_path / "new").acquire()


@pytest.mark.parametrize("stem", ["x" * 251, "é" * 125, "😀" * 62])
def test_the_longest_names_can_be_written_and_their_drafts_go(stem, tmp_path):
    path = tmp_path / f"{stem}.txt"
    with pytest.raises(ZeroDivisionError), atomic_path(path) as draft:
        draft.write_text("half")
        raise ZeroDivisionError
    killed = draft.with_name(draft.name.replace(f"-{os.getpid()}.", "-4194304."))  # a number that no process has
    killed.write_text("half")
    write_text(path, "whole")
    assert ([found.name for found in tmp_path.iterdir()], path.read_text()) == ([path.name], "whole")


def test_a_draft_has_no_draft_of_its_own(tmp_path):
    with atomic_path(tmp_path / "a.txt") as draft:
        write_text(draft, "inner")
        assert [path.name for path in tmp_path.iterdir()] == [draft.name]
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("a.txt", "inner")]


@pytest.mark.skipif(sys.platform == "win32", reason="no safe way to ask whether a process lives")
def test_the_draft_of_a_process_that_was_killed_goes_when_its_file_is_written_again(tmp_path):
    code = (
        "import os, signal, sys; from pathlib import Path; from vidlet.files import write_text\n"
        "Path.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        "write_text(sys.argv[1], 'half')"
    )
    ended = subprocess.run([sys.executable, "-c", code, str(tmp_path / "a.txt")], check=False)
    assert ended.returncode == -9
    assert len(list(tmp_path.iterdir())) == 1  # the draft
    with atomic_path(tmp_path / "a.txt") as mine:
        mine.write_text("begun")
        write_text(tmp_path / "b.txt", "x")
        assert {path.name for path in tmp_path.iterdir()} == {"b.txt", mine.name}
        mine.write_text("whole")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"a.txt": "whole", "b.txt": "x"}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_what_is_no_file_is_written_into_and_stays(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    (tmp_path / "link.csv").symlink_to(pipe)
    for path in (pipe, tmp_path / "link.csv"):
        write_text(path, "whole")
        assert os.read(reader, 100) == b"whole"
    os.close(reader)
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link.csv", "pipe"]
    # as root a device would be replaced for the whole system
    write_text(os.devnull, "gone")
    assert stat.S_ISCHR(os.stat(os.devnull).st_mode)  # noqa: PTH116


def test_a_link_stays_and_its_file_is_written(tmp_path):
    (tmp_path / "link.csv").symlink_to(tmp_path / "far" / "a.csv")
    for text in ("new", "newer"):
        write_text(tmp_path / "link.csv", text)
        assert (tmp_path / "link.csv").is_symlink()
        assert (tmp_path / "far" / "a.csv").read_text() == text


@pytest.mark.skipif(sys.platform == "win32", reason="closed by a shell")
def test_a_command_whose_output_nobody_takes_ends_as_ever():
    command = f"{sys.executable} -m vidlet.cli recipes >&- 2>&-"
    assert subprocess.run(["sh", "-c", command], check=False).returncode == 0
