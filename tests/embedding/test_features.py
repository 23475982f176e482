"""Weights, sequences, hashing, gradient multipliers, rules for ids; on one device and eight."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monolith_jax.embedding import FeatureConfig, TableConfig, Uniform, XlaEngine
from monolith_jax.errors import ConfigError, DataError
from monolith_jax.input import Ragged
from monolith_jax.optimizers import Sgd

BATCH, VOCAB, DIM, LENGTH = 16, 40, 4, 5
WIDE = Uniform(scale=0.5)


def table(name: str = "t", **options: Any) -> TableConfig:
    given: dict[str, Any] = {"vocab_size": VOCAB, "dim": DIM, "initializer": WIDE} | options
    return TableConfig(name=name, optimizer=Sgd(learning_rate=1.0), **given)


def feature(**options: Any) -> FeatureConfig:
    given: dict[str, Any] = {
        "name": "f",
        "column": "ids",
        "table": "t",
        "max_length": LENGTH,
    } | options
    return FeatureConfig(**given)


def ragged(seed: int = 0, low: int = 0, high: int = VOCAB) -> dict[str, Ragged]:
    """Ids, some repeated within an example, and weights, some of them 0; some lists empty."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(0, LENGTH + 1, BATCH)
    offsets = np.append(0, np.cumsum(lengths))
    weights = rng.choice([0.0, 0.5, 1.0, 3.0], offsets[-1]).astype(np.float32)
    return {
        "ids": Ragged(rng.integers(low, high, offsets[-1]), offsets),
        "weights": Ragged(weights, offsets),
    }


def pull(engine: XlaEngine, columns: Any, direction: Any) -> tuple[Any, Any, Any, Any]:
    """Returns the vectors, the gradients of `sum(vector * direction)` and the states around."""
    lookups = engine.prepare(columns)
    lookups = jax.device_put(lookups, engine.lookups_sharding(lookups))
    state = engine.init(jax.random.key(0))

    @jax.jit
    def step(state: Any, lookups: Any) -> Any:
        rows = engine.gather(state, lookups)

        def score(rows: Any) -> Any:
            vectors = engine.combine(rows, lookups)
            return sum((vectors[k] * direction[k]).sum() for k in direction), vectors

        gradients, vectors = jax.grad(score, has_aux=True)(rows)
        return vectors, gradients, engine.update(state, lookups, rows, gradients)

    vectors, gradients, after = step(state, lookups)
    return vectors, gradients, state, after


@pytest.mark.parametrize("sharded", [False, True])
@pytest.mark.parametrize("combiner", ["sum", "mean", "sqrtn"])
def test_weighted_lookups_equal_tensorflows(
    combiner: str, sharded: bool, tf: Any, mesh: Any
) -> None:
    columns = ragged()
    features = [
        feature(weights="weights", combiner=combiner),
        feature(name="plain", combiner=combiner),
    ]
    engine = XlaEngine(
        [table()], features, batch_size=BATCH, mesh=mesh if sharded else None, shards=16
    )
    direction = {
        name: np.random.default_rng(i).normal(size=(BATCH, DIM)).astype(np.float32)
        for i, name in enumerate(("f", "plain"))
    }
    vectors, _, state, after = pull(engine, columns, direction)

    values, kept = tf.Variable(engine.table_rows(state, "t")), columns["weights"].values > 0
    offsets = columns["ids"].offsets
    where = np.stack(
        [
            np.repeat(np.arange(BATCH), np.diff(offsets)),
            np.concatenate([np.arange(n) for n in np.diff(offsets)]),
        ],
        axis=1,
    )

    def sparse(values: np.ndarray, kept: np.ndarray) -> Any:
        return tf.SparseTensor(where[kept], values[kept], (BATCH, LENGTH))

    everything = np.ones_like(kept)
    with tf.GradientTape() as tape:
        want = {
            "f": tf.nn.safe_embedding_lookup_sparse(
                values,
                sparse(columns["ids"].values, kept),
                sparse(columns["weights"].values, kept),
                combiner=combiner,
            ),
            "plain": tf.nn.safe_embedding_lookup_sparse(
                values, sparse(columns["ids"].values, everything), combiner=combiner
            ),
        }
        score = sum(tf.reduce_sum(want[k] * direction[k]) for k in want)
    gradient = tf.convert_to_tensor(tape.gradient(score, values)).numpy()
    for name in want:
        np.testing.assert_allclose(vectors[name], want[name].numpy(), rtol=1e-5, atol=1e-6)
    moved = engine.table_rows(state, "t") - engine.table_rows(after, "t")
    np.testing.assert_allclose(moved, gradient, rtol=1e-5, atol=2e-6)


