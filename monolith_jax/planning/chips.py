"""What Google publishes of its TPUs: the figures that a plan's bounds rest on."""

from dataclasses import dataclass

from monolith_jax.errors import ConfigError, did_you_mean

GIB = 1 << 30
_DOCS = "https://cloud.google.com/tpu/docs"


@dataclass(frozen=True)
class Chip:
    """One generation of TPU chips, figures per chip.

    Attributes:
      name: as in the names of topologies: "v5p" of "v5p:4x4x4".
      hbm_bytes: memory.
      hbm_rate: bytes/s of that memory.
      flops: bfloat16 operations/s of the matrix units; float32 products run there too, rounded to
        bfloat16 first, unless a model asks for more precision.
      ici_rate: bytes/s of all links to other chips, both directions added.
      dimensions: of the torus that the links make; a chip has two links a dimension.
      sparsecores: of a chip.
      source: where the figures are published.
    """

    name: str
    hbm_bytes: int
    hbm_rate: float
    flops: float
    ici_rate: float
    dimensions: int
    sparsecores: int
    source: str

    @property
    def link_rate(self) -> float:
        """Bytes/s of one link in one direction."""
        return self.ici_rate / (4 * self.dimensions)

    def wraps(self, side: int) -> bool:
        """Whether a side of a slice this long is closed to a ring.

        In three dimensions sides of whole cubes of 4 are; in two, the full 16 of a pod alone.
        """
        return side % 4 == 0 if self.dimensions == 3 else side == 16


CHIPS = {
    chip.name: chip
    for chip in (
        Chip("v5e", 16 * GIB, 819e9, 197e12, 400e9, 2, 0, f"{_DOCS}/v5e"),
        Chip("v5p", 95 * GIB, 2765e9, 459e12, 1200e9, 3, 4, f"{_DOCS}/tpu7x"),
        Chip("v6e", 32 * GIB, 1638e9, 918e12, 800e9, 2, 2, f"{_DOCS}/tpu7x"),
        Chip("tpu7x", 192 * GIB, 7380e9, 2307e12, 1200e9, 3, 4, f"{_DOCS}/tpu7x"),
    )
}
"""By name. v5p, v6e and TPU7x stand beside each other in the table of TPU7x's page."""


def chip_of(topology: str) -> tuple[Chip, tuple[int, ...]]:
    """Returns the chip and the sides of a topology's name.

    Raises:
      ConfigError: no such chip, or sides that are none.

    Example:
      >>> chip, sides = chip_of("v5p:4x4x8")
      >>> chip.name, sides
      ('v5p', (4, 4, 8))
    """
    name, colon, shape = topology.partition(":")
    if name not in CHIPS:
        raise ConfigError(f"topology {topology!r}: no chip {name!r}: {did_you_mean(name, CHIPS)}")
    chip = CHIPS[name]
    sides = shape.split("x") if colon else []
    if len(sides) != chip.dimensions or not all(s.isdecimal() and int(s) for s in sides):
        example = "x".join(["4"] * chip.dimensions)
        raise ConfigError(
            f"topology {topology!r}: expected {chip.dimensions} sides, as in {name}:{example}"
        )
    return chip, tuple(map(int, sides))
