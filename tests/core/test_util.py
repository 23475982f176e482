"""`monolith.core.util`: the original's surface, its own test cases, and where ours is right."""

import inspect
from pathlib import Path
from typing import Any

import jax
import pytest

from monolith_jax import storage
from monolith_jax.core import util
from monolith_jax.errors import ConfigError, UserError

ROOT = "gs://test_folder/unzipped_tf_records_corrected_repartitioned/"

SIGNATURES = {
    "get_bucket_name_and_relavite_path": ["gs_file_path"],
    "download_gcs_file": ["gs_file_path", "local_file_name"],
    "download_gcs_file_with_relative_path": [
        "bucket_name",
        "gs_file_relative_path",
        "local_file_name",
    ],
    "list_gcs_files_with_prefix": ["gs_path_prefix"],
    "parse_example_number_meta_file": ["meta_file", "seperator"],
    "calculate_shard_skip_file_number": [
        "file_example_number",
        "shard_num",
        "completed_steps_number",
        "batch_size_per_core",
    ],
    "get_checkpoint_completed_step_number": ["checkpoint_path"],
    "update_params": ["params", "tpu_cluster_resolver"],
    "get_per_file_example_numbers_for_checkpoint_reload": [
        "train_dataset_path",
        "file_example_number_meta",
        "file_example_number_meta_seperator",
    ],
    "range_dateset": ["dataset", "root_path", "start_date", "end_date"],
}

# The five cases of the original's util_test.py: days of the input, bounds, days of the result.
RANGES = [
    (["20200501/00", "20200502/00", "20200503/00"], "20200502", "20200502", [1]),
    (
        ["20200501/00", "20200502/00", "20200503/00", "20200503/01", "20200504/01"],
        "20200502",
        "20200503",
        [1, 2, 3],
    ),
    (["20200501/00", "20200502/00"], "20200401", "20200505", [0, 1]),
    (["20200501/00", "20200502/00"], None, "20200505", [0, 1]),
    (["20200501/00", "20200502/00"], "20200502", None, [1]),
]


class Resolver:
    """What the original asks of TensorFlow's TPUClusterResolver."""

    def __init__(self, workers: int) -> None:
        self.workers = workers

    def cluster_spec(self) -> "Resolver":
        return self

    def num_tasks(self, job: str) -> int:
        assert job == "worker"
        return self.workers


@pytest.mark.parametrize("name", SIGNATURES)
def test_names_and_arguments_are_the_originals(name: str) -> None:
    assert list(inspect.signature(getattr(util, name)).parameters)[:4] == SIGNATURES[name]
    assert set(util.__all__) == set(SIGNATURES)


@pytest.mark.parametrize(("days", "start", "end", "expected"), RANGES)
def test_the_originals_ranges_on_lists_and_iterators(
    days: list[str], start: str | None, end: str | None, expected: list[int]
) -> None:
    paths = [f"{ROOT}{day}/part" for day in days]
    wanted = [paths[i] for i in expected]
    assert util.range_dateset(paths, ROOT, start, end) == wanted
    assert list(util.range_dateset(iter(paths), ROOT, start_date=start, end_date=end)) == wanted


@pytest.mark.parametrize(("days", "start", "end", "expected"), RANGES)
def test_the_originals_ranges_on_tf_data(
    tf: Any, days: list[str], start: str | None, end: str | None, expected: list[int]
) -> None:
    paths = [f"{ROOT}{day}/part" for day in days]
    dataset = tf.data.Dataset.from_tensor_slices(paths)
    kept = util.range_dateset(dataset, ROOT, start, end)
    assert isinstance(kept, tf.data.Dataset)
    assert [path.decode() for path in kept.as_numpy_iterator()] == [paths[i] for i in expected]


def test_bucket_and_path() -> None:
    split = util.get_bucket_name_and_relavite_path
    assert split("gs://bucket/a/b.txt") == ("bucket", "a/b.txt")
    assert split("gs://bucket/") == ("bucket", "")
    # The original cuts the last letter off a bucket without a slash, and repeats it as the path.
    assert split("gs://bucket") == ("bucket", "")
    with pytest.raises(UserError, match="gs://bucket/name is needed"):
        split("/tmp/a")


def test_local_files_take_the_same_calls(tmp_path: Path) -> None:
    storage.write_bytes(tmp_path / "run/a-1", b"1")
    storage.write_bytes(tmp_path / "run/a-2", b"22")
    bucket, files = util.list_gcs_files_with_prefix(f"{tmp_path}/run/a")
    assert bucket == ""
    assert [(file.name, file.size) for file in files] == [
        (f"{tmp_path}/run/a-1", 1),
        (f"{tmp_path}/run/a-2", 2),
    ]
    util.download_gcs_file(f"{tmp_path}/run/a-1", tmp_path / "x")
    util.download_gcs_file_with_relative_path("", f"{tmp_path}/run/a-2", tmp_path / "y")
    assert (tmp_path / "x").read_bytes() == b"1"
    assert (tmp_path / "y").read_bytes() == b"22"


def test_the_separator_is_honoured(tmp_path: Path) -> None:
    """The original takes it as an argument and splits at commas whatever it is."""
    meta = tmp_path / "meta"
    meta.write_text("a,b/part-0\t10\na,b/part-1\t12\n")
    assert util.parse_example_number_meta_file(meta, "\t") == [
        ("a,b/part-0", 10),
        ("a,b/part-1", 12),
    ]
    with pytest.raises(UserError, match="no line has the separator ';'"):
        util.parse_example_number_meta_file(meta, seperator=";")


