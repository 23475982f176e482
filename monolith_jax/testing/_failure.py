"""How a failing check says what failed, for which layer, on which input."""

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np


class LayerTestError(AssertionError):
    """A layer failed one of the checks of `layer_test`.

    Attributes:
      check: The check's name, one of `LAYER_CHECKS`, "init" or "call".
      layer: The layer class's name.
    """

    def __init__(self, check: str, layer: str, message: str) -> None:
        super().__init__(message)
        self.check = check
        self.layer = layer


@dataclasses.dataclass(frozen=True)
class Subject:
    """What every message names: the layer, the input and the kwargs."""

    layer: str
    input: str
    kwargs: Mapping[str, Any]

    @contextlib.contextmanager
    def check(self, name: str) -> Iterator[None]:
        """Turns whatever the body raises into a `LayerTestError` of check `name`."""
        try:
            yield
        except LayerTestError:
            raise
        except Exception as error:
            what = str(error).strip() or type(error).__name__
            if not isinstance(error, AssertionError):
                what = f"{type(error).__name__}: {what}"
            raise LayerTestError(
                name,
                self.layer,
                f"check {name!r} failed for layer {self.layer}, input {self.input}, "
                f"kwargs {dict(self.kwargs)}: {what}",
            ) from error


def describe_input(x: np.ndarray, seed: int | None) -> str:
    """Returns dtype, shape and range of the input, and the seed if it was generated.

    Example:
      >>> describe_input(np.array([[1, 5]], np.int32), seed=3)
      'int32[1, 2] (1 to 5, generated with seed=3)'
    """
    facts = []
    if x.size and x.dtype != bool:
        wide = x.astype(np.float64) if x.dtype.kind not in "iuc" else x
        facts.append(f"{wide.min():.4g} to {wide.max():.4g}" if x.dtype.kind != "c" else "complex")
    if seed is not None:
        facts.append(f"generated with seed={seed}")
    return f"{x.dtype}{list(x.shape)}" + (f" ({', '.join(facts)})" if facts else "")
