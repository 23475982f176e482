"""An independent writer of Monolith's assets: Google's protobuf and TensorFlow's record writer.

The messages are built from the description of the format (the two .proto files of
monolith/native_training/runtime/hash_table), not from this package's tables.
"""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

_DESCRIPTION = """
AdagradOptimizerDump: norm*f=1
SgdOptimizerDump:
FtrlOptimizerDump: zero*f=1 norm*f=2
DynamicWdAdagradOptimizerDump: norm*f=1 last_update_step?i=2
AdadeltaOptimizerDump: accum*f=1 accum_update*f=2
AdamOptimizerDump: m*f=1 v*f=2 beta1_power?f=3 beta2_power?f=4
AmsgradOptimizerDump: m*f=1 v*f=2 vhat*f=3 beta1_power?f=4 beta2_power?f=5
MomentumOptimizerDump: n*f=1
RmspropOptimizerDump: n*f=1
RmspropV2OptimizerDump: n*f=1
GroupFtrlOptimizerDump: zero*f=1 norm*f=2
BatchSoftmaxOptimizerDump: global_step?i=1
GroupAdaGradOptimizerDump: grad_square_sum?f=1
SingleOptimizerDump: adagrad?AdagradOptimizerDump=1 sgd?SgdOptimizerDump=2 \
ftrl?FtrlOptimizerDump=3 dynamic_wd_adagrad?DynamicWdAdagradOptimizerDump=4 \
adadelta?AdadeltaOptimizerDump=6 adam?AdamOptimizerDump=7 amsgrad?AmsgradOptimizerDump=8 \
momentum?MomentumOptimizerDump=9 rmsprop?RmspropOptimizerDump=11 \
rmspropv2?RmspropV2OptimizerDump=12 group_ftrl?GroupFtrlOptimizerDump=13 \
batch_softmax?BatchSoftmaxOptimizerDump=14 group_adagrad?GroupAdaGradOptimizerDump=15
OptimizerDump: dump*SingleOptimizerDump=1
EntryDump: id?s=1 num*f=2 opt?OptimizerDump=3 last_update_ts_sec?i=4
MultiHashTableMetadata: table_name?t=1 num_entries?u=2
PackedEntry: num#f=2 id?s=1 extra?t=9 opt?PackedDump=3
PackedDump: dump*PackedSingle=1
PackedSingle: adagrad?PackedAdagrad=1
PackedAdagrad: norm#f=1
"""


def _messages() -> SimpleNamespace:
    """Builds the classes in proto2; * is repeated, # packed, ? optional."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    kinds = {"f": 2, "i": 3, "u": 4, "s": 16, "t": 9}
    file = descriptor_pb2.FileDescriptorProto(name="assets.proto", package="assets")
    for line in filter(None, _DESCRIPTION.splitlines()):
        name, _, rest = line.partition(":")
        message = file.message_type.add(name=name)
        if name == "SingleOptimizerDump":
            message.oneof_decl.add(name="type")
        for part in rest.split():
            declared, number = part.split("=")
            mark = next(m for m in "*#?" if m in declared)
            field, kind = declared.split(mark)
            added = message.field.add(name=field, number=int(number), label=1 if mark == "?" else 3)
            if kind in kinds:
                added.type = kinds[kind]
            else:
                added.type, added.type_name = 11, f".assets.{kind}"
            added.options.packed = mark == "#"
            if mark != "#":
                added.ClearField("options")
            if name == "SingleOptimizerDump":
                added.oneof_index = 0
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    found = message_factory.GetMessages([file], pool=pool)
    return SimpleNamespace(**{k.rpartition(".")[2]: v for k, v in found.items()})


@pytest.fixture(scope="session")
def messages() -> SimpleNamespace:
    """Protobuf classes of the assets' messages, by name."""
    return _messages()


class Writer:
    """Writes dumps as Monolith does."""

    def __init__(self, messages: SimpleNamespace) -> None:
        self.messages = messages

    def records(self, path: Path, records: list[bytes], compression: str = "") -> None:
        """Writes records with TensorFlow's writer; its Python door knows no snappy."""
        from tensorflow.python.lib.io import _pywrap_record_io as record_io

        path.parent.mkdir(parents=True, exist_ok=True)
        writer = record_io.RecordWriter(str(path), record_io.RecordWriterOptions(compression))
        for record in records:
            writer.write(record)
        writer.close()

    def single(self, folder: Path, base: str, shards: list[list[Any]]) -> None:
        """Writes a single table of entries per shard."""
        for i, entries in enumerate(shards):
            data = [entry.SerializeToString() for entry in entries]
            self.records(folder / f"{base}-{i:05d}-of-{len(shards):05d}", data)

    def multi(self, folder: Path, base: str, shards: list[dict[str, list[Any]]]) -> None:
        """Writes a multi table of entries per table and shard."""
        for i, tables in enumerate(shards):
            tail = f"-{i:05d}-of-{len(shards):05d}"
            data = [e.SerializeToString() for entries in tables.values() for e in entries]
            self.records(folder / f"{base}{tail}", data, "SNAPPY")
            metas = [
                self.messages.MultiHashTableMetadata(table_name=name, num_entries=len(entries))
                for name, entries in tables.items()
            ]
            self.records(folder / f"{base}.meta{tail}", [m.SerializeToString() for m in metas])


@pytest.fixture(scope="session")
def writer(tf: Any, messages: SimpleNamespace) -> Writer:
    """The writer; `tf` has TensorFlow imported in the way of all tests."""
    return Writer(messages)
