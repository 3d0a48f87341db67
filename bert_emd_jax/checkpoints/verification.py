"""A model beside transformers' own on the same random inputs, layer by layer."""

import contextlib
import importlib.util
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from bert_emd_jax.checkpoints.checkpoint_files import config_directory, read_checkpoint
from bert_emd_jax.checkpoints.huggingface import write_huggingface_weights
from bert_emd_jax.checkpoints.names import head_of
from bert_emd_jax.checkpoints.stablehlo import stablehlo_logits
from bert_emd_jax.errors import UserError
from bert_emd_jax.layout import PARAMS
from bert_emd_jax.models.encoder import Encoder
from bert_emd_jax.models.encoder_config import EncoderConfig, read_config_values
from bert_emd_jax.models.heads import MODULES, OUTSIDE, forward
from bert_emd_jax.models.params import Params, flatten

TOLERANCE = 1e-5
"""Largest difference that passes, relative to the largest value of the tensor."""
_ROWS = 2
_LONGEST = 512


class Difference(NamedTuple):
    """The largest difference of two tensors, and the largest value of transformers' tensor."""

    name: str
    largest: float
    scale: float

    @property
    def passes(self) -> bool:
        return self.largest <= TOLERANCE * self.scale  # a NaN does not pass


def require_torch() -> None:
    """Raises UserError if torch or transformers is missing."""
    missing = [name for name in ("torch", "transformers") if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(f"--verify runs the PyTorch model too: pip install {' '.join(missing)}")


def differences_from_torch(
    config: EncoderConfig, params: Params, torch_source: Path, artefact: Path | None = None
) -> list[Difference]:
    """Compares every layer, the pooled output and the logits with those of transformers.

    Both run in float32 on the CPU, on random token ids with padding and every segment, at the longest
    length that the model takes (at most 512). If our config has a relu before the classifier, which
    transformers' class lacks, it is put into theirs.

    Args:
      torch_source: the Hugging Face directory or weights file that PyTorch loads; a model directory is
        exported for it first.
      artefact: the directory of the same classifier as StableHLO, to be run too.
    """
    batch = _random_batch(config)
    with tempfile.TemporaryDirectory() as exported:
        if (torch_source / PARAMS).is_dir():
            torch_source = Path(exported)
            write_huggingface_weights(torch_source, params, config)
        theirs = _torch_outputs(config, params, torch_source, batch)
    with jax.default_device(jax.devices("cpu")[0]), jax.default_matmul_precision("highest"):
        ours = _our_outputs(config, params, batch)
        if artefact is not None:
            ours["StableHLO"], theirs["StableHLO"] = stablehlo_logits(artefact, batch), theirs["logits"]
    return [
        Difference(name, float(np.max(np.abs(ours[name] - expected))), float(np.max(np.abs(expected))))
        for name, expected in theirs.items()
    ]


def _random_batch(config: EncoderConfig) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    shape = _ROWS, min(config.longest_input, _LONGEST)
    mask = np.ones(shape, np.int32)
    mask[1:, shape[1] * 2 // 3 :] = 0
    token_ids = rng.integers(0, config.vocab_size, shape, np.int32)
    # Padding where none is: RoBERTa's would not be counted as a position.
    token_ids[token_ids == config.pad_token_id] = (config.pad_token_id + 1) % config.vocab_size
    segments = config.type_vocab_size if config.family.has_segments else 1
    return {
        "input_ids": token_ids,
        "attention_mask": mask,
        "token_type_ids": rng.integers(0, segments, shape, np.int32),
    }


def _our_outputs(
    config: EncoderConfig, params: Params, batch: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    head = head_of(flatten(params), config)

    def run(params: Params, batch: dict[str, jax.Array]) -> dict[str, Any]:
        encoder = Encoder(config, with_pooler="pooler" in params["bert"])
        inputs = (batch["input_ids"], batch["attention_mask"], batch["token_type_ids"])
        encoded: Any = encoder.apply({"params": params["bert"]}, *inputs)
        named = {_layer_name(layer): states for layer, states in enumerate(encoded.hidden_states)}
        if encoded.pooled is not None:
            named["pooled"] = encoded.pooled
        if head != "none":
            named["logits"] = forward(MODULES[head](config), params, batch).logits
        return named

    return jax.device_get(jax.jit(run)(params, batch))


def _torch_outputs(
    config: EncoderConfig, params: Params, source: Path, batch: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    import torch

    model = _load_torch_model(config, params, source)
    if "classifier" in params and config.classifier_activation == "relu":
        model.dropout = torch.nn.Sequential(torch.nn.ReLU(), model.dropout)
    pooled = []
    inputs = dict(batch)
    if not config.family.has_segments:  # DistilBERT's takes none
        del inputs["token_type_ids"]
    if getattr(model.base_model, "pooler", None) is not None:
        model.base_model.pooler.register_forward_hook(lambda _module, _inputs, output: pooled.append(output))
    with torch.no_grad():
        output = model(
            **{name: torch.tensor(values, dtype=torch.long) for name, values in inputs.items()},
            output_hidden_states=True,
        )
    named = {_layer_name(layer): states for layer, states in enumerate(output.hidden_states)}
    if "pooler" in params["bert"]:
        named["pooled"] = pooled[0]
    if head_of(flatten(params), config) != "none":
        if head_of(flatten(params), config) == "answer":
            named["logits"] = torch.stack([output.start_logits, output.end_logits], dim=-1)
            named["logits"][torch.tensor(batch["attention_mask"] == 0)] = OUTSIDE
        else:
            named["logits"] = output.logits if "logits" in output else output.prediction_logits
    return {name: value.numpy() for name, value in named.items()}


def _load_torch_model(config: EncoderConfig, params: Params, path: Path) -> Any:
    """Returns transformers' model in float32; all of its parameters that ours has come from `path`.

    Raises:
      UserError: transformers does not find some of them there.
    """
    import torch
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    values = read_config_values(config_directory(path))[0]
    their_config = transformers.AutoConfig.for_model(**({"model_type": config.model_type} | values))
    options: dict[str, Any] = {"dtype": torch.float32, "attn_implementation": "eager"}
    head, has_pooler = head_of(flatten(params), config), "pooler" in params["bert"]
    class_name = config.family.classes[head]
    if head in ("classifier", "token"):
        their_config.num_labels = config.num_labels
    elif head == "none" and config.family.has_pooler:
        options["add_pooling_layer"] = has_pooler
    elif has_pooler and config.family.pretraining_class:
        class_name = config.family.pretraining_class
    loader: Any = getattr(transformers, class_name)

    def load(directory: Path | None, state: dict[str, Any] | None) -> tuple[Any, set[str]]:
        model, report = loader.from_pretrained(
            directory, config=their_config, state_dict=state, output_loading_info=True, **options
        )
        missing = {name for name in report["missing_keys"] if not name.startswith("cls.seq_relationship")}
        return model.eval(), missing | set(report["mismatched_keys"])

    if path.is_dir():
        # transformers' own reading, if it can: it knows neither TensorFlow's format nor wrapped tensors, and
        # what it raises then is of many kinds.
        with contextlib.suppress(Exception):
            model, missing = load(path, None)
            if not missing:
                return model
    tensors = read_checkpoint(path).tensors
    state = {name: torch.tensor(np.asarray(tensor, np.float32)) for name, tensor in tensors.items()}
    model, missing = load(None, state)
    if missing:
        raise UserError(f"{path}: transformers finds no {', '.join(sorted(map(str, missing)))} there")
    return model


def _layer_name(layer: int) -> str:
    return f"layer {layer}" if layer else "embeddings"
