"""`inspect` shows Monolith's embedding tables, which lie beside a checkpoint and not in it."""

import json
from pathlib import Path

import numpy as np
import pytest

from monolith_jax import cli
from monolith_jax.checkpoint.tf import write_bundle
from monolith_jax.input.write import frame

# An EntryDump: id 5, embedding [1.0], adagrad with norm [0.5], time 7.
ENTRY = bytes.fromhex("09 0500000000000000 15 0000803f 1a 09 0a07 0a05 0d 0000003f 20 07")


@pytest.fixture
def prefix(tmp_path: Path) -> str:
    """A checkpoint of one tensor, and a table of two entries beside it."""
    path = tmp_path / "model.ckpt-100"
    write_bundle(path, {"global_step": np.int64(100)})
    assets = tmp_path / "model.ckpt-100.assets"
    assets.mkdir()
    other = ENTRY.replace(b"\x05\0\0", b"\x06\0\0", 1)
    (assets / "user-00000-of-00002").write_bytes(frame(ENTRY))
    (assets / "user-00001-of-00002").write_bytes(frame(other))
    return str(path)


def test_tables_beside_a_checkpoint_are_listed(
    prefix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["inspect", prefix]) == 0
    tensors, tables = capsys.readouterr().out.split("\n\n")
    assert tensors.endswith("1 tensors, 8 bytes, in 1 data file")
    head, names, user = tables.splitlines()
    assert head == f"{prefix}.assets: 1 table, 2 entries"
    assert names.split() == ["table", "kind", "entries", "dim", "optimizers", "files", "bytes"]
    size = f"{2 * len(frame(ENTRY))}"
    assert user.split() == ["user", "single", "2", "1", "adagrad[1]", "2", size]


def test_tables_beside_a_checkpoint_are_in_the_json(
    prefix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["inspect", prefix, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    (table,) = document["assets"]["tables"]
    assert (table["name"], table["entries"], table["dim"]) == ("user", 2, 1)
    assert table["optimizers"] == "adagrad[1]"
    assert cli.main(["inspect", prefix, "--json", "--no-assets"]) == 0
    assert json.loads(capsys.readouterr().out)["assets"] is None


def test_damaged_tables_are_named(prefix: str, capsys: pytest.CaptureFixture[str]) -> None:
    file = Path(f"{prefix}.assets") / "user-00001-of-00002"
    file.write_bytes(file.read_bytes()[:-1])
    assert cli.main(["inspect", prefix]) == 2
    assert f"{file}: " in capsys.readouterr().err
    assert cli.main(["inspect", prefix, "--no-assets"]) == 0
    file.unlink()
    assert cli.main(["inspect", prefix]) == 2
    assert "missing 00001" in capsys.readouterr().err
