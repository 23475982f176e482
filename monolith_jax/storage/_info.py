"""What a listing says of a file."""

from dataclasses import dataclass


@dataclass(frozen=True, order=True)
class FileInfo:
    """A file as listed: its path, and its size in bytes.

    Attributes:
      path: the whole path, gs://bucket/name or local.
      size: bytes.

    Example:
      >>> info = FileInfo("gs://bucket/run/model.ckpt-7.meta", 10)
      >>> info.bucket, info.name
      ('bucket', 'run/model.ckpt-7.meta')
    """

    path: str
    size: int

    @property
    def bucket(self) -> str:
        """The bucket; empty for a local file."""
        return self.path[5:].partition("/")[0] if self.path.startswith("gs://") else ""

    @property
    def name(self) -> str:
        """The name within the bucket; the path of a local file."""
        return self.path[5:].partition("/")[2] if self.path.startswith("gs://") else self.path
