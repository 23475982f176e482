"""The index that means "no id"."""

import numpy as np

NONE = np.int32(2**31 - 1)
"""Beyond any array: reading it gives the fill value, writing it does nothing."""
