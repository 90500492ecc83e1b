"""Folders in object storage stand for folders here: copied when opened, sent when written, without secrets."""

import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

import vidlet
from vidlet import cloud
from vidlet.cloud import here, is_address, mirror, publishing, reaching
from vidlet.datasets import read_table, render_motion
from vidlet.errors import DataError, DependencyError
from vidlet.jobs.fit import fit
from vidlet.recipe import Sampling
from vidlet.video import read_clip

fsspec = pytest.importorskip("fsspec")
CLIPS = 21
SECRET = "verysecretkey0123456789"


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cloud") / "clips"
    render_motion(folder, clips=CLIPS, seed=0, size=64)
    return folder


@pytest.fixture
def bucket(clips, tmp_path, monkeypatch):
    """The clips in a bucket in memory, and an empty scratch."""
    monkeypatch.setenv("VIDLET_SCRATCH", str(tmp_path / "scratch"))
    files = fsspec.filesystem("memory")
    files.store.clear()
    for path in clips.rglob("*"):
        if path.is_file():
            files.pipe_file(f"/bucket/clips/{path.relative_to(clips).as_posix()}", path.read_bytes())
    cloud._opened.cache_clear()
    yield files
    files.store.clear()


def test_a_table_is_read_at_once_and_a_clip_when_it_is_opened(bucket, clips):
    folder = mirror("memory://bucket/clips/")
    table = read_table(folder)
    assert folder.name == "clips" and table.names() == read_table(clips).names()
    assert {clip.path.stat().st_size for clip in table} == {0}
    first, second, *_ = table
    read_clip(first.path, Sampling("rate", hz=4.0), (32, 32))
    assert first.path.read_bytes() == (clips / first.path.relative_to(folder)).read_bytes()
    assert second.path.stat().st_size == 0
    assert table.sha256() == read_table(clips).sha256()


def test_what_changed_there_is_read_anew_and_what_is_gone_is_gone(bucket):
    folder = mirror("memory://bucket/clips")
    first, second, *_ = (clip.path for clip in read_table(folder))
    for path in (first, second):
        here(path)
    bucket.pipe_file(f"/bucket/clips/{first.relative_to(folder).as_posix()}", b"other")
    bucket.rm_file(f"/bucket/clips/{second.relative_to(folder).as_posix()}")
    mirror("memory://bucket/clips")
    assert first.stat().st_size == 0 and not second.exists()
    here(first)
    assert first.read_bytes() == b"other"


def test_scratch_is_bounded_and_an_emptied_clip_is_copied_again(bucket, monkeypatch):
    monkeypatch.setattr(cloud, "RESTS_S", -1.0)
    folder = mirror("memory://bucket/clips")
    paths = [clip.path for clip in read_table(folder)]
    here(paths[0])
    size = paths[0].stat().st_size
    monkeypatch.setenv("VIDLET_SCRATCH_BYTES", str(3 * size))
    monkeypatch.setattr(cloud, "_held_bytes", 0)
    for path in paths:
        here(path)
        assert path.stat().st_size > 0
        assert sum(other.stat().st_size for other in paths) <= 6 * size
    here(paths[0])
    assert paths[0].stat().st_size == size


def test_what_is_written_is_sent_and_the_model_last(bucket, monkeypatch):
    monkeypatch.setattr(cloud, "SEND_S", 0.02)
    bucket.pipe_file("/bucket/run/checkpoint.pt", b"before")
    with publishing("memory://bucket/run") as folder:
        assert (folder / "checkpoint.pt").read_bytes() == b"before"
        (folder / "deep").mkdir()
        (folder / "deep/log.csv").write_text("x")
        (folder / "model.onnx").write_bytes(b"net")
        (folder / ".draft").write_text("x")
        for _ in range(200):
            if bucket.exists("/bucket/run/deep/log.csv"):
                break
            time.sleep(0.02)
        assert bucket.exists("/bucket/run/deep/log.csv") and not bucket.exists("/bucket/run/model.onnx")
    assert bucket.cat_file("/bucket/run/model.onnx") == b"net"
    assert sorted(bucket.find("/bucket/run")) == [
        f"/bucket/run/{n}" for n in ("checkpoint.pt", "deep/log.csv", "model.onnx")
    ]
    with publishing("memory://bucket/run") as folder:  # another machine would find the same
        assert (folder / "model.onnx").read_bytes() == b"net"


