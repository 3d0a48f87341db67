"""The compute type that suits a device, and products of 16-bit numbers. Parameters are float32 always."""

from typing import Any

import jax
import jax.numpy as jnp
import jaxlib.version
from jaxtyping import Array, Float

_AMPERE = 8  # the first NVIDIA generation with bfloat16 units


def resolved_dtype(dtype: str, device: Any = None) -> str:
    """Returns the compute type that `--dtype` means; for "auto" that of the device (by default JAX's).

    bfloat16 on TPUs, on NVIDIA GPUs from Ampere on and on AMD's; float16 on older NVIDIA GPUs, such as
    Colab's T4, whose units know no bfloat16; float32 on CPUs, where fewer bits gain nothing.
    """
    if dtype != "auto":
        return dtype
    device = device or jax.local_devices()[0]
    if device.platform == "cpu":
        return "float32"
    # "7.5" of a T4; AMD's is a name, such as "gfx90a".
    generation = str(getattr(device, "compute_capability", "")).split(".")[0]
    is_old = device.platform in ("gpu", "cuda") and generation.isdigit() and int(generation) < _AMPERE
    return "float16" if is_old else "bfloat16"


def wide_einsum(subscripts: str, *operands: Float[Array, "..."]) -> Float[Array, "..."]:
    """Returns `jnp.einsum` of 16-bit operands with sums and result in float32, of others in their own type.

    Older CPU compilers know no such product, so there the operands are widened first.
    """
    wide = jnp.promote_types(jnp.result_type(*operands), jnp.float32)

    def widened(*operands: Array) -> Array:
        return jnp.einsum(subscripts, *(operand.astype(wide) for operand in operands))

    def direct(*operands: Array) -> Array:
        return jnp.einsum(subscripts, *operands, preferred_element_type=wide)

    if jaxlib.version.__version_info__ >= (0, 10) or all(operand.dtype == wide for operand in operands):
        return direct(*operands)
    return jax.lax.platform_dependent(*operands, cpu=widened, default=direct)