def test_an_id_of_weight_zero_touches_no_row() -> None:
    engine = XlaEngine([table()], [feature(weights="w", max_length=2)], batch_size=2)
    columns = {"ids": np.array([[3, 5], [7, 7]]), "w": np.array([[1, 0], [0, 2]], np.float32)}
    (lookups,) = engine.prepare(columns).values()
    used = lookups.rows[lookups.rows < engine.stacks[0].layout.physical_rows]
    assert sorted(used.tolist()) == sorted(engine.stacks[0].layout.physical(i) for i in (3, 7))


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("sharded", [False, True])
def test_a_sequence_keeps_its_rows_apart(sharded: bool, weighted: bool, mesh: Any) -> None:
    columns = ragged(low=-3)
    config = feature(sequence=True, weights="weights" if weighted else "")
    engine = XlaEngine(
        [table()], [config], batch_size=BATCH, mesh=mesh if sharded else None, shards=16
    )
    ids = np.full((BATCH, LENGTH), -1)
    weights = np.zeros((BATCH, LENGTH), np.float32)
    for example in range(BATCH):
        mine = columns["ids"].row(example)
        ids[example, : len(mine)] = mine
        weights[example, : len(mine)] = columns["weights"].row(example) if weighted else 1.0
    mask = (ids >= 0) & (weights > 0)
    direction = np.random.default_rng(0).normal(size=(BATCH, LENGTH, DIM)).astype(np.float32)
    vectors, _, state, after = pull(engine, columns, {"f": direction})
    rows = engine.table_rows(state, "t")
    want = np.where(mask[:, :, None], rows[ids] * weights[:, :, None], 0.0)
    np.testing.assert_array_equal(vectors["f"], want)
    np.testing.assert_array_equal(vectors["f/mask"], mask)
    assert list(vectors) == ["f", "f/mask"]
    gradient = np.zeros_like(rows)
    np.add.at(gradient, ids[mask], (direction * weights[:, :, None])[mask])
    moved = rows - engine.table_rows(after, "t")
    np.testing.assert_allclose(moved, gradient, rtol=0, atol=1e-6)
    shapes = engine.vectors(BATCH)
    assert {k: (v.shape, v.dtype) for k, v in shapes.items()} == {
        k: (v.shape, v.dtype) for k, v in vectors.items()
    }


