"""Features of many clips by several processes: each makes its part, into one folder or its own, and parts are merged.

Any scheduler starts them: SLURM arrays, Kubernetes jobs, ``make -j``. Which part a clip is of is decided by its name
alone, so that no file is read to know it and clips that are added move no other. Parts of a store are named by what is
in them and appear whole, so that processes may share a folder, and one that runs again does only what is missing.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ..datasets import ClipTable
from ..errors import DataError, VidletError
from ..video import read_many
from .extract import write_parts
from .store import FeatureStore, clip_key

READERS = 8  # threads that read clips for their keys


class Shard(NamedTuple):
    """Part ``number`` of ``parts``, numbers from 1."""

    number: int
    parts: int

    @classmethod
    def parse(cls, text: str) -> Shard:
        """ "3/64".

        Raises:
            DataError: not a number of 1 to ``parts``.
        """
        found = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text.strip())
        shard = cls(int(found[1]), int(found[2])) if found else cls(0, 0)
        if not 1 <= shard.number <= shard.parts:
            raise DataError(f"--shard {text}: expected K/N, the number of the shard from 1 to N, as in 3/64")
        return shard

    def of(self, table: ClipTable) -> ClipTable:
        """The clips of a table that are of this part."""
        return table.with_clips(
            clip for clip, name in zip(table, table.names(), strict=True) if _number(name, self.parts) == self.number
        )


def _number(name: str, count: int) -> int:
    return 1 + int(hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:12], 16) % count


class Merged(NamedTuple):
    """A store that holds all clips of a table: row i of ``keys`` is clip i, None where it cannot be read."""

    store: FeatureStore
    keys: list[str | None]
    failures: list[tuple[str, str]]  # path, reason
    taken: int  # clips that came from other stores
    twice: int  # clips that more than one of them had


def merge_stores(table: ClipTable, root: Path, setting: Mapping[str, Any], sources: Sequence[Path]) -> Merged:
    """Bring what the stores of shards hold into one, each clip once, and check that no clip of a table is missing.

    Killed, it goes on where it was; running it again changes nothing.

    Args:
        root: where the store is; it may be the folder that the shards wrote to, then ``sources`` are none.
        setting: see ``FeatureStore``.
        sources: ``--out`` folders of shards.

    Raises:
        DataError: a source holds no features of this setting (says what differs), or clips are missing (says which).
    """
    store = FeatureStore(root, setting)
    others = [_store_of(source, store) for source in sources]
    taken = twice = 0
    for other in others:
        new = [key for key in other if key not in store]
        twice += len(other) - len(new)
        write_parts(store, new, other.read)
        taken += len(new)
    keys: list[str | None] = []
    failures: list[tuple[str, str]] = []
    missing: list[str] = []
    for clip, key in read_many(table, clip_key, READERS, 4 * READERS):  # all clips are read, from a disk far away
        if isinstance(key, VidletError):
            keys.append(None)
            failures.append((str(clip.path), str(key)))
            continue
        keys.append(key)
        if key not in store:
            missing.append(str(clip.path))
    if missing:
        raise DataError(
            f"{store.folder}: {len(missing)} of {len(table)} clips are missing, the first is {missing[0]}: a shard did "
            "not end, or could not read them; run it again, it does what is missing"
        )
    return Merged(store, keys, failures, taken, twice)


def _store_of(source: Path, wanted: FeatureStore) -> FeatureStore:
    """The store of the same setting in a folder.

    Raises:
        DataError: there is none; says which settings are there instead.
    """
    if (source / wanted.folder.name / "spec.json").is_file():
        return FeatureStore(source, wanted.setting)
    specs = sorted(source.glob("*/spec.json"))
    if not specs:
        raise DataError(f"{source}: holds no stored features")
    try:
        other = json.loads(specs[0].read_text())
        keys = [key for key in wanted.setting if other.get(key) != wanted.setting[key]]
    except (OSError, ValueError, AttributeError) as error:
        raise DataError(f"{specs[0]}: cannot be read ({error})") from error
    raise DataError(
        f"{source}: holds features of another setting ({', '.join(keys)} differ): run its shard with the same recipe, "
        "options and version of vidlet"
    )
