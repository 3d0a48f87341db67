"""Models by their name on the Hugging Face hub."""

import logging
import re
from collections.abc import Iterable
from pathlib import Path

from bert_emd_jax.buckets import local_copy
from bert_emd_jax.checkpoints.checkpoint_files import WEIGHTS_FILES, find_weights, tensorflow_index
from bert_emd_jax.checkpoints.sentence_transformers import FILES as SENTENCE_TRANSFORMERS_FILES
from bert_emd_jax.checkpoints.sentence_transformers import MODULES_FILE, transformer_directory, weights_folder
from bert_emd_jax.errors import UserError
from bert_emd_jax.layout import CHECKPOINTS, CONFIG, PYTORCH, TENSORBOARD
from bert_emd_jax.local_paths import require_local

logger = logging.getLogger(__name__)

_HUB_ID = re.compile(r"(?P<repo>[A-Za-z0-9][\w.-]*(/[\w.-]+)?)(@(?P<revision>[\w./-]+))?")
_FILE_ENDINGS = (".bin", ".pt", ".pth", ".ckpt", ".safetensors", ".index", ".json", ".zip", ".tar.gz")

_ALWAYS_NEEDED = (
    CONFIG,
    *("vocab.txt", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("vocab.json", "merges.txt", "*.model"),
    *SENTENCE_TRANSFORMERS_FILES,
    *("[1-9]_*/config.json", "[1-9]_*/model.safetensors", "[1-9]_*/pytorch_model.bin"),
)
_AT_THE_TOP = (CONFIG, MODULES_FILE)
_BESIDE_WEIGHTS = {
    "model.safetensors.index.json": ("model-*-of-*.safetensors",),
    "pytorch_model.bin.index.json": ("pytorch_model-*-of-*.bin",),
    "bert_model.ckpt.index": ("bert_model.ckpt.data-*", "bert_config.json"),
}

_TIMEOUT = 10.0
"""Seconds to wait for the hub's first answer, once, before the local cache is looked at."""


def resolve_model(name_or_path: Path | str) -> Path:
    """Returns a local path as it is, or the files fetched from a bucket or of a hub id (`org/model`).

    A hub id may end in `@` and a branch, tag or commit. Only the files that are needed are fetched, into
    the hub's own cache; without a connection the model is taken from there.

    Raises:
      UserError: neither a path nor a model of the hub, or the hub is not reachable.
    """
    require_local(name_or_path, takes_buckets=True)
    path = local_copy(name_or_path, without=(CHECKPOINTS, TENSORBOARD, PYTORCH))
    if path.exists() or tensorflow_index(path) is not None:
        return path
    name = str(name_or_path)
    hub_id = None if name.endswith(_FILE_ENDINGS) else _HUB_ID.fullmatch(name)
    if hub_id is None:
        raise UserError(f"{name}: no such file or directory")
    if (parent := path.parent) != Path() and parent.is_dir():
        raise UserError(f"{name}: no such file or directory in {parent}")
    logger.info("%s: no such file or directory; asking the Hugging Face hub", name)
    try:
        import huggingface_hub
    except ImportError:
        raise UserError(
            f"{name}: no such file or directory; for a model of the hub: pip install huggingface_hub"
        ) from None
    from huggingface_hub import errors

    repo, revision = hub_id["repo"], hub_id["revision"]
    refusals = {  # the first is a kind of the second
        errors.GatedRepoError: f"{name}: needs its owner's permission; ask for it on the hub,"
        " then `hf auth login`",
        errors.RepositoryNotFoundError: f"{name}: no such file or directory, and no such model on the"
        " Hugging Face hub",
        errors.RevisionNotFoundError: f"{name}: the model has no such revision on the Hugging Face hub",
        errors.HFValidationError: f"{name}: no such file or directory",
    }
    try:
        info = huggingface_hub.HfApi().model_info(repo, revision=revision, timeout=_TIMEOUT)
        patterns = _needed_files(name, [file.rfilename for file in info.siblings or ()])
        return Path(huggingface_hub.snapshot_download(repo, revision=revision, allow_patterns=patterns))
    except UserError:
        raise
    except Exception as error:  # the library's transports raise their own classes, which change with it
        for kind, refusal in refusals.items():
            if isinstance(error, kind):
                raise UserError(refusal) from None
        files = (
            huggingface_hub.try_to_load_from_cache(repo, name, revision=revision) for name in _AT_THE_TOP
        )
        cached = next((file for file in files if isinstance(file, str)), None)
        directory = None if cached is None else Path(cached).parent
        if directory is not None and find_weights(transformer_directory(directory)) is not None:
            logger.info("%s: the hub is not reachable; using the copy in its local cache", name)
            return directory
        raise UserError(
            f"{name}: no such file or directory, and the Hugging Face hub is not reachable"
            f" ({type(error).__name__}); download the model elsewhere and give its directory"
        ) from None


def is_hub_id(name: str) -> bool:
    """Whether a name has the form of one on the hub."""
    return not name.endswith(_FILE_ENDINGS) and _HUB_ID.fullmatch(name) is not None


def _needed_files(name: str, files: Iterable[str]) -> list[str]:
    """Returns patterns of what to fetch of a model: its weights in one format, the best that it has."""
    files = list(files)
    for folder in dict.fromkeys(("", weights_folder(files))):
        weights = next((file for file in WEIGHTS_FILES if f"{folder}{file}" in files), None)
        if weights is not None:
            of_encoder = (*_ALWAYS_NEEDED, weights, *_BESIDE_WEIGHTS.get(weights, ()))
            return [*dict.fromkeys((*_ALWAYS_NEEDED, *(f"{folder}{pattern}" for pattern in of_encoder)))]
    raise UserError(f"{name}: the model on the hub holds none of {', '.join(WEIGHTS_FILES)}")
