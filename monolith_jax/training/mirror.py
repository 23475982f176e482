"""The growing files of a model dir in a bucket: written locally, replaced whole in the bucket.

An object cannot be appended to. Composing pieces would leave a reader with an object for every
row, and an object takes about one write a second; so metrics.jsonl and the event file grow in a
local folder, and are written over as wholes, complete or as before:

- before every checkpoint, so that the rows up to its step are there when it is: what a restored
  run keeps (the rows up to its step) has been published;
- at least every `EVERY_S` seconds in between, when a row is written;
- at the end, also at one that an error brings.

Files of some MB are sent each time. A kill loses the rows since the last checkpoint at most, and
those steps are done again.
"""

import shutil
import time
from collections.abc import Callable
from pathlib import Path

from monolith_jax import storage
from monolith_jax.checkpoint._bucket import staging_folder

EVERY_S = 30.0


class Mirror:
    """The local folder of a model dir's growing files, and their way into its bucket.

    For a local model dir it is that folder itself, and nothing has to be published.

    Args:
      path: the model dir, local or gs://. The metrics that are in a bucket are fetched.
      allowed: called before anything is published; raises if this run may not write any more.

    Attributes:
      folder: where to write.
      remote: whether what is written has to be published.
    """

    def __init__(self, path: str, allowed: Callable[[], None] = lambda: None) -> None:
        self._allowed = allowed
        self.remote = storage.is_gs(path)
        self._path, self._published = path, time.monotonic()
        self._sizes: dict[str, int] = {}
        self.folder = staging_folder() if self.remote else Path(path)
        metrics = storage.join(path, "metrics.jsonl")
        if self.remote and storage.exists(metrics):
            storage.download(metrics, self.folder / "metrics.jsonl")

    def due(self) -> bool:
        """Whether it is time to publish."""
        return self.remote and time.monotonic() - self._published >= EVERY_S

    def publish(self) -> None:
        """Replaces every object whose file has grown since it was last published.

        Raises:
          StorageError: one cannot be written; what was in the bucket before is unharmed.
          CheckpointError: another run has taken the model dir over; its files are unharmed.
        """
        if not self.remote:
            return
        self._allowed()
        for file in sorted(self.folder.iterdir()):
            size = file.stat().st_size
            if self._sizes.get(file.name) != size:
                storage.upload(file, storage.join(self._path, file.name))
                self._sizes[file.name] = size
        self._published = time.monotonic()

    def close(self) -> None:
        """Publishes, and removes the local folder of a remote model dir."""
        if not self.remote:
            return
        try:
            self.publish()
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)
