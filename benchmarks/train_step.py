"""A whole train step of a DeepFM against the same model in TF1 graph mode and in plain JAX.

26 ids of Zipf 1.05 over tables of 10 M x 16 in all, 13 floats, batch 16,384; Adagrad on the tables,
Adam on the rest. Ours is `training.Program`'s own step, with tables in huge pages as `train` puts
them, and counts the host's half (deduplication and transfer) too. TF's is one call of a graph-mode
session. Plain JAX differentiates through `table[ids]`, which makes a dense gradient, and updates it
with the same rules, donated. Each side has a process of its own and makes 8 steps in its turn; in
ours malloc keeps what is freed, and steps run one at a time, as in `monolith-jax train`
(`cpu_memory`).

Three more rows hold 50 M rows (theirs) against 1 M (ours) of one and the same side: that ratio is
how much a larger table costs, first with batches that touch as many distinct rows of it, then with
ids drawn from all its rows, of which a batch touches a seventh more. Last comes the memory of a
process of its own, started with `--memory` (Linux).

    python -m benchmarks.train_step [--json FILE] [--quick]
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import itertools
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks import _harness
from monolith_jax.cpu_memory import keep_freed_memory, one_step_at_a_time, use_huge_pages
from monolith_jax.embedding import Constant, FeatureConfig, TableConfig
from monolith_jax.input import Batch
from monolith_jax.models import DeepFMConfig
from monolith_jax.optimizers import Adagrad, Adam, as_optax
from monolith_jax.task import InputConfig, TaskConfig
from monolith_jax.training import Program

IDS, FLOATS, DIM, BATCHES = 26, 13, 16, 4
TURN = 8
"""Steps of a side's turn: all but the first find the caches as their own side left them."""

WARMUP = 4
"""Turns before the first that counts; by then a step's memory has found its place."""

STEPS = 64
"""Of the memory's measurement."""

MODULE = "benchmarks.train_step"


