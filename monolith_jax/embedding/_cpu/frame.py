"""XLA's C interface for functions that a program calls: how a call reads what it was given.

What follows is the layout of the structs of `xla/ffi/api/c_api.h` (in `jax.ffi.include_dir()`),
version 0.3, in words of 64 bits. XLA keeps to a version for a year at least, and refuses to
register a function of one that it no longer keeps to.
"""

from monolith_jax.embedding._cpu.machine import allocate, call, inlined, load, release, store

_VERSION = 0 + (3 << 32)
"""XLA_FFI_Api_Version: major, minor; two ints."""

_EXTENSION, _API, _CONTEXT, _ARGUMENTS, _RESULTS, _ATTRIBUTES = 1, 2, 3, 9, 14, 20
"""In an XLA_FFI_CallFrame."""

_DATA, _DIMENSIONS = 3, 5
"""In an XLA_FFI_Buffer."""

_ERROR_DESTROY, _SCHEDULE, _THREADS = 8, 17, 18
"""In an XLA_FFI_Api."""


@inlined
def asks_for_metadata(frame):  # type: ignore[no-untyped-def]
    """Whether this is the call at registration, which is answered: our version, no traits."""
    extension = load(frame, _EXTENSION)
    if extension == 0:
        return False
    metadata = load(extension, 3)
    store(metadata, 3, _VERSION)
    store(metadata, 4, 0)
    return True


@inlined
def argument(frame, number):  # type: ignore[no-untyped-def]
    """Returns (address of the data, address of the dimensions) of an array that is given."""
    buffer = load(load(frame, _ARGUMENTS), number)
    return load(buffer, _DATA), load(buffer, _DIMENSIONS)


@inlined
def attribute(frame, number):  # type: ignore[no-untyped-def]
    """Returns an attribute, an int64; they are in the order of their names."""
    scalar = load(load(frame, _ATTRIBUTES), number)
    return load(load(scalar, 1), 0)


@inlined
def result(frame, number):  # type: ignore[no-untyped-def]
    """Returns the address of the data of an array that is asked for."""
    return load(load(load(frame, _RESULTS), number), _DATA)


@inlined
def threads(frame):  # type: ignore[no-untyped-def]
    """Returns how many threads XLA has for the programs of this device; 1 if it does not say."""
    asked = allocate(48)
    store(asked, 5, 1)
    _ask(frame, _THREADS, asked, 32, asked + 40, 0)
    found = load(asked, 5)
    release(asked)
    return found


@inlined
def schedule(frame, task, data):  # type: ignore[no-untyped-def]
    """Has a thread of XLA's call `task(data)`, at some time; returns whether it will."""
    asked = allocate(40)
    done = _ask(frame, _SCHEDULE, asked, 40, task, data)
    release(asked)
    return done


@inlined
def _ask(frame, function, asked, size, first, second):  # type: ignore[no-untyped-def]
    """Calls a function of the API with a struct of `size` bytes; returns whether it had no error.

    `asked` is the struct's place, of 40 bytes at least: the error's is written there too.
    """
    store(asked, 0, size)
    store(asked, 1, 0)
    store(asked, 2, load(frame, _CONTEXT))
    store(asked, 3, first)
    store(asked, 4, second)
    api = load(frame, _API)
    error = call(load(api, function), asked)
    if error == 0:
        return True
    store(asked, 0, 24)
    store(asked, 2, error)
    call(load(api, _ERROR_DESTROY), asked)
    return False
