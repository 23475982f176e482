"""What a compiled program does, read off its HLO text: pure functions from text to counts.

XLA's own `bytes accessed` charges a gather with its whole operand, so that it says nothing about a
table of which a batch reads few rows. Here a gather costs what it returns and a scatter what it
is given, a kernel what it exchanges with the table, and copies, collectives and transfers to the
host are listed as they stand.
"""

import math
import re
from collections.abc import Collection
from dataclasses import dataclass

Shape = tuple[int, ...]

COLLECTIVES = (
    "all-gather",
    "all-reduce",
    "all-to-all",
    "collective-broadcast",
    "collective-permute",
    "ragged-all-to-all",
    "reduce-scatter",
)
_HOST = ("infeed", "outfeed", "send", "recv")
_HOST_MEMORY = "S(5)"  # where the TPU's layouts say that an array lies in the host's memory
_BITS = {"pred": 8, "bf16": 16, "c64": 64, "c128": 128}
_LINE = re.compile(r"^\s*(?:ROOT )?%?([\w.-]+) = (.*?[\]})]) ([a-z][a-z-]*)\((.*)$")
_ARRAY = re.compile(r"\b([a-z]+\d*\w*)\[([\d,]*)\]")


@dataclass(frozen=True)
class Instruction:
    """One instruction of a program.

    Attributes:
      name: unique in the program.
      opcode: "gather", "all-to-all-start", ...
      result: its type as printed, with layouts.
      arrays: (dtype, shape) of the arrays in its result, several for a tuple.
      operands: the names of what it reads.
    """

    name: str
    opcode: str
    result: str
    arrays: tuple[tuple[str, Shape], ...]
    operands: tuple[str, ...]

    @property
    def bytes(self) -> int:
        """Bytes of the result, without the padding of its layout."""
        return sum(_bytes(dtype, shape) for dtype, shape in self.arrays)


def instructions(text: str) -> dict[str, Instruction]:
    """Returns every instruction of a program's text, by name, those inside fusions included.

    Args:
      text: `compiled.as_text()`.

    Example:
      >>> found = instructions("  %g = f32[8,128]{1,0} gather(%table, %rows), offset_dims={1}")
      >>> found["g"].opcode, found["g"].bytes, found["g"].operands
      ('gather', 4096, ('table', 'rows'))
    """
    found = {}
    for line in text.splitlines():
        match = _LINE.match(line)
        if match:
            name, result, opcode, rest = match.groups()
            arrays = tuple(
                (dtype, tuple(int(n) for n in shape.split(",") if n))
                for dtype, shape in _ARRAY.findall(result)
            )
            operands = tuple(re.findall(r"%([\w.-]+)", rest.split(")", 1)[0]))
            found[name] = Instruction(name, opcode, result, arrays, operands)
    return found


def row_traffic(program: dict[str, Instruction], blocks: Collection[Shape]) -> int:
    """Returns the bytes that gathers read from, and scatters write to, arrays of these shapes.

    A kernel (`embedding._dma`) moves its other results out of them, its other operands into them;
    its padding is counted, though it is not moved. Its indices are integers and not counted.

    Args:
      program: as from `instructions`.
      blocks: the shapes of one device's part of the tables and slots.

    Example:
      >>> text = '''
      ...   %t = f32[1000,128]{1,0} parameter(0)
      ...   %i = s32[8]{0} parameter(1)
      ...   %g = f32[8,128]{1,0} gather(%t, %i), offset_dims={1}
      ...   ROOT %s = f32[1000,128]{1,0} scatter(%t, %i, %g), update_window_dims={1}
      ... '''
      >>> row_traffic(instructions(text), {(1000, 128)})
      8192
      >>> text = '''
      ...   %t = f32[1000,128]{1,0} parameter(0)
      ...   %i = s32[8]{0} parameter(1)
      ...   %n = f32[8,32]{1,0} parameter(2)
      ...   %w = (f32[1000,128]{1,0}) custom-call(%i, %n, %t), custom_call_target="tpu_custom_call"
      ... '''
      >>> row_traffic(instructions(text), {(1000, 128)})
      1024
    """
    total = sum(
        _kernel_traffic(one, program, blocks)
        for one in program.values()
        if one.opcode == "custom-call"
    )
    for one in program.values():
        if one.opcode not in ("gather", "scatter") or not one.operands:
            continue
        operand = program.get(one.operands[0])
        if operand is None or len(operand.arrays) != 1 or operand.arrays[0][1] not in blocks:
            continue
        moved = one if one.opcode == "gather" else program[one.operands[-1]]
        total += moved.bytes
    return total


