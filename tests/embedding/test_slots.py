"""Slots, slices and vocabularies: the tables they make, and their training against TF1."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from monolith_jax.embedding import (
    FeatureColumn,
    FeatureSlice,
    FeatureSlot,
    Normal,
    QuotientRemainder,
    Uniform,
    Vocabulary,
    XlaEngine,
    read_counts,
    slot_configs,
)
from monolith_jax.errors import ConfigError, DataError
from monolith_jax.optimizers import Adagrad, ExponentialDecay, Ftrl, Momentum

BATCH, STEPS, IDS = 32, 20, 50


def columns(*names: str, **options: Any) -> tuple[FeatureColumn, ...]:
    return tuple(FeatureColumn(name=name, **options) for name in names)


def slot(name: str = "7", **options: Any) -> FeatureSlot:
    given: dict[str, Any] = {"slices": (FeatureSlice(dim=4),), "columns": columns("c")} | options
    return FeatureSlot(name=name, **given)


def test_each_slice_has_a_rule_a_start_and_a_rate_of_its_own() -> None:
    decay = ExponentialDecay(initial=0.5)
    made, features = slot_configs(
        [
            slot(
                has_bias=True,
                optimizer=Momentum(learning_rate=0.1, momentum=0.9),
                slices=(
                    FeatureSlice(dim=4),
                    FeatureSlice(dim=8, optimizer=Adagrad(learning_rate=0.2), learning_rate=decay),
                    FeatureSlice(dim=2, initializer=Normal(stddev=1.0), dtype="bfloat16"),
                ),
                columns=(
                    FeatureColumn(name="a"),
                    FeatureColumn(name="b", column="x", sequence=True, max_length=3, slices=(0, 2)),
                ),
            ),
            slot("nobody", columns=()),
        ],
        Vocabulary(counts={"7": 99}, offset=1),
        gradient_multiplier=0.5,
    )
    bias, plain, rated, low = made
    assert [table.name for table in made] == [f"table_7_{i}" for i in range(4)]
    assert bias.optimizer == Ftrl(learning_rate=0.01)
    assert bias.dim == 1
    assert plain.optimizer == Momentum(learning_rate=0.1, momentum=0.9)
    assert plain.initializer == Uniform(scale=0.001)
    assert rated.optimizer == Adagrad(learning_rate=decay)
    assert (low.initializer, low.dtype) == (Normal(stddev=1.0), "bfloat16")
    assert {(table.vocab_size, table.gradient_multiplier) for table in made} == {(100, 0.5)}
    assert [f.name for f in features] == ["a_0", "a_1", "a_2", "a_3", "b_0", "b_2"]
    assert {f.source for f in features if f.sequence} == {"x"}
    assert [f.table for f in features[-2:]] == ["table_7_0", "table_7_2"]


def test_large_slots_are_hashed_and_have_no_large_table() -> None:
    made, (large, small) = slot_configs(
        [slot("1", columns=columns("l")), slot("2", columns=columns("s"))],
        Vocabulary(counts={"1": 1001, "2": 1000}),
        hashing=QuotientRemainder(threshold=1000, collision_rate=4),
    )
    assert {table.name: table.vocab_size for table in made} == {
        "table_1_0_0": 251,
        "table_1_0_1": 4,
        "table_2_0": 1000,
    }
    assert (large.table, large.quotient_table) == ("table_1_0_0", "table_1_0_1")
    assert (small.table, small.quotient_table) == ("table_2_0", "")
    engine = XlaEngine(made, (large, small), batch_size=1001)
    lookups = engine.prepare({"l": np.arange(1001), "s": np.zeros(1001, np.int64)})
    (index,) = (x.index for x in lookups.values())
    assert len({tuple(row) for row in np.asarray(index)[:, [0, 1]].tolist()}) == 1001


@pytest.mark.parametrize("ids", [2, 10, 1001, 2**40 + 7])
@pytest.mark.parametrize("rate", [1, 2, 4, 1000])
def test_two_tables_have_room_for_every_id(ids: int, rate: int) -> None:
    sizes = QuotientRemainder(threshold=1, collision_rate=rate).sizes(ids)
    assert sizes is not None
    remainders, quotients = sizes
    assert remainders * quotients >= ids
    assert quotients <= rate
    assert (ids - 1) // remainders == quotients - 1


def test_ids_fold_where_sizes_are_made_up() -> None:
    sizes = Vocabulary(counts={"1": 50, "2": 60}, overrides={"2": 9}, offset=1)
    slots = [slot("1", columns=columns("a")), slot("2", columns=columns("b"))]
    made, features = slot_configs(slots, sizes)
    assert [table.vocab_size for table in made] == [51, 10]
    assert [feature.out_of_range for feature in features] == ["error", "modulo"]
    made, features = slot_configs(slots, Vocabulary(fixed=5))
    assert [table.vocab_size for table in made] == [5, 5]
    assert [feature.out_of_range for feature in features] == ["modulo", "modulo"]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Vocabulary(counts={"12": 3}).size("13"), "slot '13' has no vocabulary size: .*12"),
        (lambda: Vocabulary(counts={"1": 3}, offset=-3), "slot '1': vocabulary size 3 with offset"),
        (lambda: Vocabulary(fixed=-1), "fixed must be at least 0, got -1"),
        (
            lambda: slot_configs([slot(), slot()], Vocabulary(fixed=3)),
            "two slots are named '7'",
        ),
        (
            lambda: slot_configs([slot(), slot("8")], Vocabulary(fixed=3)),
            "two columns are named 'c'",
        ),
        (
            lambda: slot_configs([slot(columns=columns("c", slices=(1,)))], Vocabulary(fixed=3)),
            "column 'c' looks up slice 1 of slot '7', which has 1, counted from 0",
        ),
        (lambda: QuotientRemainder(collision_rate=0), "collision_rate at least 1, got"),
    ],
)
def test_configs_are_checked(call: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        call()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1\t2\n3 4\n", "line 2: expected slot<TAB>count, got '3 4'"),
        ("1\t2\n3\tx\n", "line 2: expected"),
        ("1\t-2\n", None),
        ("1\t2\t3\n", "line 1: expected"),
        ("1\t2\n\n1\t2\n", "line 3: slot '1' a second time"),
        ("\t2\n", "line 1: expected"),
    ],
)
def test_counts_are_checked(text: str, message: str | None, tmp_path: Path) -> None:
    file = tmp_path / "vocab.tsv"
    file.write_text(text)
    if message is None:  # taken for a heading
        assert read_counts(str(file)) == {}
        return
    with pytest.raises(DataError, match=f"vocab.tsv, {message}"):
        read_counts(str(file))


@pytest.mark.parametrize("sharded", [False, True])
def test_slices_train_as_tf1_trains_them(sharded: bool, tf: Any, mesh: Any) -> None:
    """One slot: a bias with FTRL, a vector with decaying Adagrad, shared by two columns."""
    rate = ExponentialDecay(initial=0.5, decay_steps=5, decay_rate=0.7)
    made, features = slot_configs(
        [
            slot(
                has_bias=True,
                bias_optimizer=Ftrl(learning_rate=0.3, l1_regularization_strength=0.01),
                bias_initializer=Uniform(scale=0.3),
                slices=(FeatureSlice(dim=4, learning_rate=rate, initializer=Uniform(scale=0.5)),),
                columns=columns("a", "b"),
            )
        ],
        Vocabulary(fixed=IDS),
    )
    engine = XlaEngine(made, features, batch_size=BATCH, mesh=mesh if sharded else None, shards=16)
    rng = np.random.default_rng(0)
    data = [
        (rng.integers(0, IDS, BATCH), rng.zipf(1.3, BATCH) % IDS, rng.normal(size=BATCH))
        for _ in range(STEPS)
    ]

    def step(state: Any, lookups: Any, target: Any) -> Any:
        rows = engine.gather(state, lookups)

        def loss(rows: Any) -> Any:
            v = engine.combine(rows, lookups)
            score = (v["a_1"] * v["b_1"]).sum(1) + v["a_0"][:, 0] + v["b_0"][:, 0]
            return jnp.square(score - target).sum()

        return engine.update(state, lookups, rows, jax.grad(loss)(rows))

    state, compiled = engine.init(jax.random.key(0)), jax.jit(step)
    start = [engine.table_rows(state, table.name) for table in made]
    for a, b, target in data:
        lookups = engine.prepare({"a": a, "b": b})
        lookups = jax.device_put(lookups, engine.lookups_sharding(lookups))
        state = compiled(state, lookups, target.astype(np.float32))

    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        bias, vector = (
            v1.get_variable(f"t{i}", initializer=x, use_resource=True) for i, x in enumerate(start)
        )
        a, b = v1.placeholder(tf.int64, [BATCH]), v1.placeholder(tf.int64, [BATCH])
        target, count = v1.placeholder(tf.float32, [BATCH]), v1.train.get_or_create_global_step()
        score = tf.reduce_sum(tf.gather(vector, a) * tf.gather(vector, b), 1)
        score += tf.gather(bias, a)[:, 0] + tf.gather(bias, b)[:, 0]
        loss = tf.reduce_sum(tf.square(score - target))
        decayed = v1.train.exponential_decay(0.5, count, 5, 0.7)
        ftrl = v1.train.FtrlOptimizer(0.3, l1_regularization_strength=0.01)
        trained = ftrl.minimize(loss, var_list=[bias])
        with tf.control_dependencies([loss]):
            also = v1.train.AdagradOptimizer(decayed).minimize(loss, var_list=[vector])
        with tf.control_dependencies([trained, also]):
            advance = v1.assign_add(count, 1)
        session.run(v1.global_variables_initializer())
        # Gradients of both are taken from the values before the step, as ours are.
        for one in data:
            session.run(advance, dict(zip((a, b, target), one, strict=True)))
        want = session.run([bias, vector])
    for table, before, values in zip(made, start, want, strict=True):
        assert np.abs(values - before).max() > 0.1
        np.testing.assert_allclose(engine.table_rows(state, table.name), values, atol=2e-5)