def test_a_failed_job_sends_what_it_finished(bucket):
    with pytest.raises(KeyError), publishing("memory://bucket/run") as folder:
        (folder / "checkpoint.pt").write_bytes(b"epoch 1")
        raise KeyError
    assert bucket.cat_file("/bucket/run/checkpoint.pt") == b"epoch 1"


def test_jobs_take_addresses_and_give_them_back(bucket):
    @reaching
    def job(data, recipe="", out=None):
        (Path(out) / "part").write_bytes(b"1")
        return {"out": str(Path(out) / "store"), "clips": len(read_table(data))}

    found = job("memory://bucket/clips", out="memory://bucket/features/")
    assert found == {"out": "memory://bucket/features/store", "clips": CLIPS}
    assert bucket.cat_file("/bucket/features/part") == b"1"


def test_processes_that_join_a_run_take_no_address(bucket):
    with pytest.raises(DataError, match=r"memory://bucket/run: --join needs a folder that all machines see"):
        fit("clips/", max_size="1MB", out="memory://bucket/run", join=True)


@pytest.mark.parametrize("address", [f"s3://me:{SECRET}@bucket/clips", f"https://host/clips.csv?token={SECRET}"])
def test_an_address_with_a_secret_is_refused_and_not_repeated(address, bucket):
    with pytest.raises(DataError, match="holds a password or a key") as error:
        mirror(address)
    assert SECRET not in str(error.value)


def test_what_is_wrong_with_an_address_is_one_sentence(bucket):
    for address in ("memory://bucket/nothing", "memory://other"):
        with pytest.raises(DataError, match="no such folder, file or bucket"):
            mirror(address)
    with pytest.raises(DataError, match="the web can be read, not written"), publishing("https://host/run"):
        pass
    with pytest.raises((DependencyError, DataError)):
        mirror("abfs://container/clips")
    assert is_address("S3://x") and not is_address("clips/") and not is_address("rtsp://camera")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        with pytest.raises((DataError, DependencyError)) as error:
            mirror(f"http://127.0.0.1:{free.getsockname()[1]}/clips.csv")
    assert "\n" not in str(error.value)