def _kernel_traffic(
    kernel: Instruction, program: dict[str, Instruction], blocks: Collection[Shape]
) -> int:
    given = [array for name in kernel.operands if name in program for array in program[name].arrays]
    if not any(shape in blocks for _, shape in given):
        return 0
    moved = [array for array in (*given, *kernel.arrays) if array[1] not in blocks]
    return sum(_bytes(*array) for array in moved if not array[0].startswith("s"))


def copies(program: dict[str, Instruction], blocks: Collection[Shape]) -> list[str]:
    """Returns the names of the copies of arrays of these shapes; none is wanted.

    Example:
      >>> copies(instructions("%c = f32[1000,128]{0,1} copy(%t)"), {(1000, 128)})
      ['c']
    """
    return [
        one.name
        for one in program.values()
        if one.opcode in ("copy", "copy-start") and any(s in blocks for _, s in one.arrays)
    ]


def collectives(program: dict[str, Instruction]) -> list[tuple[str, int]]:
    """Returns (kind, bytes of the largest array of its result) of every collective, as printed.

    Example:
      >>> collectives(instructions("%a = f32[4,8,128]{2,1,0} all-to-all(%x), dimensions={0}"))
      [('all-to-all', 16384)]
    """
    found = []
    for one in program.values():
        kind = one.opcode.removesuffix("-start")
        if kind in COLLECTIVES:
            found.append((kind, max((_bytes(*array) for array in one.arrays), default=0)))
    return found


def sent_bytes(program: dict[str, Instruction], devices: int) -> dict[str, float]:
    """Returns the bytes that a device sends to others in each kind of collective, by kind.

    Of `n` devices each, with `b` the bytes of the arrays in a collective's result:

        all-to-all, all-gather      b (n - 1) / n     one's own share stays
        ragged-all-to-all           b (n - 1) / n     at most: the room for what arrives
        reduce-scatter              b (n - 1)
        all-reduce                  2 b (n - 1) / n   scattered and gathered
        others                      b

    Args:
      program: as from `instructions`; every instruction is taken to run once.
      devices: n.

    Example:
      >>> text = "%a = f32[4,8,128]{2,1,0} all-to-all(%x), dimensions={0}"
      >>> sent_bytes(instructions(text), 4)
      {'all-to-all': 12288.0}
    """
    others = (devices - 1) / devices
    factors = {"all-reduce": 2 * others, "reduce-scatter": devices - 1.0}
    factors |= dict.fromkeys(("all-to-all", "ragged-all-to-all", "all-gather"), others)
    found: dict[str, float] = {}
    for one in program.values():
        kind = one.opcode.removesuffix("-start")
        if kind not in COLLECTIVES:
            continue
        held = [_bytes(*array) for array in one.arrays]
        if kind == one.opcode or kind == "all-reduce":  # a start of all-reduce has results alone
            size = sum(held)
        else:  # ((operands), result, ...)
            size = max(held, default=0)
        found[kind] = found.get(kind, 0.0) + factors.get(kind, 1.0) * size
    return found


def host_transfers(program: dict[str, Instruction]) -> list[str]:
    """Returns the names of the instructions that move data to or from the host.

    Example:
      >>> host_transfers(instructions("%o = token[] outfeed(%x, %t)"))
      ['o']
    """
    return [
        one.name for one in program.values() if one.opcode in _HOST or _HOST_MEMORY in one.result
    ]


def _bytes(dtype: str, shape: Shape) -> int:
    digits = re.match(r"[a-z]+(\d+)", dtype)
    bits = _BITS.get(dtype, int(digits.group(1)) if digits else 0)
    return math.prod(shape) * bits // 8
