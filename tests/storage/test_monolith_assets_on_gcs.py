"""Monolith's assets in a bucket: the same tables as from local files."""

import numpy as np
import pytest
from crc32c import crc32c

from monolith_jax import storage
from monolith_jax.checkpoint.monolith_assets import open_assets
from monolith_jax.errors import CheckpointError


def frame(data):
    def masked(part):
        crc = crc32c(part)
        return ((((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF).to_bytes(4, "little")

    head = len(data).to_bytes(8, "little")
    return head + masked(head) + data + masked(data)


def entry(i):
    number = b"\x15" + np.float32(i).tobytes()
    return frame(b"\x09" + i.to_bytes(8, "little") + number + bytes.fromhex("1a040a021200"))


def literal(data):
    """A raw snappy block of one literal, in TF's stream."""
    size = len(data)
    block = (
        bytes([size & 127 | 128, size >> 7]) + bytes([61 << 2]) + (size - 1).to_bytes(2, "little")
    )
    return (len(block) + size).to_bytes(4, "big") + block + data


def write(root):
    records = b"".join(entry(i) for i in range(1, 6))
    storage.write_bytes(f"{root}.assets/user-00000-of-00002", records)
    storage.write_bytes(f"{root}.assets/user-00001-of-00002", entry(9))
    storage.write_bytes(f"{root}.assets/multi-00000-of-00001", literal(records))
    metas = frame(b"\x0a\x01a\x10\x02") + frame(b"\x0a\x01b\x10\x03")
    storage.write_bytes(f"{root}.assets/multi.meta-00000-of-00001", metas)


def test_in_a_bucket_as_on_a_disk(gcs, tmp_path):
    for root in (str(gcs / "run/model.ckpt-5"), f"{tmp_path}/model.ckpt-5"):
        write(root)
        tables = open_assets(root).read()
        assert {k: v.ids.tolist() for k, v in tables.items()} == {
            "a": [1, 2],
            "b": [3, 4, 5],
            "user": [1, 2, 3, 4, 5, 9],
        }
        assert tables["user"].embeddings.tolist() == [[1], [2], [3], [4], [5], [9]]
    with pytest.raises(CheckpointError, match=r"model.ckpt-6: no folder of assets.*ckpt-5.assets"):
        open_assets(gcs / "run/model.ckpt-6")


def test_damage_names_the_object(gcs):
    write(gcs / "m")
    storage.write_bytes(gcs / "m.assets/user-00001-of-00002", entry(9)[:-1])
    match = r"gs://.*/m.assets/user-00001-of-00002: table 'user' entry 0 at byte 0: .* cut off"
    with pytest.raises(CheckpointError, match=match):
        open_assets(gcs / "m").read()
