"""Native checkpoints: one folder a step, complete or invisible, restored onto the mesh at hand.

    DIR/<step>/state       the state's arrays (orbax, OCDBT), written in the background
    DIR/<step>/run         JSON: the position in the input, the config, versions

A step folder counts only once orbax has committed it, so a process that is killed while it saves
leaves the checkpoint before. Restoring always names the shardings to restore onto: the number of
devices may change between a save and a restore, and so may the number of processes.

In a bucket (gs://) the arrays of a step are a TensorFlow bundle instead, of which each process
writes its part and reads what its devices need: see `_upload` and `_bucket`. Copied to a local
folder, such a step is read there too.
"""

import errno
import os
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from etils import epath

from monolith_jax import storage
from monolith_jax.checkpoint import _bucket, _state
from monolith_jax.checkpoint._upload import Upload
from monolith_jax.checkpoint.tf._leaves import named
from monolith_jax.errors import CheckpointError, DivergedError

StateT = TypeVar("StateT")
T = TypeVar("T")


class Checkpoints:
    """The checkpoints of one run.

    Args:
      directory: their folder, local or gs://; made if it is missing. For gs:// the local disk
        (TMPDIR) of each process has to have room for what it holds of one checkpoint, and the
        host's memory too.
      keep: how many of the newest to keep; default: all.
      read_only: for a reader beside a running trainer; nothing is made, cleaned up or deleted.
      allowed: called before a checkpoint in a bucket becomes visible; raises if this run may not
        write there any more. A local folder's lock cannot be lost.

    Attributes:
      directory: their folder.
      allowed: as given.

    Example:
      >>> import tempfile
      >>> import jax.numpy as jnp
      >>> checkpoints = Checkpoints(tempfile.mkdtemp(), keep=2)
      >>> checkpoints.save(3, {"w": jnp.arange(2.0)}, {"position": 3})
      >>> checkpoints.close()
      >>> again = Checkpoints(str(checkpoints.directory), read_only=True)
      >>> again.steps()
      [3]
      >>> restored, run = again.restore(3, jax.eval_shape(lambda: {"w": jnp.zeros(2)}))
      >>> restored["w"].tolist(), run
      ([0.0, 1.0], {'position': 3})
    """

    def __init__(
        self,
        directory: str,
        keep: int | None = None,
        *,
        read_only: bool = False,
        allowed: Callable[[], None] = lambda: None,
    ) -> None:
        self.directory, self.allowed = epath.Path(directory), allowed
        if storage.is_gs(directory):
            self._upload: Upload | None = Upload(str(self.directory), keep, read_only, allowed)
        else:
            self._upload = None
            self._manager = self._open(self.directory, keep, read_only)

    def _open(self, folder: Any, keep: int | None, read_only: bool) -> ocp.CheckpointManager:
        """Returns orbax's manager of a local folder."""
        folder = epath.Path(folder)
        options = ocp.CheckpointManagerOptions(
            max_to_keep=keep,
            create=not read_only,
            cleanup_tmp_directories=not read_only,
            read_only=read_only,
        )
        if not read_only:
            self._guard(lambda: folder.mkdir(parents=True, exist_ok=True))
        # Named here, so that a reader too can ask for the metadata before it restores.
        handlers: dict[str, Any] = {
            "state": ocp.PyTreeCheckpointHandler(),
            "run": ocp.JsonCheckpointHandler(),
        }
        return self._guard(
            lambda: ocp.CheckpointManager(folder, options=options, item_handlers=handlers)
        )

    def steps(self) -> list[int]:
        """Returns the complete steps, ascending."""
        if self._upload is not None:
            return self._upload.steps()
        return sorted(self._manager.all_steps())

    def save(self, step: int, state: Any, run: dict[str, Any]) -> None:
        """Starts to write a checkpoint and returns once the state may be donated again.

        A step that is there already is left as it is. An error of the save before is raised here.

        Args:
          step: the number of steps done.
          state: any pytree of arrays.
          run: JSON values that belong to it: the position in the input, the config.

        Raises:
          DivergedError: a value is not finite; nothing is written.
          CheckpointError: it could not be written; the message names the last good one.
        """
        if self._upload is not None:
            self.wait()  # one checkpoint at a time on the local disk and in the host's memory
        self.check()
        if step in self.steps():
            return
        self._check_finite(step, state)
        if self._upload is not None:
            self._upload.start(step, state, run)
            return
        items = ocp.args.Composite(state=ocp.args.PyTreeSave(state), run=ocp.args.JsonSave(run))
        self._guard(lambda: self._manager.save(step, args=items, force=True), step)

    def restore(self, step: int, abstract: StateT) -> tuple[StateT, dict[str, Any]]:
        """Reads a checkpoint onto the shardings of `abstract`.

        Args:
          step: one of `steps()`.
          abstract: the state as `jax.ShapeDtypeStruct`s, with shardings where they matter.

        Raises:
          CheckpointError: it is damaged, or its arrays are not those of `abstract`.
        """
        if self._upload is not None:
            self.wait()
            return self._upload.restore(step, abstract)
        folder = self.directory / str(step)
        bundle = _bucket.bundle_of(folder)
        if bundle is not None:  # it was copied from a bucket
            return _state.read(bundle, abstract), _bucket.run_of(folder)
        try:
            _state.check(f"checkpoint {folder}", abstract, self._held(step))
            return self._restore(step, abstract)
        except (ValueError, KeyError, OSError) as error:
            raise CheckpointError(
                f"checkpoint {folder} cannot be restored: {_line(error)}"
            ) from error

    def run(self, step: int) -> dict[str, Any]:
        """Returns the JSON values that belong to a step; its state is not read.

        Args:
          step: one of `steps()`.

        Raises:
          CheckpointError: they are damaged.

        Example:
          >>> import tempfile
          >>> checkpoints = Checkpoints(tempfile.mkdtemp())
          >>> checkpoints.save(0, {"w": jnp.zeros(())}, {"position": 7})
          >>> checkpoints.wait()
          >>> checkpoints.run(0)
          {'position': 7}
        """
        folder = str(self.directory / str(step))
        if self._upload is not None:
            self.wait()
            return _bucket.run_of(folder)
        if _bucket.bundle_of(folder) is not None:
            return _bucket.run_of(folder)
        try:
            items = ocp.args.Composite(run=ocp.args.JsonRestore())
            found: dict[str, Any] = self._manager.restore(step, args=items)["run"]
            return found
        except (ValueError, KeyError, OSError) as error:
            raise CheckpointError(f"checkpoint {folder} cannot be read: {_line(error)}") from error

    def names(self, step: int) -> set[str]:
        """Returns the paths of a step's arrays, their parts joined by "/"; none of them is read.

        Args:
          step: one of `steps()`.

        Raises:
          CheckpointError: it is damaged.

        Example:
          >>> import tempfile
          >>> checkpoints = Checkpoints(tempfile.mkdtemp())
          >>> checkpoints.save(0, {"window": {"loss": jnp.zeros(())}}, {})
          >>> checkpoints.wait()
          >>> checkpoints.names(0)
          {'window/loss'}
        """
        if self._upload is not None:
            self.wait()
            return self._upload.names(step)
        folder = self.directory / str(step)
        bundle = _bucket.bundle_of(folder)
        if bundle is not None:
            return set(_state.held(bundle))
        try:
            return set(self._held(step))
        except (ValueError, KeyError, OSError) as error:
            raise CheckpointError(f"checkpoint {folder} cannot be read: {_line(error)}") from error

    def _held(self, step: int) -> dict[str, tuple[tuple[int, ...], Any]]:
        """Returns shape and dtype of each array of a step, without reading one."""
        metadata = self._manager.item_metadata(step)["state"]
        if metadata is None:
            raise ValueError("it has no state")
        leaves = named(metadata.tree, f"step {step}")
        return {name: (leaf.shape, leaf.dtype) for name, leaf in leaves.items()}

    def _restore(self, step: int, abstract: StateT) -> tuple[StateT, dict[str, Any]]:
        arguments = ocp.checkpoint_utils.construct_restore_args(abstract)
        items = ocp.args.Composite(
            state=ocp.args.PyTreeRestore(abstract, restore_args=arguments),
            run=ocp.args.JsonRestore(),
        )
        restored = self._manager.restore(step, args=items)
        return restored["state"], restored["run"]

    def check(self) -> None:
        """Raises the error of a save in the background, if there is one."""
        if self._upload is not None:
            return self._guard(self._upload.check)
        return self._guard(self._manager.check_for_errors)

    def wait(self) -> None:
        """Returns when everything is written.

        Raises:
          CheckpointError: it could not be written; the message names the last good one.
        """
        if self._upload is not None:
            return self._guard(self._upload.wait)
        return self._guard(self._manager.wait_until_finished)

    def close(self) -> None:
        """Waits, and gives the threads back."""
        if self._upload is None:
            return self._guard(self._manager.close)
        try:
            self.wait()
        finally:
            self._upload.close()

    def last_good(self) -> str:
        """Returns the newest complete checkpoint's path, as an error message says it."""
        if self._upload is not None:  # no question to a bucket that may be what failed
            return self._upload.last_good()
        # Asked after a failed save, so read from the folder and not from the manager's memory.
        folders = self.directory.iterdir() if self.directory.exists() else ()
        steps = [
            int(path.name)
            for path in folders
            if path.name.isdigit() and ocp.utils.is_checkpoint_finalized(path)
        ]
        return str(self.directory / str(max(steps))) if steps else "none"

    def _guard(self, call: Callable[[], T], step: int | None = None) -> T:
        """Runs an orbax call; what stops it from writing becomes one line for the user."""
        try:
            return call()
        except storage.StorageError as error:
            raise CheckpointError(
                f"a checkpoint could not be written: {error}; "
                f"the last good checkpoint: {self.last_good()}"
            ) from error
        except Exception as error:
            what = "a checkpoint" if step is None else f"the checkpoint of step {step}"
            raise CheckpointError(
                f"{what} could not be written to {self.directory}: {_line(error)}; "
                f"the last good checkpoint: {self.last_good()}"
            ) from error

    def _check_finite(self, step: int, state: Any) -> None:
        leaves = jax.tree_util.tree_leaves_with_path(state)
        floats = {
            jax.tree_util.keystr(path): leaf
            for path, leaf in leaves
            if jnp.issubdtype(leaf.dtype, jnp.floating)
        }
        bad = [name for name, ok in _all_finite(floats).items() if not ok]
        if bad:
            raise DivergedError(
                f"step {step}: {bad[0]} holds values that are not finite"
                f"{f' (and {len(bad) - 1} more)' if len(bad) > 1 else ''}; nothing was saved"
            )


@jax.jit
def _all_finite(arrays: dict[str, jax.Array]) -> dict[str, jax.Array]:
    return {name: jnp.all(jnp.isfinite(array)) for name, array in arrays.items()}


def _line(error: BaseException) -> str:
    """Returns what went wrong in one line: the operating system's reason if there is one.

    tensorstore's messages run over a page and bury it.
    """
    texts: list[str] = []
    cause: BaseException | None = error
    while cause is not None:
        texts.append(str(cause).strip())
        cause = cause.__cause__ or cause.__context__
    for code in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EFBIG):
        if any(os.strerror(code) in text for text in texts):
            return os.strerror(code)
    innermost = next((text for text in reversed(texts) if text), type(error).__name__)
    return innermost.splitlines()[0][:300]
