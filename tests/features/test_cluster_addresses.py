"""Actors of a Ray cluster that share no disk: clips come from an address, features go to one."""

import json

import pytest
from test_features_store import mean_color

from ray_cluster import TOKEN, started
from test_cloud import CLIPS, SECRET, bucket, clips, run, s3  # noqa: F401  (fixtures)
from vidlet import cloud
from vidlet.cloud import mirror, publishing
from vidlet.datasets import read_table
from vidlet.features import FeatureStore, store_setting
from vidlet.features.cluster import Extracting
from vidlet.recipe import Sampling


def test_a_worker_elsewhere_copies_clips_for_itself_and_sends_what_it_stores(bucket, monkeypatch, tmp_path):  # noqa: F811
    size, sampling = (8, 8), Sampling("rate", hz=4.0)
    setting = store_setting(sampling, size, mean_color(), (3,), "float16")
    table = read_table(mirror("memory://bucket/clips"))
    bucket.rm_file(f"/bucket/clips/{table.clips[3].path.relative_to(table.root).as_posix()}")
    assert cloud.address_of(table.root) == "memory://bucket/clips" and cloud.address_of(tmp_path) is None
    data = "memory://bucket/clips", str(cloud.own_folder("memory://bucket/clips"))
    with publishing("memory://bucket/features") as folder:
        assert cloud.address_of(folder) == "memory://bucket/features"
        with monkeypatch.context() as elsewhere:
            elsewhere.setenv("VIDLET_SCRATCH", str(tmp_path / "elsewhere"))
            worker = Extracting(sampling, size, "memory://bucket/features", setting, 1, data)
            done = worker.work(mean_color(), list(enumerate(table)))
            again = Extracting(sampling, size, "memory://bucket/features", setting, 1, data)  # it died and came back
            again.work(mean_color(), [])
            assert len(again.opened[1]) == CLIPS - 1
            assert list((tmp_path / "elsewhere").rglob(".sent-*"))
            worker.end()
            assert not list((tmp_path / "elsewhere").rglob(".sent-*"))
        assert {clip.path.stat().st_size for clip in table if clip.path.exists()} == {0}  # nobody reads them here
        cloud.sending[folder].bring()
        store = FeatureStore(folder, setting)
    assert [number for number, key, _ in done if key in store] == [n for n in range(CLIPS) if n != 3]
    assert [why for _, _, why in done if why] == [f"{table.clips[3].path}: cannot be read (No such file or directory)"]


@pytest.mark.slow
def test_features_from_a_bucket_into_a_bucket_by_a_cluster_that_shares_no_disk(s3, tmp_path):  # noqa: F811
    pytest.importorskip("ray", reason="no ray: pip install 'vidlet[ray]'")
    settings, files = s3
    settings = {**settings, **TOKEN, "VIDLET_SCRATCH": str(tmp_path / "ours")}
    words = ["extract", "s3://bucket/clips", "--recipe", "tiny-grid-gru", "--json", "--out"]
    alone = run(settings, tmp_path, *words, "s3://bucket/alone")
    words += ["s3://bucket/by-ray", "--engine", "ray", "--workers", "2", "--address"]
    with started(tmp_path, {**s3[0], "VIDLET_SCRATCH": str(tmp_path / "theirs")}) as address:
        first, again = (run(settings, tmp_path, *words, address) for _ in range(2))
    assert alone.returncode == first.returncode == again.returncode == 0, alone.stderr + first.stderr + again.stderr
    told = [json.loads(done.stdout) for done in (alone, first, again)]
    assert [one["metrics"]["computed"] for one in told] == [CLIPS, CLIPS, 0]
    assert told[1]["out"].startswith("s3://bucket/by-ray/")
    files.invalidate_cache()
    stores = []
    for name in ("alone", "by-ray"):
        files.get(f"bucket/{name}", str(tmp_path / name), recursive=True)
        (spec,) = (tmp_path / name).rglob("spec.json")
        store = FeatureStore(spec.parents[1], json.loads(spec.read_text()))
        stores.append({key: store.read(key).features.tobytes() for key in store})
    assert stores[0] == stores[1] and len(stores[0]) == CLIPS
    assert list((tmp_path / "theirs").rglob("*.avi")) or list((tmp_path / "theirs").rglob("*.mp4"))
    assert not list((tmp_path / "theirs").rglob(".sent-*"))
    assert SECRET not in first.stdout + first.stderr
