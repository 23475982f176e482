"""A map goes through jax wherever a dict does."""

import collections

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from monolith_jax.nested_map import NestedMap, _pytree


class Marked(NestedMap):
    """A subclass that adds nothing."""


@pytest.fixture(params=[NestedMap, Marked], ids=lambda cls: cls.__name__)
def params(request):
    cls = request.param
    return cls(b=jnp.arange(3.0), a=cls(w=jnp.arange(6.0).reshape(2, 3), s=[jnp.float32(2.0)]))


def as_dict(tree):
    return jax.tree.map(np.asarray, NestedMap.ToNestedDict(tree))


def assert_same(ours, theirs):
    """Classes apart, the same values; and no map lost on the way."""
    jax.tree.map(np.testing.assert_array_equal, as_dict(ours), jax.tree.map(np.asarray, theirs))


def loss(p):
    return ((p["a"]["w"] @ p["b"]) * p["a"]["s"][0]).sum()


def test_paths_are_those_of_a_dict(params):
    paths = [path for path, _ in jax.tree.leaves_with_path(params)]
    assert paths == [path for path, _ in jax.tree.leaves_with_path(params.ToNestedDict())]
    assert jax.tree_util.keystr(paths[1], simple=True, separator="/") == "a/w"
    doubled = jax.tree.map_with_path(lambda path, x: x * len(path), params)
    assert type(doubled) is type(params)


def test_jax_and_flatten_differ_where_the_docstring_says():
    Pair = collections.namedtuple("Pair", ["y", "x"])
    m = NestedMap(
        none=None,
        t=(1, NestedMap(b=2)),
        n=Pair(3, 4),
        o=collections.OrderedDict(z=5, a=6),
        u=collections.UserDict(q=7),
    )
    assert m.Flatten() == [Pair(3, 4), None, 6, 5, (1, {"b": 2}), {"q": 7}]
    assert jax.tree.leaves(m) == [3, 4, 5, 6, 1, 2, {"q": 7}]


@pytest.mark.parametrize("size", range(11))
def test_maps_of_every_small_size(size):
    m = NestedMap({key: ord(key) for key in "jihgfedcba"[:size]})
    assert jax.tree.map(lambda x: x, m) == m
    assert jax.tree.leaves(m) == m.Flatten()
    assert [p[0].key for p, _ in jax.tree.leaves_with_path(m)] == m.Keys()


def test_many_forms_do_not_pile_up():
    for i in range(3 * _pytree._MOST):
        m = NestedMap({f"k{i}": 1, f"j{i}": 2})
        assert jax.tree.leaves(m) == [2, 1]
        assert jax.tree.map(lambda x: -x, m) == {f"j{i}": -2, f"k{i}": -1}
    assert len(_pytree._LAYOUTS) <= _pytree._MOST + 1


def test_structures_are_equal_and_hash_equal_after_the_cache_is_emptied():
    first = jax.tree.structure(NestedMap(b=1, a=2))
    _pytree._LAYOUTS.clear()
    second = jax.tree.structure(NestedMap(a=1, b=2))
    assert first == second
    assert hash(first) == hash(second)
    assert first != jax.tree.structure(NestedMap(a=1, c=2))
    assert first != jax.tree.structure(Marked(a=1, b=2))
    assert first != jax.tree.structure({"a": 1, "b": 2})


def test_jit_traces_once_per_form(params):
    traces = []

    @jax.jit
    def double(p):
        traces.append(type(p.a))
        return p.Transform(lambda x: 2 * x)

    result = double(params)
    double(type(params)(reversed(params.items())))
    assert traces == [type(params)]
    assert type(result) is type(result.a) is type(params)
    assert_same(result, {"a": {"w": 2 * params.a.w, "s": [4.0]}, "b": 2 * params.b})


def test_jit_donates(params):
    step = jax.jit(lambda p: jax.tree.map(lambda x: x + 1, p), donate_argnums=0)
    result = step(params)
    assert params.b.is_deleted()
    np.testing.assert_array_equal(result.b, [1, 2, 3])


def test_attributes_in_traced_code_and_maps_made_there():
    made = jax.jit(lambda x: NestedMap(mean=x.mean(), stats=NestedMap(top=x.max())))(
        jnp.arange(4.0)
    )
    assert type(made.stats) is NestedMap
    assert (float(made.mean), float(made.stats.top)) == (1.5, 3.0)


def test_grad(params):
    value, gradient = jax.value_and_grad(loss)(params)
    value_of_dict, gradient_of_dict = jax.value_and_grad(loss)(params.ToNestedDict())
    assert value == value_of_dict
    assert type(gradient) is type(gradient.a) is type(params)
    assert_same(gradient, gradient_of_dict)
    hessian = jax.hessian(loss)(params)
    assert hessian.b.a.w.shape == (3, 2, 3)


def test_jvp_vjp_and_linearize(params):
    ones = jax.tree.map(jnp.ones_like, params)
    _, tangent = jax.jvp(loss, (params,), (ones,))
    _, pull = jax.vjp(loss, params)
    (cotangent,) = pull(jnp.float32(1.0))
    assert type(cotangent) is type(params)
    total = sum(float(g.sum()) for g in jax.tree.leaves(cotangent))
    np.testing.assert_allclose(tangent, total, rtol=1e-6)


