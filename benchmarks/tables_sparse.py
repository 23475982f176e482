"""Touched-row updates of a large table against TF1's sparse optimizers.

One step: 65,536 Zipf ids look rows up, the loss is `sum((row - target)^2)`, and the optimizer moves
the touched rows. Ours counts everything from the batch's ids on: deduplication on the host, the
transfer, the donated step. TF's is one call of a graph-mode session on the same ids, in a process
of its own: in ours malloc keeps what is freed (`cpu_memory`).

    python -m benchmarks.tables_sparse [--json FILE] [--quick]
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import _harness
from monolith_jax.cpu_memory import keep_freed_memory, step_options, use_huge_pages
from monolith_jax.embedding import Constant, FeatureConfig, TableConfig, XlaEngine
from monolith_jax.optimizers import Adagrad, Momentum, RMSProp, RowwiseAdagrad, UpdateRule

BATCHES = 8


@dataclass(frozen=True)
class Case:
    """A table, a batch and a rule; `theirs` names the TF1 optimizer it is held against."""

    name: str
    rows: int
    dim: int
    ids: int
    rule: UpdateRule
    theirs: str

    def batches(self) -> list[np.ndarray]:
        """Zipf(1.05) ids, folded into the table and spread over it."""
        rng = np.random.default_rng(0)
        ids = [rng.zipf(1.05, self.ids) % self.rows for _ in range(BATCHES)]
        return [(batch * 2_654_435_761) % self.rows for batch in ids]


def ours(case: Case) -> Callable[[], object]:
    table = TableConfig(
        name="t", vocab_size=case.rows, dim=case.dim, optimizer=case.rule, initializer=Constant()
    )
    engine = XlaEngine([table], [FeatureConfig(name="f", table="t")], batch_size=case.ids)
    state, turn = engine.init(jax.random.key(0)), iter(_cycle(case.batches()))
    use_huge_pages(state)
    target = jnp.ones((case.ids, case.dim))

    def step(state: Any, lookups: Any, target: jax.Array) -> Any:
        rows = engine.gather(state, lookups)

        def loss(rows: Any) -> jax.Array:
            return jnp.square(engine.combine(rows, lookups)["f"] - target).sum()

        value, gradients = jax.value_and_grad(loss)(rows)
        return engine.update(state, lookups, rows, gradients), value

    compiled = jax.jit(step, donate_argnums=0, compiler_options=step_options())

    def one() -> object:
        nonlocal state
        state, value = compiled(state, engine.prepare({"f": next(turn)}), target)
        return float(value)

    return one


def theirs(case: Case) -> Callable[[], object]:
    import tensorflow as tf

    v1 = tf.compat.v1
    with tf.Graph().as_default():
        table = v1.get_variable(
            "t", [case.rows, case.dim], initializer=v1.zeros_initializer(), use_resource=True
        )
        ids = v1.placeholder(tf.int64, [case.ids])
        loss = tf.reduce_sum(tf.square(tf.gather(table, ids) - tf.ones([case.ids, case.dim])))
        optimizer = {
            "adagrad": lambda: v1.train.AdagradOptimizer(0.05),
            "momentum": lambda: v1.train.MomentumOptimizer(0.05, 0.9),
            "rmsprop": lambda: v1.train.RMSPropOptimizer(0.05),
        }[case.theirs]()
        train = optimizer.minimize(loss)
        session = v1.Session()
        session.run(v1.global_variables_initializer())
    turn = iter(_cycle(case.batches()))
    return lambda: session.run([train, loss], {ids: next(turn)})


def _cycle(batches: list[np.ndarray]) -> Any:
    while True:
        yield from batches


def cases(quick: bool) -> list[Case]:
    scale = 100 if quick else 1
    big, mid, ids = 10_000_000 // scale, 1_000_000 // scale, 65_536 // (16 if quick else 1)
    adagrad = Adagrad(learning_rate=0.05)
    return [
        Case("adagrad 10M x 16", big, 16, ids, adagrad, "adagrad"),
        Case(
            "rowwise adagrad 10M x 16", big, 16, ids, RowwiseAdagrad(learning_rate=0.05), "adagrad"
        ),
        Case(
            "momentum 10M x 16",
            big,
            16,
            ids,
            Momentum(learning_rate=0.05, momentum=0.9),
            "momentum",
        ),
        Case("rmsprop 10M x 16", big, 16, ids, RMSProp(learning_rate=0.05), "rmsprop"),
        Case("adagrad 1M x 64", mid, 64, ids, adagrad, "adagrad"),
    ]


def main() -> None:
    quick = ["--quick"] if "--quick" in sys.argv else []
    if "--theirs" in sys.argv:
        _harness.serve(theirs(cases(bool(quick))[int(sys.argv[sys.argv.index("--theirs") + 1])]))
        return
    args = _harness.arguments(__doc__)
    keep_freed_memory()
    rows = []
    for i, case in enumerate(cases(args.quick)):
        with _harness.elsewhere("benchmarks.tables_sparse", "--theirs", str(i), *quick) as other:
            rows.append(
                _harness.compare(
                    case.name,
                    ours(case),
                    other,
                    theirs_name=f"TF1 {case.theirs}",
                    repeats=5 if quick else 31,
                    warmup=2 * BATCHES,
                )
            )
    _harness.report(rows, args.json)


if __name__ == "__main__":
    main()