def served(handler):
    """A server of this process, by what answers; (the server, its address)."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server, f"http://127.0.0.1:{server.server_address[1]}"


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_table_on_the_web_and_the_clips_that_it_names(bucket, clips, tmp_path, suffix):
    pytest.importorskip("aiohttp")
    shutil.copytree(clips, tmp_path / "web")
    if suffix == "parquet":
        read_csv, parquet = pytest.importorskip("pyarrow.csv").read_csv, pytest.importorskip("pyarrow.parquet")
        parquet.write_table(read_csv(clips / "clips.csv"), tmp_path / "web/clips.parquet")

    class Files(SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=str(tmp_path / "web"))

        def log_message(self, *args):
            pass

    server, address = served(Files)
    try:
        table = read_table(mirror(f"{address}/clips.{suffix}"))
        assert len(table) == CLIPS
        clip = table.clips[3].path
        here(clip)
        assert clip.read_bytes() == next(clips.rglob(clip.name)).read_bytes()
    finally:
        server.shutdown()
        server.server_close()


def test_a_bucket_that_is_not_yours_is_one_sentence(bucket, monkeypatch):
    class Refusing(BaseHTTPRequestHandler):
        def do_GET(self):
            body = b"<?xml version='1.0'?><Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"
            self.send_response(403)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Content-Type", "application/xml")
            self.end_headers()
            self.wfile.write(b"" if self.command == "HEAD" else body)

        do_HEAD = do_PUT = do_POST = do_GET

        def log_message(self, *args):
            pass

    pytest.importorskip("pyarrow.fs")
    server, address = served(Refusing)
    settings = {"ENDPOINT_URL": address, "ACCESS_KEY_ID": "someone", "SECRET_ACCESS_KEY": SECRET, "MAX_ATTEMPTS": "1"}
    for name, value in {**settings, "EC2_METADATA_DISABLED": "true", "DEFAULT_REGION": "us-east-1"}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    try:
        with pytest.raises(DataError, match=r"^s3://theirs/clips: not yours to use") as error:
            mirror("s3://theirs/clips")
        with pytest.raises(DataError, match=r"^s3://theirs/run: not yours to use"), publishing("s3://theirs/run"):
            pass
    finally:
        server.shutdown()
        server.server_close()
    assert SECRET not in str(error.value) and "\n" not in str(error.value)


def test_a_name_that_leads_out_of_its_folder_is_refused(tmp_path):
    for name in ("../x", "a/../../x", "/etc/x"):
        with pytest.raises(DataError, match="leads out"):
            cloud._below(tmp_path, name)


# A real server.


@pytest.fixture(scope="module")
def s3(clips):
    """Settings of the environment for a server that speaks S3, with the clips in its bucket."""
    arrow = pytest.importorskip("pyarrow.fs")
    program = shutil.which("moto_server", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if not program:
        pytest.skip("no moto_server: pip install 'moto[s3]' flask flask-cors")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen([program, "-H", "127.0.0.1", "-p", str(port)], stderr=subprocess.DEVNULL)
    settings = {"AWS_ACCESS_KEY_ID": "someone", "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_DEFAULT_REGION": "us-east-1"}
    settings |= {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}", "AWS_EC2_METADATA_DISABLED": "true"}
    before = dict(os.environ)
    os.environ.update(settings)
    try:
        client = arrow.S3FileSystem(endpoint_override=settings["AWS_ENDPOINT_URL"], allow_bucket_creation=True)
        for _ in range(120):  # until it listens
            try:
                client.create_dir("bucket")
                break
            except OSError:
                time.sleep(0.5)
        files = cloud._files_of("s3://bucket")[0]
        for path in clips.rglob("*"):
            if path.is_file():
                files.pipe_file(f"bucket/clips/{path.relative_to(clips).as_posix()}", path.read_bytes())
        yield settings, files
    finally:
        os.environ.clear()
        os.environ.update(before)
        server.terminate()
        server.wait()


def run(settings, folder, *words):
    source = str(Path(vidlet.__file__).parents[1])
    known = {**os.environ, **settings, "PYTHONPATH": source, "VIDLET_CACHE": str(folder / "cache")}
    return subprocess.run(
        [sys.executable, "-m", "vidlet", *words],
        cwd=folder,
        env=known,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


@pytest.mark.slow
def test_training_from_a_bucket_into_a_bucket(s3, tmp_path, clips):
    settings, files = s3
    words = ["--recipe", "tiny-grid-gru", "--epochs", "2"]
    done = run(settings, tmp_path, "train", "s3://bucket/clips", *words, "--out", "s3://bucket/runs/a", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["out"] == "s3://bucket/runs/a"
    near = run(settings, tmp_path, "train", str(clips), *words, "--out", "near", "--json")
    assert near.returncode == 0, near.stderr
    files.invalidate_cache()
    names = {Path(name).name for name in files.find("bucket/runs/a")}
    assert {"model.onnx", "metrics.json", "recipe.toml", "log.csv", "report.html"} <= names
    columns = [
        [line.split(",")[:4] for line in text.splitlines()]
        for text in (files.cat_file("bucket/runs/a/log.csv").decode(), (tmp_path / "near/log.csv").read_text())
    ]
    assert columns[0] == columns[1]
    assert SECRET not in done.stderr + done.stdout
    for name in files.find("bucket/runs/a"):
        assert SECRET.encode() not in files.cat_file(name), name
    for path in (tmp_path / "cache").rglob("*"):
        assert not path.is_file() or SECRET.encode() not in path.read_bytes(), path


@pytest.mark.slow
def test_features_from_a_bucket_into_a_bucket_and_what_is_wrong(s3, tmp_path):
    settings, files = s3
    words = ["extract", "s3://bucket/clips", "--recipe", "tiny-grid-gru", "--out", "s3://bucket/features", "--json"]
    first, again = run(settings, tmp_path, *words), run(settings, tmp_path / "cache", *words)
    assert first.returncode == again.returncode == 0, first.stderr + again.stderr
    assert [json.loads(done.stdout)["metrics"]["computed"] for done in (first, again)] == [CLIPS, 0]
    files.invalidate_cache()
    assert any(name.endswith(".arrow") for name in files.find("bucket/features"))
    missing = run(settings, tmp_path, "train", "s3://elsewhere/clips", "--recipe", "tiny-grid-gru", "--out", "x")
    assert missing.returncode == 2 and "no such folder, file or bucket" in missing.stderr
    nowhere = {**settings, "AWS_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_MAX_ATTEMPTS": "1"}
    away = run(nowhere, tmp_path, "data", "s3://bucket/clips")
    assert away.returncode == 2 and "cannot be reached" in away.stderr and away.stderr.count("Error:") == 1