def test_vmap_with_a_map_of_axes():
    batch = NestedMap(x=jnp.ones((4, 3)), c=NestedMap(y=jnp.arange(3.0), z=jnp.ones((3, 4))))
    axes = NestedMap(x=0, c=NestedMap(y=None, z=1))
    result = jax.vmap(lambda m: NestedMap(s=m.x @ m.c.y + m.c.z.sum()), in_axes=(axes,))(batch)
    np.testing.assert_array_equal(result.s, [6.0] * 4)
    prefix = NestedMap(x=0, c=None)
    result = jax.vmap(lambda m: m.x + m.c.y, in_axes=(prefix,), out_axes=1)(batch)
    assert result.shape == (3, 4)


def test_vmap_with_a_dict_prefix_that_has_maps_at_its_leaves():
    tree = {"batch": NestedMap(x=jnp.ones((4, 3))), "params": NestedMap(w=jnp.arange(3.0))}
    axes = {"batch": 0, "params": None}
    result = jax.vmap(
        lambda t: {"out": NestedMap(y=t["batch"].x @ t["params"].w)},
        in_axes=(axes,),
        out_axes={"out": 0},
    )(tree)
    np.testing.assert_array_equal(result["out"].y, [3.0] * 4)


def test_vmap_takes_no_dict_in_the_place_of_a_map_but_its_conversion():
    # jax compares the classes of a prefix's nodes with the argument's, FrozenDict's as well.
    batch, axes = NestedMap(x=jnp.ones((4, 3)), y=jnp.ones(3)), {"x": 0, "y": None}

    def add(m):
        return m.x + m.y

    with pytest.raises(ValueError, match="different types"):
        jax.vmap(add, in_axes=(axes,))(batch)
    assert jax.vmap(add, in_axes=(NestedMap.FromNestedDict(axes),))(batch).shape == (4, 3)


def test_scan_while_and_cond():
    start = NestedMap(n=jnp.int32(0), total=NestedMap(x=jnp.float32(0)))

    def body(carry, xs):
        new = NestedMap(total=NestedMap(x=carry.total.x + xs.v), n=carry.n + 1)
        return new, NestedMap(seen=new.total.x)

    last, ys = jax.lax.scan(body, start, NestedMap(v=jnp.arange(4.0)))
    assert type(last.total) is type(ys) is NestedMap
    assert (int(last.n), float(last.total.x)) == (4, 6.0)
    np.testing.assert_array_equal(ys.seen, [0, 1, 3, 6])
    counted = jax.lax.while_loop(lambda c: c.n < 7, lambda c: c | {"n": c.n + 1}, last)
    assert int(counted.n) == 7
    either = jax.lax.cond(True, lambda m: m.Transform(jnp.negative), lambda m: m, last)
    assert float(either.total.x) == -6.0


@pytest.mark.parametrize(
    "spec",
    [
        P("data"),
        NestedMap(x=P("data"), w=P("data")),
        NestedMap(x=P("data"), w=NestedMap(k=P("data"))),
    ],
    ids=["one for all", "prefix", "full"],
)
def test_shard_map(spec):
    mesh = Mesh(np.array(jax.devices()), ("data",))
    assert mesh.size == 8
    tree = NestedMap(x=jnp.arange(16.0), w=NestedMap(k=jnp.ones((8, 2))))

    def local(m):
        assert m.x.shape == (2,)
        assert m.w.k.shape == (1, 2)
        sums = NestedMap(total=jax.lax.psum(m.x.sum() + m.w.k.sum(), "data"))
        return m.Transform(lambda v: v + 1), sums

    out_specs = (spec, NestedMap(total=P()))
    sharded, sums = jax.shard_map(local, mesh=mesh, in_specs=(spec,), out_specs=out_specs)(tree)
    assert float(sums.total) == 136.0
    np.testing.assert_array_equal(sharded.x, tree.x + 1)
    assert type(sharded.w) is NestedMap


def test_shardings_as_a_map():
    mesh = Mesh(np.array(jax.devices()), ("data",))
    shardings = NestedMap(x=NamedSharding(mesh, P("data")), y=NamedSharding(mesh, P()))
    tree = jax.device_put(NestedMap(x=jnp.arange(8.0), y=jnp.ones(2)), shardings)
    result = jax.jit(lambda m: m, out_shardings=shardings)(tree)
    assert result.x.sharding.spec == P("data")
    assert jax.eval_shape(lambda m: m, tree).x.shape == (8,)


def test_a_subclass_is_a_node_from_its_class_statement_on():
    class Fresh(NestedMap):
        pass

    class Deeper(Fresh):
        pass

    mapped = jax.tree.map(lambda x: x + 1, Fresh(a=1, b=Deeper(c=2)))
    assert [type(mapped), type(mapped.b)] == [Fresh, Deeper]
    assert mapped == {"a": 2, "b": {"c": 3}}
