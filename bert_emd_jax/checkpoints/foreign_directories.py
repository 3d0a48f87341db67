"""Directories that look like a model's and hold none that can be read: what they are, and what to do."""

from pathlib import Path

from bert_emd_jax.checkpoints.checkpoint_files import find_weights
from bert_emd_jax.files import read_json
from bert_emd_jax.layout import PARAMS

_RESAVE = "load it with transformers 4 ({}=True) and name what save_pretrained writes"
_GRAPH = "whose weights have lost their names; name the model that it was made from"
# A file, and what a directory with it holds: the first that is there is named.
_FILES = {
    "tf_model.h5": f"weights for TensorFlow alone; {_RESAVE.format('from_tf')}",
    "flax_model.msgpack": f"weights for transformers' own Flax models alone; {_RESAVE.format('from_flax')}",
    "model.onnx": f"an ONNX graph, {_GRAPH}",
    "onnx/model.onnx": f"an ONNX graph, {_GRAPH}",
    "openvino_model.xml": f"an OpenVINO graph, {_GRAPH}",
}
# Where libraries put the model into a directory of its own: a module of several, training, the hub.
_BELOW = ("0_*", "checkpoint-*", "snapshots/*", "*")


def what_is_there_instead(directory: Path) -> str:
    """Says what a directory without readable weights holds, and what to do."""
    broken = [path for path in sorted(directory.glob("*")) if path.is_symlink() and not path.exists()]
    if broken:
        return (
            f"{broken[0].name} is a link to {broken[0].readlink()}, where nothing is; fetch the model again"
        )
    if (directory / "adapter_config.json").is_file():
        return f"holds an adapter (PEFT) of {_base_of(directory)}; merge it into that and save the result"
    for name, kind in _FILES.items():
        if (directory / name).is_file():
            return f"holds {kind}"
    below = [path for pattern in _BELOW for path in sorted(directory.glob(pattern)) if _is_model(path)]
    if below:
        return f"the model is in {below[0]}: name that"
    names = sorted(path.name for path in directory.iterdir()) if directory.is_dir() else []
    listed = (
        f"; there are {', '.join(names[:8])}{', …' if len(names) > 8 else ''}" if names else "; it is empty"
    )
    return f"holds neither {PARAMS}/ nor a weights file such as model.safetensors{listed}"


def _base_of(directory: Path) -> str:
    try:
        return str(read_json(directory / "adapter_config.json")["base_model_name_or_path"])
    except (ValueError, KeyError, TypeError):
        return "another model"


def _is_model(path: Path) -> bool:
    return path.is_dir() and ((path / PARAMS).is_dir() or find_weights(path) is not None)
