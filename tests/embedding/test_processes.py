"""Every rule on eight devices, and in two processes of four, against one device.

To the last bit where no two devices' examples share an id: then each row's gradient is summed by
one device, in the order of its examples, wherever the row lives. (With `exact`, the default of all
rules: without it XLA may contract a product and a sum in one program and not in the other.) Where
they share some, the owner adds up the devices' sums, which is another order of the same terms: to
1e-6 of the table's scale. Eight devices sum in one order whether they belong to one process or to
two: always to the last bit.
"""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from jax.sharding import Mesh

SCRIPT = Path(__file__).with_name("two_processes.py")
RULES = (
    "sgd",
    "adagrad",
    "rowwise_adagrad",
    "momentum",
    "nesterov",
    "rmsprop",
    "centered",
    "adam",
    "lazy_adam",
    "ftrl",
)

Ended = dict[str, np.ndarray]


@pytest.fixture(scope="module")
def script() -> Any:
    """The script as a module."""
    spec = importlib.util.spec_from_file_location("embedding_two_processes", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert tuple(module.RULES) == RULES
    return module


@pytest.fixture(scope="module")
def ended(
    script: Any,
    mesh: Mesh,
    tmp_path_factory: pytest.TempPathFactory,
    process_pair: Callable[..., Any],
) -> dict[str, Ended]:
    """All tables and slots after training on one device, on eight, and in two processes."""
    folder = tmp_path_factory.mktemp("processes")
    with process_pair(SCRIPT, folder, devices=4) as pair:
        found = {"one": script.train(None), "eight": script.train(mesh)}
        pair.end(timeout=240)
    for me in range(2):
        with np.load(folder / f"ended{me}.npz") as arrays:
            found[f"process {me}"] = dict(arrays)
    return found


def of(ended: Ended, kind: str, rule: str) -> Ended:
    found = {key: array for key, array in ended.items() if key.startswith(f"{kind}/{rule}/")}
    assert f"{kind}/{rule}/value" in found
    return found


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("where", ["eight", "process 0", "process 1"])
def test_equals_one_device(where: str, rule: str, ended: dict[str, Ended]) -> None:
    got, want = of(ended[where], "apart", rule), of(ended["one"], "apart", rule)
    assert got.keys() == want.keys()
    for key, array in want.items():
        np.testing.assert_array_equal(got[key], array, err_msg=key)
    got, want = of(ended[where], "shared", rule), of(ended["one"], "shared", rule)
    for key, array in want.items():
        scale = max(1.0, float(np.abs(array).max()))
        np.testing.assert_allclose(got[key], array, rtol=0, atol=1e-6 * scale, err_msg=key)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("kind", ["apart", "shared"])
def test_two_processes_equal_one_process_of_as_many_devices(
    kind: str, rule: str, ended: dict[str, Ended]
) -> None:
    want = of(ended["eight"], kind, rule)
    for me in range(2):
        for key, array in of(ended[f"process {me}"], kind, rule).items():
            np.testing.assert_array_equal(array, want[key], err_msg=key)


@pytest.mark.parametrize("where", ["one", "process 0", "process 1"])
def test_records_are_converted_across_processes(where: str, ended: dict[str, Ended]) -> None:
    """Rows, biases and slots go in and come out, and are trained, as on eight devices."""
    kinds = ("records/apart/",) if where == "one" else ("records/apart/", "records/shared/")
    want = {key: array for key, array in ended["eight"].items() if key.startswith(kinds)}
    assert len(want) == 6 * len(kinds)
    for key, array in want.items():
        np.testing.assert_array_equal(ended[where][key], array, err_msg=key)


def test_the_steps_moved_every_table(script: Any, ended: dict[str, Ended]) -> None:
    for rule in RULES:
        for kind in ("apart", "shared"):
            values = ended["one"][f"{kind}/{rule}/value"]
            assert values.shape == (script.VOCAB, script.DIM)
            assert np.isfinite(values).all()
        apart, shared = (ended["one"][f"{kind}/{rule}/value"] for kind in ("apart", "shared"))
        assert not np.array_equal(apart, shared)
