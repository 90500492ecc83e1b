"""The commands of docs/scale.md, run in small: 21 clips, the smallest recipe, two shards, servers of Ray and S3."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import vidlet
from ray_cluster import TOKEN, started
from test_cloud import clips, s3  # noqa: F401  (fixtures)

PAGE = Path(__file__).parents[1] / "docs" / "scale.md"
PROGRAMS = {
    "vidlet": 'exec {python} -m vidlet "$@"',
    "torchrun": 'exec {python} -m torch.distributed.run --standalone "$@"',
    "sbatch": 'for k in 1 2; do SLURM_ARRAY_TASK_ID=$k sh -c "$3" || exit 1; done',  # an array of two, one by one
}


def commands(heading):
    """The commands below a heading of the page, in small."""
    part = re.split(r"^#+ ", PAGE.read_text("utf-8"), flags=re.MULTILINE)
    (found,) = (text for text in part if text.startswith(heading))
    lines = [line.split("  #")[0].strip() for line in found.splitlines() if line.startswith("    ")]
    return [in_small(line) for line in lines if not line.startswith("pip ")]


def in_small(line):
    line = re.sub(r" --recipe \S+", "", line)
    line = line.replace("seq 8", "seq 2").replace("-P 8", "-P 2").replace("/8", "/2").replace("/64", "/2")
    line = re.sub(r"vidlet extract", "vidlet extract --recipe tiny-grid-gru", line)
    line = line.replace("--time 2h", "--time 20s --workers 1").replace("--workers 64", "--workers 2")
    return re.sub(r"vidlet train", "vidlet train --recipe tiny-grid-gru --epochs 2", line)


@pytest.fixture
def shell(tmp_path, clips):  # noqa: F811
    """Run a line of the page in a folder that holds ``clips/``."""
    (tmp_path / "bin").mkdir()
    for name, text in PROGRAMS.items():
        path = tmp_path / "bin" / name
        path.write_text(f"#!/bin/sh\n{text.format(python=sys.executable)}\n")
        path.chmod(0o755)
    (tmp_path / "clips").symlink_to(clips)
    source = str(Path(vidlet.__file__).parents[1])
    known = {**os.environ, "PYTHONPATH": source, "VIDLET_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}

    def call(line, **settings):
        env = {**known, "PATH": f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}", **settings}
        done = subprocess.run(
            ["bash", "-c", line], check=False, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=400
        )
        assert done.returncode == 0, f"{line}\n{done.stderr}"
        return done

    return call


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="needs a shell")
@pytest.mark.parametrize(
    "heading, count, made",
    [
        ("Many clips", 5, "features"),
        ("Training by several processes", 1, "runs/a/model.onnx"),
    ],
)
def test_the_commands_of_the_page_work(shell, tmp_path, heading, count, made):
    lines = commands(heading)
    assert len(lines) == count
    for line in lines:
        shell(line)
    assert (tmp_path / made).exists()


@pytest.mark.slow
def test_the_commands_that_share_trials_work(shell, tmp_path):
    pytest.importorskip("ray", reason="no ray: pip install 'vidlet[ray]'")
    joined, by_ray = commands("Trials of")
    joined = joined.replace("/shared", str(tmp_path / "shared"))
    shell(f"{joined} & {joined} && wait $!")  # as two machines would
    with started(tmp_path, {"VIDLET_CACHE": str(tmp_path / "cache")}) as address:
        shell(by_ray.replace("head:6379", address), **TOKEN)
    assert (tmp_path / "shared/run/model.onnx").exists() and (tmp_path / "runs/fit/model.onnx").exists()


@pytest.mark.slow
def test_the_commands_with_a_cluster_work(s3, shell, tmp_path):  # noqa: F811
    pytest.importorskip("ray", reason="no ray: pip install 'vidlet[ray]'")
    lines = commands("A Ray cluster")
    assert len(lines) == 3
    with started(tmp_path, s3[0]) as address:
        for line in lines:
            shell(line.replace("head:6379", address), **s3[0], **(TOKEN if "head:" in line else {}))
    assert (tmp_path / "features").exists() and s3[1].exists("bucket/features")


@pytest.mark.slow
def test_the_commands_with_buckets_work(s3, shell):  # noqa: F811
    settings, files = s3
    lines = commands("Data and runs in object storage")
    assert len(lines) == 3
    for line in lines:
        shell(line, **settings)
    files.invalidate_cache()
    assert files.exists("bucket/runs/a/model.onnx") and files.exists("bucket/features")
