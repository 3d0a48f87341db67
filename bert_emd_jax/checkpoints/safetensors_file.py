"""Writing safetensors files."""

from pathlib import Path

import numpy as np
import safetensors
import safetensors.numpy

from bert_emd_jax.errors import UserError


def write_safetensors(
    path: Path, tensors: dict[str, np.ndarray], metadata: dict[str, str] | None = None
) -> None:
    """Writes contiguous arrays as safetensors, with the permissions that a new file has.

    Raises:
      UserError: it could not be written; the disk may be full.
    """
    path.touch()
    permissions = path.stat().st_mode
    try:
        safetensors.numpy.save_file(tensors, path, metadata)
    except safetensors.SafetensorError as error:
        raise UserError(f"{path}: could not be written ({' '.join(str(error).split())})") from None
    path.chmod(permissions)  # the library's are for the owner alone
