"""Native checkpoints: one folder a step, complete or invisible, restored onto the mesh at hand.

    DIR/<step>/state       the state's arrays (orbax, OCDBT), written in the background
    DIR/<step>/run         JSON: the position in the input, the config, versions

A step folder counts only once orbax has committed it, so a process that is killed while it saves
leaves the checkpoint before. Restoring always names the shardings to restore onto: the number of
devices may change between a save and a restore.
"""

import errno
import os
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from etils import epath

from monolith_jax.errors import CheckpointError, DivergedError

StateT = TypeVar("StateT")
T = TypeVar("T")


class Checkpoints:
    """The checkpoints of one run.

    Args:
      directory: their folder, local or gs://; made if it is missing.
      keep: how many of the newest to keep; default: all.
      read_only: for a reader beside a running trainer; nothing is made, cleaned up or deleted.

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

    def __init__(self, directory: str, keep: int | None = None, *, read_only: bool = False) -> None:
        self.directory = epath.Path(directory)
        options = ocp.CheckpointManagerOptions(
            max_to_keep=keep,
            create=not read_only,
            cleanup_tmp_directories=not read_only,
            read_only=read_only,
        )
        if not read_only:
            self._guard(lambda: self.directory.mkdir(parents=True, exist_ok=True))
        self._manager = self._guard(lambda: ocp.CheckpointManager(self.directory, options=options))

    def steps(self) -> list[int]:
        """Returns the complete steps, ascending."""
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
        self.check()
        if step in self._manager.all_steps():
            return
        self._check_finite(step, state)
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
        arguments = ocp.checkpoint_utils.construct_restore_args(abstract)
        items = ocp.args.Composite(
            state=ocp.args.PyTreeRestore(abstract, restore_args=arguments),
            run=ocp.args.JsonRestore(),
        )
        try:
            restored = self._manager.restore(step, args=items)
        except (ValueError, KeyError, OSError) as error:
            raise CheckpointError(
                f"checkpoint {self.directory / str(step)} cannot be restored: {_line(error)}"
            ) from error
        for (path, want), got in zip(
            jax.tree_util.tree_leaves_with_path(abstract),
            jax.tree.leaves(restored["state"]),
            strict=True,
        ):
            if want.shape != got.shape:
                raise CheckpointError(
                    f"checkpoint {self.directory / str(step)}: {jax.tree_util.keystr(path)} has "
                    f"shape {got.shape}, the model wants {want.shape}"
                )
        return restored["state"], restored["run"]

    def check(self) -> None:
        """Raises the error of a save in the background, if there is one."""
        self._guard(self._manager.check_for_errors)

    def wait(self) -> None:
        """Returns when everything is written.

        Raises:
          CheckpointError: it could not be written; the message names the last good one.
        """
        self._guard(self._manager.wait_until_finished)

    def close(self) -> None:
        """Waits, and gives the threads back."""
        self._guard(self._manager.close)

    def last_good(self) -> str:
        """Returns the newest complete checkpoint's path, as an error message says it."""
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
