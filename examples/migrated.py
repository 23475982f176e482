"""A script as written for Monolith: only the prefix of its imports has changed, from `monolith`.

It registers a model and looks it up, keeps the training files of two days, works out which files a
host skips after a restart, and makes the optimizer. `python examples/migrated.py` takes seconds.
"""

import os
import tempfile
from typing import Any

from monolith_jax.core import base_model_params, model_registry, optimizers, util
from monolith_jax.core.py_utils import NestedMap


@model_registry.RegisterSingleTaskModel
class ClickModel(base_model_params.SingleTaskModelParams):
    """Predicts clicks."""

    def task(self) -> NestedMap:
        """Returns the parameters."""
        p = NestedMap(optimizer="adagrad", learning_rate=0.05, table=NestedMap(rows=1000, dim=16))
        p.table.initial_accumulator_value = 0.1
        return p


def main(root: str, resolver: Any = None) -> None:
    """Makes data of three days and a checkpoint in `root`, and sets a job up to go on from it."""
    p = model_registry.GetParams(ClickModel.__module__ + ".ClickModel")
    print("params:", [key for key, _ in p.FlattenItems()])

    files = [os.path.join(root, "data", f"2020050{day}", "part-0") for day in (1, 2, 3)]
    for file in [*files, os.path.join(root, "model.ckpt-10.meta")]:
        os.makedirs(os.path.dirname(file), exist_ok=True)
        open(file, "w").close()
    with open(os.path.join(root, "meta"), "w") as meta:
        meta.writelines(f"{file},40\n" for file in files)
    days = util.range_dateset(files, os.path.join(root, "data/"), "20200502", "20200503")
    print("files of two days:", [os.path.relpath(file, root) for file in days])

    params = {"batch_size_per_core": None, "global_batch_size": 8, "model_dir": root}
    params["train_dataset_path"] = os.path.join(root, "data/*/part*")
    params["gcs_file_example_number"] = os.path.join(root, "meta")
    util.update_params(params, resolver)
    print("steps done:", util.get_checkpoint_completed_step_number(root))
    print("files to skip:", params["shard_skip_file_number"])

    optimizer = optimizers.optimizers[p.optimizer](
        p.learning_rate, initial_accumulator_value=p.table.initial_accumulator_value
    )
    print("optimizer:", type(optimizer).__name__)


if __name__ == "__main__":
    main(tempfile.mkdtemp())