@pytest.mark.parametrize(
    ("files", "shards", "steps", "batch", "expected"),
    [
        ([80, 80, 80, 80], 2, 0, 1, [0, 0]),
        ([80, 80, 80, 80], 2, 10, 1, [1, 1]),
        ([80, 80, 80, 80], 2, 19, 1, [1, 1]),
        ([80, 80, 80, 80], 2, 20, 1, [2, 2]),
        ([80, 80, 80], 2, 100, 1, [2, 1]),
        ([8, 16, 24], 3, 2, 1, [1, 1, 0]),
        ([], 2, 5, 1, [0, 0]),
    ],
)
def test_skipped_files_where_the_original_is_right(
    files: list[int], shards: int, steps: int, batch: int, expected: list[int]
) -> None:
    """Eight devices a host, as the original takes for granted; the tests have eight, too."""
    assert jax.local_device_count() == 8
    assert util.calculate_shard_skip_file_number(files, shards, steps, batch) == expected


def test_an_untrained_large_file_is_not_skipped() -> None:
    """3 steps of 8 examples: the first file and a part of the large one are read.

    The original also counts the third file, because it is small enough to fit, and answers 2: the
    large file would be skipped though most of it was never trained.
    """
    skip = util.calculate_shard_skip_file_number
    assert skip([10, 100, 10], 1, 3, 1, devices_per_host=8) == [1]
    assert skip([10, 1, 100, 1, 10, 1], 2, 3, 1, devices_per_host=8) == [1, 3]


def test_devices_per_host_come_from_jax_not_from_a_constant(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(jax, "local_device_count", lambda: 4)
    assert util.calculate_shard_skip_file_number([40, 40], 1, 10, 1) == [1]  # 2 for the original
    params: dict[str, Any] = {"global_batch_size": 64, "model_dir": "/nowhere"}
    util.update_params(params, Resolver(2))
    assert params["batch_size_per_core"] == 8  # 4.0 for the original


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"batch_size_per_core": 4}, (4, 64)),
        ({"global_batch_size": 64}, (4, 64)),
        ({"batch_size_per_core": None, "global_batch_size": 64}, (4, 64)),
        ({"batch_size_per_core": 4, "global_batch_size": 64}, (4, 64)),
    ],
)
def test_update_params_fills_in_batch_sizes(
    tmp_path: Path, given: dict[str, Any], expected: tuple[int, int]
) -> None:
    params = {**given, "model_dir": str(tmp_path)}
    util.update_params(params, Resolver(2))
    assert (params["batch_size_per_core"], params["global_batch_size"]) == expected
    assert type(params["batch_size_per_core"]) is int  # a float for the original
    assert "shard_skip_file_number" not in params


def test_update_params_without_a_resolver_asks_jax(tmp_path: Path) -> None:
    params: dict[str, Any] = {"batch_size_per_core": 2, "model_dir": tmp_path}
    util.update_params(params)
    assert params["global_batch_size"] == 2 * jax.device_count()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "can't be both None"),
        ({"global_batch_size": 100}, "100 does not divide evenly over 2 hosts of 8 devices"),
        ({"batch_size_per_core": 4, "global_batch_size": 63}, "makes 64, but .* is 63"),
        ({"batch_size_per_core": 2.5}, "whole number"),
        ({"batch_size_per_core": "4"}, "whole number"),
        ({"batch_size_per_core": 0}, "whole number"),
    ],
)
def test_batch_sizes_that_do_not_agree(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        util.update_params({**given, "model_dir": "/nowhere"}, Resolver(2))


def job(folder: Path) -> dict[str, Any]:
    """A job with a checkpoint at step 10, four files of 100 examples, and their meta file."""
    for day in range(1, 5):
        storage.write_bytes(folder / f"data/2020050{day}/part-0", b"")
    lines = [f"data/2020050{day}/part-0,100\n" for day in range(1, 5)]
    (folder / "meta").write_text("".join(lines))
    storage.write_bytes(folder / "run/model.ckpt-10.meta", b"")
    return {
        "batch_size_per_core": 2,
        "model_dir": str(folder / "run"),
        "train_dataset_path": f"{folder}/data/*/part*",
        "gcs_file_example_number": str(folder / "meta"),
    }


def test_update_params_after_a_checkpoint(tmp_path: Path) -> None:
    params = job(tmp_path)
    util.update_params(params, Resolver(2))  # 10 steps of 2 on 8 devices: 160 examples a host
    assert params["shard_skip_file_number"] == [1, 1]
    assert util.get_checkpoint_completed_step_number(params["model_dir"]) == 10
    counts = util.get_per_file_example_numbers_for_checkpoint_reload(
        params["train_dataset_path"], params["gcs_file_example_number"], ","
    )
    assert counts == [100] * 4


@pytest.mark.parametrize("name", ["model_dir", "train_dataset_path", "gcs_file_example_number"])
def test_update_params_names_what_is_missing(tmp_path: Path, name: str) -> None:
    params = job(tmp_path)
    params[name + "s"] = params.pop(name)
    with pytest.raises(ConfigError, match=rf"{name} is missing; did you mean {name}s\?"):
        util.update_params(params, Resolver(2))