@dataclass(frozen=True)
class Case:
    """A model's sizes: rows over all tables, examples of a batch, widths of the MLP.

    A batch touches rows of all the table, or as many as it would of one of `touched` rows.
    """

    rows: int
    batch: int
    hidden: tuple[int, ...]
    touched: int = 0

    @property
    def vocab(self) -> int:
        """Rows of one table."""
        return self.rows // IDS

    def task(self) -> TaskConfig:
        """The model as this package has it."""
        names = tuple(f"c{i}" for i in range(IDS))
        rule = Adagrad(learning_rate=0.05)
        return TaskConfig(
            input=InputConfig(batch_size=self.batch),
            tables=tuple(
                TableConfig(
                    name=name,
                    vocab_size=self.vocab,
                    dim=DIM,
                    optimizer=rule,
                    initializer=Constant(value=0.01),
                )
                for name in names
            ),
            features=tuple(FeatureConfig(name=name, table=name) for name in names),
            dense=tuple(f"f{i}" for i in range(FLOATS)),
            model=DeepFMConfig(vectors=names, hidden=self.hidden),
            optimizer=Adam(),
        )

    def batches(self, count: int = BATCHES) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """(ids [batch, IDS] within each table, floats, labels): Zipf(1.05), spread over rows."""
        rng = np.random.default_rng(0)
        made, most = [], (self.touched or self.rows) // IDS
        for _ in range(count):
            ids = rng.zipf(1.05, (self.batch, IDS)) % most
            ids = (ids * 2_654_435_761) % most * (self.vocab // most)
            floats = rng.normal(size=(self.batch, FLOATS)).astype(np.float32)
            made.append((ids, floats, rng.integers(0, 2, self.batch).astype(np.float32)))
        return made


def ours(case: Case, batches_kept: int = BATCHES) -> Callable[[], object]:
    """The package's own step, the host's half counted in."""
    program = Program(case.task(), jax.devices()[:1])
    batches = [_batch(*arrays) for arrays in case.batches(batches_kept)]
    turn = itertools.cycle(batches)
    state, window = program.init(0), program.empty_window()
    use_huge_pages(state.tables)

    def one() -> object:
        nonlocal state, window
        state, window = program.train_step(state, window, program.prepare(next(turn)))
        return float(window["loss"])

    return one


def _batch(ids: np.ndarray, floats: np.ndarray, labels: np.ndarray) -> Batch:
    columns: dict[str, Any] = {f"c{i}": np.ascontiguousarray(ids[:, i]) for i in range(IDS)}
    columns |= {f"f{i}": np.ascontiguousarray(floats[:, i]) for i in range(FLOATS)}
    return Batch(columns | {"label": labels}, np.ones(len(labels), np.float32))


def plain_jax(case: Case) -> Callable[[], object]:
    """The textbook form: `jax.grad` through `table[ids]`, a dense gradient, dense updates."""
    module = case.task().instantiate()
    names = [f"c{i}" for i in range(IDS)]
    one_row = {name: jnp.zeros((1, DIM)) for name in names}
    dense = module.init(jax.random.key(0), one_row, jnp.zeros((1, FLOATS)))["params"]
    table = jnp.full((case.vocab * IDS, DIM), 0.01)
    rules = {"dense": as_optax(Adam()), "table": as_optax(Adagrad(learning_rate=0.05))}
    optimizer = optax.multi_transform(rules, {"dense": "dense", "table": "table"})
    params = {"dense": dense, "table": table}
    opt_state = optimizer.init(params)

    def loss_of(params: Any, ids: jax.Array, floats: jax.Array, labels: jax.Array) -> jax.Array:
        vectors = params["table"][ids]
        embeddings = {name: vectors[:, i] for i, name in enumerate(names)}
        logits = module.apply({"params": params["dense"]}, embeddings, floats)
        return optax.sigmoid_binary_cross_entropy(logits, labels).mean()

    def step(params: Any, opt_state: Any, *batch: jax.Array) -> Any:
        loss, gradients = jax.value_and_grad(loss_of)(params, *batch)
        updates, opt_state = optimizer.update(gradients, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, loss

    compiled = jax.jit(step, donate_argnums=(0, 1))
    offsets = np.arange(IDS) * case.vocab
    turn = itertools.cycle(case.batches())

    def one() -> object:
        nonlocal params, opt_state
        ids, floats, labels = next(turn)
        rows = (ids + offsets).astype(np.int32)
        params, opt_state, loss = compiled(params, opt_state, rows, floats, labels)
        return float(loss)

    return one


def tensorflow(case: Case) -> Callable[[], object]:
    """The same model as a TF1 user writes it, tables stacked into one variable."""
    import tensorflow as tf

    v1 = tf.compat.v1
    with tf.Graph().as_default():
        table = v1.get_variable(
            "table",
            [case.vocab * IDS, DIM],
            # A constant would stay in memory beside the variable.
            initializer=lambda shape, dtype, partition_info: tf.fill(shape, 0.01),
            use_resource=True,
        )
        ids = v1.placeholder(tf.int64, [case.batch, IDS])
        floats = v1.placeholder(tf.float32, [case.batch, FLOATS])
        labels = v1.placeholder(tf.float32, [case.batch])
        vectors = tf.gather(table, ids)
        x = tf.concat([tf.reshape(vectors, [case.batch, IDS * DIM]), floats], 1)
        dense = [v1.get_variable("bias", [], initializer=v1.zeros_initializer())]
        for i, width in enumerate((*case.hidden, 1)):
            shape = [int(x.shape[1]), width]
            kernel = v1.get_variable(f"w{i}", shape, initializer=v1.glorot_uniform_initializer())
            bias = v1.get_variable(f"b{i}", [width], initializer=v1.zeros_initializer())
            x = tf.nn.bias_add(tf.matmul(x, kernel), bias)
            x = tf.nn.relu(x) if i < len(case.hidden) else x
            dense += [kernel, bias]
        total = tf.reduce_sum(vectors, 1)
        squares = tf.reduce_sum(tf.square(vectors), 1)
        pairs = 0.5 * tf.reduce_sum(tf.square(total) - squares, 1)
        logits = dense[0] + x[:, 0] + pairs
        losses = tf.nn.sigmoid_cross_entropy_with_logits(labels=labels, logits=logits)
        loss = tf.reduce_mean(losses)
        gradients = tf.gradients(loss, [table, *dense])
        train = tf.group(
            v1.train.AdagradOptimizer(0.05).apply_gradients([(gradients[0], table)]),
            v1.train.AdamOptimizer().apply_gradients(zip(gradients[1:], dense, strict=True)),
        )
        session = v1.Session()
        for variable in v1.global_variables():  # at once, twice their memory would stay
            session.run(variable.initializer)
    turn = itertools.cycle(case.batches())

    def one() -> object:
        batch = dict(zip((ids, floats, labels), next(turn), strict=True))
        return session.run([train, loss], batch)

    return one


def memory(case: Case) -> None:
    """Prints the peak resident memory of our step, less what the process had before, in bytes."""
    warm = ours(Case(26_000, 64, case.hidden))
    for _ in range(STEPS):
        warm()  # imports, compilers and threads, with a batch too small to count
    Path("/proc/self/clear_refs").write_text("5")  # the peak so far, a compiler's, is forgotten
    before = _kilobytes("VmRSS") * 1024
    step = ours(case, batches_kept=1)
    for _ in range(STEPS):
        step()
    peak = _kilobytes("VmHWM") * 1024
    arrays = 2 * case.rows * DIM * 4
    # Ids, floats, label and weight, and the ids' vectors.
    batch = case.batch * (IDS * 8 + FLOATS * 4 + 8 + IDS * DIM * 4)
    print(
        f"memory: tables and slots {arrays / 1e6:.0f} MB; peak resident beyond the process's "
        f"{before / 1e6:.0f} MB at rest {(peak - before) / 1e6:.0f} MB, temporaries included, "
        f"{(peak - before) / arrays:.3f} times (10 % and a batch with its "
        f"vectors: {1.1 + batch / arrays:.3f})"
    )


def _kilobytes(name: str) -> int:
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith(name))


@dataclass(frozen=True)
class Contest:
    """One row of the report: two sides, each with its sizes."""

    name: str
    ours: Callable[[Case], Callable[[], object]]
    mine: Case
    theirs: Callable[[Case], Callable[[], object]]
    other: Case
    against: str
    repeats: int = 11


def contests(quick: bool) -> list[Contest]:
    """Returns all that is measured."""
    scale, batch = (100, 1024) if quick else (1, 16_384)
    small, whole, large = (
        Case(rows // scale, batch, (64, 32)) for rows in (1_000_000, 10_000_000, 50_000_000)
    )
    wide = Case(whole.rows, batch, (400, 400, 400))
    same = Case(large.rows, batch, (64, 32), touched=small.rows)
    return [
        Contest("MLP 64, 32", ours, whole, tensorflow, whole, "TF1"),
        Contest("MLP 400 x 3", ours, wide, tensorflow, wide, "TF1"),
        Contest("MLP 64, 32", ours, whole, plain_jax, whole, "dense-gradient JAX"),
        Contest("growth, ours: 1 M rows", ours, small, ours, same, "50 M, as many touched", 31),
        Contest("growth, ours: 1 M rows", ours, small, ours, large, "50 M rows", 31),
        Contest("growth, TF1: 1 M rows", tensorflow, small, tensorflow, large, "50 M rows"),
    ]


def main() -> None:
    quick = ["--quick"] if "--quick" in sys.argv else []
    if "--memory" in sys.argv:
        _as_train_does()
        memory(contests(bool(quick))[0].mine)
        return
    if "--side" in sys.argv:
        number, side = sys.argv[sys.argv.index("--side") + 1 :][:2]
        _side(contests(bool(quick))[int(number)], side)
        return
    args = _harness.arguments(__doc__)
    rows = []
    for i, contest in enumerate(contests(args.quick)):
        with (
            _harness.elsewhere(MODULE, "--side", str(i), "ours", *quick) as mine,
            _harness.elsewhere(MODULE, "--side", str(i), "theirs", *quick) as other,
        ):
            rows.append(
                _harness.compare(
                    contest.name,
                    mine,
                    other,
                    theirs_name=contest.against,
                    repeats=5 if quick else contest.repeats,
                    warmup=WARMUP,
                    steps=TURN,
                )
            )
        print(f"  {contest.name} done", file=sys.stderr)
    _harness.report(rows, args.json)
    command = [sys.executable, "-m", MODULE, "--memory", *quick]
    print(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout, end="")


def _as_train_does() -> None:
    one_step_at_a_time()
    keep_freed_memory()


def _side(contest: Contest, side: str) -> None:
    """Makes the steps of one side, in this process."""
    make, case = {
        "ours": (contest.ours, contest.mine),
        "theirs": (contest.theirs, contest.other),
    }[side]
    if make is ours:
        _as_train_does()
    _harness.serve(make(case), TURN)


if __name__ == "__main__":
    main()
