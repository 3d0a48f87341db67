"""Data parallelism: the only file that knows pmap and meshes.

A step is written for one device with the axis name `DEVICES` in scope; it sums what must be global over
that axis. Everything replicated (state, teacher) is put on the devices once, without a leading device axis;
only the batch has one.
"""

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec, Sharding
from jax.typing import DTypeLike

from bert_emd_jax.devices.device_needs import KEEPS_OLD_WEIGHTS, QUICK_COMPILATION, WITHOUT_OLD_WEIGHTS

Batch = TypeVar("Batch")  # any tree of arrays with an axis of rows

DEVICES = "devices"
_INFERENCE_OPTIONS: dict[str, dict[str, bool | str]] = {
    # The fusion of products into YNNPACK calls makes inference on large batches up to 1.6 times slower
    # (training is faster with it): jaxlib 0.10.
    "cpu": WITHOUT_OLD_WEIGHTS if KEEPS_OLD_WEIGHTS else {"xla_cpu_experimental_ynn_fusion_type": ""},
    "gpu": QUICK_COMPILATION,
}


def replicate(tree: Any) -> Any:
    """Puts a tree of host arrays on every local device.

    A later call of a pmapped function copies nothing: the sharding is the one that it asks for.
    """
    return jax.device_put(tree, NamedSharding(_local_mesh(), PartitionSpec()))


def replicated_zeros(shape: tuple[int, ...], dtype: DTypeLike) -> jax.Array:
    """Makes zeros on every local device, without any on the host."""
    return jnp.zeros(shape, dtype, device=NamedSharding(_local_mesh(), PartitionSpec()))


def pmap_step(step: Callable[[Any, Any, Any], tuple[Any, Any]]) -> Callable[[Any, Any, Any], tuple[Any, Any]]:
    """`step(state, constants, batch) -> (state, metrics)` over all devices of all hosts.

    The state that is given is used up: its memory becomes that of the next one, where this works.

    Everything that `step` returns must be equal on all devices (summed over `DEVICES`): device 0's value is
    what comes back.
    """
    return jax.pmap(
        step,
        axis_name=DEVICES,
        in_axes=(None, None, 0),  # pyright: ignore[reportArgumentType]
        out_axes=None,  # pyright: ignore[reportArgumentType]
        donate_argnums=_donated(),
    )


class ShardedForward:
    """`forward(params, batch) -> rows` over the local devices, for inference.

    A jitted shard_map: as under pmap, batch and results have a device axis, but options of the compiler can
    be given. `params` may be replicated over the devices of all hosts, as those of a state are.
    """

    def __init__(self, forward: Callable[[Any, Any], Any]) -> None:
        def on_one_device(params: Any, batch: Any) -> Any:
            rows = forward(params, jax.tree.map(lambda values: values[0], batch))
            return jax.tree.map(lambda values: values[None], rows)

        mesh, everywhere, split = _local_mesh(), PartitionSpec(), PartitionSpec(DEVICES)
        self._everywhere, self._split = NamedSharding(mesh, everywhere), NamedSharding(mesh, split)
        self._compiled = jit_inference(
            jax.shard_map(
                on_one_device, mesh=mesh, in_specs=(everywhere, split), out_specs=split, check_vma=False
            )
        )

    def __call__(self, params: Any, batch: Any) -> Any:
        return self._compiled(jax.tree.map(self._of_this_host, params), jax.device_put(batch, self._split))

    def compile(self, params: Any, batch: Any) -> None:
        """Compiles what a call with arrays of these shapes and types will find in the cache of programs."""
        self._compiled.lower(_shapes(params, self._everywhere), _shapes(batch, self._split)).compile()

    def _of_this_host(self, leaf: jax.Array) -> jax.Array:
        if leaf.is_fully_addressable:
            return leaf
        copies = [shard.data for shard in leaf.addressable_shards]
        return jax.make_array_from_single_device_arrays(leaf.shape, self._everywhere, copies)


def _shapes(tree: Any, sharding: Sharding) -> Any:
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), tree)


def replicated_update(update: Callable[[Any, Any, Any], Any]) -> Callable[[Any, Any, Any], Any]:
    """`update(kept, constants, batch) -> kept` over the local devices, each of which keeps everything.

    The batch alone has a device axis; `update` gathers over `DEVICES` what every device must get of it. The
    `kept` that is given is used up: its memory becomes that of the result, where this works.
    """

    def on_one_device(kept: Any, constants: Any, batch: Any) -> Any:
        return update(kept, constants, jax.tree.map(lambda values: values[0], batch))

    everywhere, split = PartitionSpec(), PartitionSpec(DEVICES)
    specs = {"in_specs": (everywhere, everywhere, split), "out_specs": everywhere, "check_vma": False}
    return jit_inference(jax.shard_map(on_one_device, mesh=_local_mesh(), **specs), donate_first=True)


def jit_inference(function: Callable[..., Any], *, donate_first: bool = False) -> Callable[..., Any]:
    """`jax.jit` with what makes a forward pass fast where it runs.

    Args:
      donate_first: the memory of the first argument may become that of the result.
    """
    donated = _donated() if donate_first else ()
    return jax.jit(
        function, donate_argnums=donated, compiler_options=_inference_options(jax.default_backend())
    )


def _donated() -> tuple[int, ...]:
    """The first argument, where its memory can be given away."""
    return () if KEEPS_OLD_WEIGHTS and jax.default_backend() == "cpu" else (0,)


@functools.cache
def _inference_options(backend: str) -> dict[str, bool | str] | None:
    options = _INFERENCE_OPTIONS.get(backend)
    try:
        jax.jit(lambda: 0, compiler_options=options)()
    except jax.errors.JaxRuntimeError:  # another jaxlib does not know them
        return None
    return options


def _local_mesh() -> Mesh:
    return Mesh(np.array(jax.local_devices()), (DEVICES,))


def rows_for_devices(rows: int, device_count: int, micro_batches: int = 1) -> int:
    """The least number of rows, `rows` or more, that splits evenly."""
    unit = device_count * micro_batches
    return -(-rows // unit) * unit


def rows_of_this_host(padded_rows: int, micro_batches: int = 1) -> np.ndarray:
    """Which positions of a global batch this host's devices work on, increasing.

    Rows go to (micro-batch, device) in turn, so that a short last batch's fillers spread evenly.
    """
    local = jax.local_device_count()
    first = jax.process_index() * local
    positions = np.arange(padded_rows).reshape(-1, micro_batches, jax.device_count())
    return positions[:, :, first : first + local].ravel()


def split_for_training(batch: Batch, micro_batches: int = 1) -> Batch:
    """This host's rows over its devices: [rows, …] to [local devices, micro-batches, rows, …]."""
    local = jax.local_device_count()

    def split(values: np.ndarray) -> np.ndarray:
        by_device = values.reshape(-1, micro_batches, local, *values.shape[1:])
        return np.moveaxis(by_device, (2, 1), (0, 1))

    return jax.tree.map(split, batch)


def on_devices(batch: Any) -> Any:
    """Puts arrays of `split_for_training` on this host's devices, as the step asks for them."""
    return jax.device_put(batch, NamedSharding(_local_mesh(), PartitionSpec(DEVICES)))


def split_for_prediction(batch: Batch) -> Batch:
    """A batch over the local devices: [rows, …] to [local devices, rows, …]."""
    local = jax.local_device_count()
    return jax.tree.map(lambda values: values.reshape(local, -1, *values.shape[1:]), batch)
