"""Monolith's own import names: `from monolith.core import X` becomes `from monolith_jax.core ...`.

The modules here hold no logic. Each binds the names of one module of `monolith/core` to the rooms
of `monolith_jax`; the README's migration table says what differs.
"""
