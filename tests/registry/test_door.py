"""The room in a fresh process: light to import, and the bundled models through the real door."""

import subprocess
import sys


def run(code: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=120
    ).stdout


def test_importing_the_registry_needs_no_jax() -> None:
    code = "import sys; import monolith_jax.registry; print('jax' in sys.modules)"
    assert run(code).strip() == "False"


def test_the_bundled_models_are_listed_with_file_and_line() -> None:
    lines = run(
        "from monolith_jax.registry import describe_models\n"
        "for model in describe_models(): print(*model, sep='|')"
    ).splitlines()
    rows = {line.split("|")[1]: line.split("|") for line in lines}
    for name in ("DeepFM", "MatrixFactorization"):
        key, _, doc, file, line = rows[f"movielens.{name}"]
        assert key == f"monolith_jax.tasks.movielens.{name}"
        assert "MovieLens-100K" in doc
        with open(file, encoding="utf-8") as source:
            assert source.readlines()[int(line)].startswith(f"class {name}(")
