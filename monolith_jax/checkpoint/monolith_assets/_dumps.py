"""What each of Monolith's optimizers leaves beside an embedding.

`OptimizerDump {1 repeated SingleOptimizerDump}`, where a SingleOptimizerDump holds one message, by
its field number one of `OPTIMIZERS`. The source of names, numbers and types is
monolith/native_training/runtime/hash_table/optimizer/optimizer.proto.
"""

from typing import Literal, NamedTuple

Kind = Literal["floats", "float", "int"]


class Field(NamedTuple):
    """One field of an optimizer's dump.

    Attributes:
      number: its number in the message.
      name: its name there; the key in `Slice.slots`.
      kind: "floats" are repeated, "float" and "int" (int64) stand alone and default to 0.
    """

    number: int
    name: str
    kind: Kind


class Optimizer(NamedTuple):
    """One optimizer: the number of its message in SingleOptimizerDump, its name, its fields."""

    number: int
    name: str
    fields: tuple[Field, ...]


def _optimizer(number: int, name: str, *fields: tuple[str, Kind]) -> Optimizer:
    numbered = (Field(i, field, kind) for i, (field, kind) in enumerate(fields, 1))
    return Optimizer(number, name, tuple(numbered))


OPTIMIZERS: dict[int, Optimizer] = {
    optimizer.number: optimizer
    for optimizer in (
        _optimizer(1, "adagrad", ("norm", "floats")),
        _optimizer(2, "sgd"),
        _optimizer(3, "ftrl", ("zero", "floats"), ("norm", "floats")),
        _optimizer(4, "dynamic_wd_adagrad", ("norm", "floats"), ("last_update_step", "int")),
        _optimizer(6, "adadelta", ("accum", "floats"), ("accum_update", "floats")),
        _optimizer(
            7,
            "adam",
            ("m", "floats"),
            ("v", "floats"),
            ("beta1_power", "float"),
            ("beta2_power", "float"),
        ),
        _optimizer(
            8,
            "amsgrad",
            ("m", "floats"),
            ("v", "floats"),
            ("vhat", "floats"),
            ("beta1_power", "float"),
            ("beta2_power", "float"),
        ),
        _optimizer(9, "momentum", ("n", "floats")),
        _optimizer(11, "rmsprop", ("n", "floats")),
        _optimizer(12, "rmspropv2", ("n", "floats")),
        _optimizer(13, "group_ftrl", ("zero", "floats"), ("norm", "floats")),
        _optimizer(14, "batch_softmax", ("global_step", "int")),
        _optimizer(15, "group_adagrad", ("grad_square_sum", "float")),
    )
}
"""By the number in SingleOptimizerDump; 5 and 10 are not in use."""

# One slot a number of the slice; the others keep fewer, so their length is not the slice's.
ELEMENTWISE = frozenset(
    {"adagrad", "ftrl", "adadelta", "adam", "amsgrad", "momentum", "rmsprop", "rmspropv2"}
)
