"""jax's coordination service, as far as `distributed` uses it."""

import pytest


class Service:
    """jax's coordination service as far as `distributed` uses it, for processes in one thread."""

    def __init__(self) -> None:
        self.values: dict[str, str] = {}

    def key_value_set(self, key: str, value: str, allow_overwrite: bool = False) -> None:
        assert allow_overwrite or key not in self.values
        self.values[key] = value


@pytest.fixture
def service() -> Service:
    """A service without keys."""
    return Service()
