"""Criteo's click logs: DLRM and DCNv2, at a laptop's size and at MLPerf's.

    monolith-jax data criteo day_0.gz day_1.gz --root DATA
    monolith-jax train criteo.DLRM --input.root DATA --input.start_date 20000101 \
        --input.end_date 20000101 --model-dir DIR

`criteo.DLRM` and `criteo.DCNv2` read one id for each of the 26 categories, as `data criteo` writes
them, with tables of `BUCKETS` rows of dim 16. `criteo.MLPerfDLRM` and `criteo.MLPerfDCNv2` have the
tables, the multi-hot lookups and the widths of MLPerf's DLRM-DCNv2: 204 M rows of dim 128.

Source of what is MLPerf's: mlcommons/training, recommendation_v2/torchrec_dlrm: README.MD ("Running
the MLPerf DLRM v2 benchmark": `--num_embeddings_per_feature`, `--multi_hot_sizes`,
`GLOBAL_BATCH_SIZE=65536`, `--embedding_dim 128`, `--dense_arch_layer_sizes 512,256,128`,
`--over_arch_layer_sizes 1024,1024,512,256,1`, `--dcn_num_layers=3`, `--dcn_low_rank_dim=512`,
`--adagrad`, `--learning_rate 0.005`) and dlrm_main.py (`ADAGRAD_INIT_ACC`, `ADAGRAD_EPS`).
"""

from typing import Any

from monolith_jax.embedding import FeatureConfig, TableConfig, Uniform
from monolith_jax.models import DCNv2Config, DLRMConfig
from monolith_jax.optimizers import Adagrad, Adam, UpdateRule
from monolith_jax.registry import RegisterSingleTaskModel, SingleTaskModelParams
from monolith_jax.task import InputConfig, LabelConfig, TaskConfig
from monolith_jax.tasks.criteo_data import BUCKETS
from monolith_jax.tasks.criteo_tsv import CATEGORIES, LABEL, NUMBERS

MLPERF_ROWS = (
    40_000_000, 39_060, 17_295, 7_424, 20_265, 3, 7_122, 1_543, 63, 40_000_000, 3_067_956,
    405_282, 10, 2_209, 11_938, 155, 4, 976, 14, 40_000_000, 40_000_000, 40_000_000, 590_152,
    12_973, 108, 36,
)  # fmt: skip
"""Rows of MLPerf's 26 tables, 204,184,588 in all: `num_embeddings_per_feature`."""

MLPERF_IDS = (3, 2, 1, 2, 6, 1, 1, 1, 1, 7, 3, 8, 1, 6, 9, 5, 1, 1, 1, 12, 100, 27, 10, 3, 1, 1)
"""Ids of an example in each of them, 214 in all: `multi_hot_sizes`."""

MLPERF_BATCH = 65_536

MLPERF_EPSILON = 1e-10
"""`ADAGRAD_EPS`. There a step divides by sqrt(sum) + eps, with sums that start at 0; ours, as
TensorFlow's, by sqrt(sum) with sums that start at eps^2: alike once a gradient was far above eps,
and never more than a factor of sqrt(2) apart."""


def _lookups(
    rows: tuple[int, ...], ids: tuple[int, ...], dim: int, rule: UpdateRule
) -> tuple[tuple[TableConfig, ...], tuple[FeatureConfig, ...]]:
    """Returns a table and a feature for each category."""
    tables = tuple(
        # DLRM's start: uniform in +- sqrt(1 / rows).
        TableConfig(
            name=name,
            vocab_size=size,
            dim=dim,
            initializer=Uniform(scale=size**-0.5),
            optimizer=rule,
        )
        for name, size in zip(CATEGORIES, rows, strict=True)
    )
    features = tuple(
        FeatureConfig(name=name, table=name, combiner="sum", max_length=count)
        for name, count in zip(CATEGORIES, ids, strict=True)
    )
    return tables, features


def _small(model: Any) -> TaskConfig:
    count = len(CATEGORIES)
    tables, features = _lookups((BUCKETS,) * count, (1,) * count, 16, Adagrad(learning_rate=0.05))
    return TaskConfig(
        input=InputConfig(batch_size=4096),
        label=LabelConfig(column=LABEL),
        tables=tables,
        features=features,
        dense=NUMBERS,
        model=model,
        optimizer=Adam(learning_rate=0.001),
    )


def _mlperf(model: Any) -> TaskConfig:
    rule = Adagrad(learning_rate=0.005, initial_accumulator_value=MLPERF_EPSILON**2)
    tables, features = _lookups(MLPERF_ROWS, MLPERF_IDS, 128, rule)
    return TaskConfig(
        input=InputConfig(batch_size=MLPERF_BATCH),
        label=LabelConfig(column=LABEL),
        tables=tables,
        features=features,
        dense=NUMBERS,
        model=model,
        optimizer=rule,
    )


@RegisterSingleTaskModel
class DLRM(SingleTaskModelParams):
    """Criteo: will an ad be clicked (DLRM, inner products)."""

    def task(self) -> TaskConfig:
        """Returns the config; dates and root are the user's to give."""
        return _small(DLRMConfig(vectors=CATEGORIES, bottom=(64, 16), top=(128, 64)))


@RegisterSingleTaskModel
class DCNv2(SingleTaskModelParams):
    """Criteo: will an ad be clicked (DLRM with DCNv2's cross layers)."""

    def task(self) -> TaskConfig:
        """Returns the config; dates and root are the user's to give."""
        return _small(
            DCNv2Config(vectors=CATEGORIES, bottom=(64, 16), top=(128, 64), layers=2, rank=64)
        )


@RegisterSingleTaskModel
class MLPerfDLRM(SingleTaskModelParams):
    """Criteo at MLPerf's DLRM-DCNv2 size, with inner products."""

    def task(self) -> TaskConfig:
        """Returns the config: 26 tables, 204 M rows of dim 128, 214 ids an example."""
        return _mlperf(DLRMConfig(vectors=CATEGORIES))


@RegisterSingleTaskModel
class MLPerfDCNv2(SingleTaskModelParams):
    """Criteo at MLPerf's DLRM-DCNv2 size, as MLPerf defines it."""

    def task(self) -> TaskConfig:
        """Returns the config: 26 tables, 204 M rows of dim 128, 214 ids an example."""
        return _mlperf(DCNv2Config(vectors=CATEGORIES))