@pytest.mark.parametrize("sharded", [False, True])
def test_quotient_and_remainder_add_up(sharded: bool, mesh: Any) -> None:
    tables = [table("t", vocab_size=7), table("q", vocab_size=6, gradient_multiplier=0.5)]
    features = [
        feature(quotient_table="q", combiner="mean"),
        feature(name="seq", quotient_table="q", sequence=True),
    ]
    engine = XlaEngine(
        tables, features, batch_size=BATCH, mesh=mesh if sharded else None, shards=16
    )
    columns = {"ids": ragged(high=42)["ids"]}
    rng = np.random.default_rng(0)
    direction = {"f": rng.normal(size=(BATCH, DIM)).astype(np.float32)}
    direction["seq"] = rng.normal(size=(BATCH, LENGTH, DIM)).astype(np.float32)
    vectors, _, state, after = pull(engine, columns, direction)
    first, second = engine.table_rows(state, "t"), engine.table_rows(state, "q")
    gradients = [np.zeros_like(first), np.zeros_like(second)]
    for example in range(BATCH):
        ids = columns["ids"].row(example)
        each = first[ids % 7] + second[ids // 7]
        want = each.mean(0) if len(ids) else np.zeros(DIM)
        np.testing.assert_allclose(vectors["f"][example], want, rtol=0, atol=1e-6)
        np.testing.assert_allclose(vectors["seq"][example, : len(ids)], each, rtol=0, atol=1e-6)
        for k, i in enumerate(ids):
            g = direction["f"][example] / len(ids) + direction["seq"][example, k]
            gradients[0][i % 7] += g
            gradients[1][i // 7] += 0.5 * g
    assert engine.table_rows(state, "t").shape == (7, DIM)
    np.testing.assert_allclose(first - engine.table_rows(after, "t"), gradients[0], atol=2e-6)
    np.testing.assert_allclose(second - engine.table_rows(after, "q"), gradients[1], atol=2e-6)


def test_every_id_has_a_pair_of_rows_of_its_own() -> None:
    tables = [table("t", vocab_size=7), table("q", vocab_size=6)]
    engine = XlaEngine(tables, [feature(quotient_table="q", max_length=1)], batch_size=42)
    (lookups,) = engine.prepare({"ids": np.arange(42)}).values()
    assert len({tuple(pair) for pair in np.asarray(lookups.index).tolist()}) == 42
    assert sum(stack.layout.rows for stack in engine.stacks) < 2 * 32 + 13


def test_gradients_are_multiplied_for_one_table_of_a_stack() -> None:
    tables = [table("t", gradient_multiplier=-0.25), table("u")]
    features = [feature(name="a"), feature(name="b", table="u")]
    engine = XlaEngine(tables, features, batch_size=BATCH)
    assert len(engine.stacks) == 1
    ones = np.ones((BATCH, DIM), np.float32)
    _, _, state, after = pull(engine, {"ids": ragged()["ids"]}, {"a": ones, "b": ones})
    counts = np.bincount(ragged()["ids"].values, minlength=VOCAB)[:, None] * np.ones(DIM)
    for name, factor in (("t", -0.25), ("u", 1.0)):
        moved = engine.table_rows(state, name) - engine.table_rows(after, name)
        np.testing.assert_allclose(moved, factor * counts, rtol=0, atol=1e-5)


IDS = st.lists(st.integers(-3, 60), min_size=4, max_size=4)


@given(IDS, st.sampled_from(["modulo", "zero"]), st.sampled_from(["none", "first"]), st.booleans())
@settings(max_examples=60)
def test_ids_outside_by_their_rules(ids: list[int], above: Any, below: Any, hashed: bool) -> None:
    tables = [table("t", vocab_size=7 if hashed else 42), table("q", vocab_size=6)]

    def places(given: list[int], **rules: Any) -> Any:
        config = feature(max_length=1, quotient_table="q" if hashed else "", **rules)
        engine = XlaEngine(tables, [config], batch_size=4)
        (lookups,) = engine.prepare({"ids": np.array(given)}).values()
        return lookups

    def stand_in(i: int) -> int:
        if i < 0:
            return 0 if below == "first" else -1
        return i if i < 42 else (i % 42 if above == "modulo" else -1)

    got = places(ids, out_of_range=above, negative=below)
    jax.tree.map(np.testing.assert_array_equal, got, places([stand_in(i) for i in ids]))


@pytest.mark.parametrize(
    ("options", "columns", "message"),
    [
        ({"negative": "error"}, {"ids": [[1, 2], [3, -4]]}, "example 1 .*id -4 is negative"),
        (
            {"quotient_table": "q"},
            {"ids": Ragged(np.array([1, 2, 80]), np.array([0, 2, 3]))},
            "example 1 .*id 80 is outside tables 't' and 'q', which have 80 ids together",
        ),
        ({"weights": "w"}, {"ids": [[1], [2]]}, "weights column 'w': the data has no such"),
        ({"weights": "w"}, {"ids": [[1], [2]], "w": [[1], [2]]}, "'w' is int64, weights must be"),
        (
            {"weights": "w"},
            {"ids": [[1], [2]], "w": [[1.0, 1.0], [2.0, 1.0]]},
            "'w' does not have one weight for each id of 'ids'",
        ),
        (
            {"weights": "w"},
            {
                "ids": Ragged(np.array([1, 2, 3]), np.array([0, 2, 3])),
                "w": Ragged(np.array([1.0, 2.0, 3.0]), np.array([0, 1, 3])),
            },
            "'w' does not have one weight for each id of 'ids'",
        ),
        (
            {"weights": "w"},
            {"ids": [[1, 2], [3, 4]], "w": [[1.0, 2.0], [3.0, -0.5]]},
            "'w', example 1 of the batch: weight -0.5 is negative or not finite",
        ),
        (
            {"weights": "w"},
            {"ids": [[1], [2]], "w": [[np.nan], [1.0]]},
            "example 0 of the batch: weight nan",
        ),
    ],
)
def test_bad_columns_are_named(options: Any, columns: Any, message: str) -> None:
    tables = [table(), table("q", vocab_size=2)]
    engine = XlaEngine(tables, [feature(max_length=2, **options)], batch_size=2)
    arrays = {k: v if isinstance(v, Ragged) else np.array(v) for k, v in columns.items()}
    with pytest.raises(DataError, match=f"feature 'f'.*{message}"):
        engine.prepare(arrays)


@pytest.mark.parametrize("hashed", [False, True])
def test_ids_that_are_cut_are_not_checked(hashed: bool) -> None:
    rules = {"too_long": "truncate", "negative": "error", "out_of_range": "error"}
    config = feature(max_length=2, quotient_table="q" if hashed else "", **rules)
    engine = XlaEngine([table(), table("q", vocab_size=2)], [config], batch_size=2)

    def places(*ids: list[int]) -> Any:
        offsets = np.cumsum([0, *map(len, ids)])
        return engine.prepare({"ids": Ragged(np.concatenate(ids), offsets)})

    cut = places([1, 2, -4], [3, 4, 1 << 40, -1])
    jax.tree.map(np.testing.assert_array_equal, cut, places([1, 2], [3, 4]))
    jax.tree.map(
        np.testing.assert_array_equal,
        engine.prepare({"ids": np.array([[1, 2, -4], [3, 4, 1 << 40]])}),
        cut,
    )
    with pytest.raises(DataError, match=r"example 1 .*id -7 is negative"):
        places([1, 2, -4], [3, -7, -8])
    with pytest.raises(DataError, match=r"example 0 .*id 1099511627776 is outside"):
        places([1, 1 << 40, -4], [3])


@pytest.mark.parametrize(
    ("tables", "features", "message"),
    [
        ([table()], [feature(quotient_table="qq")], "feature 'f' looks up table 'qq'"),
        (
            [table(), table("q", dim=8)],
            [feature(quotient_table="q")],
            r"quotient_table 'q' \(dim 8\) must be another table than 't' \(dim 4\), of the same",
        ),
        ([table()], [feature(quotient_table="t")], "must be another table"),
        (
            [table()],
            [feature(sequence=True), feature(name="f/mask")],
            "two features are named 'f/mask'",
        ),
    ],
)
def test_features_are_checked(tables: Any, features: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        XlaEngine(tables, features, batch_size=2)


def test_multipliers_must_be_finite() -> None:
    with pytest.raises(ConfigError, match="table 't': gradient_multiplier must be finite, got nan"):
        table(gradient_multiplier=float("nan"))


@pytest.mark.parametrize("multiplier", [1.0, 0.5])
def test_who_uses_none_of_it_pays_for_none_of_it(multiplier: float) -> None:
    one = table(gradient_multiplier=multiplier)
    engine = XlaEngine([one], [feature()], batch_size=BATCH)
    (lookups,) = engine.prepare({"ids": ragged()["ids"]}).values()
    assert lookups.weights is None
    rows = engine.gather(engine.init(jax.random.key(0)), {engine.stacks[0].name: lookups})
    text = str(jax.make_jaxpr(lambda r: engine.combine(r, {engine.stacks[0].name: lookups}))(rows))
    assert ("_scale_gradient" in text) == (multiplier != 1.0)
    assert jnp.float32 == next(iter(rows.values())).dtype
