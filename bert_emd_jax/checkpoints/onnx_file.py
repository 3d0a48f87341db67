"""A classifier, a tagger, a finder of answers or an embedder as an ONNX file, through PyTorch's exporter."""

import importlib.util
import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np

from bert_emd_jax.checkpoints.model_directory import LoadedModel, save_huggingface
from bert_emd_jax.checkpoints.names import head_of
from bert_emd_jax.errors import UserError
from bert_emd_jax.models.encoder_config import EncoderConfig
from bert_emd_jax.models.families import Head
from bert_emd_jax.models.heads import MODULES, forward
from bert_emd_jax.models.params import flatten

ONNX_FILE, INT8_FILE = "model.onnx", "model_int8.onnx"
_PACKAGES = ("torch", "transformers", "onnx", "onnxscript", "onnxruntime")
_OUTPUTS: dict[Head, tuple[str, ...]] = {
    "classifier": ("logits",),
    "token": ("logits",),
    "answer": ("start_logits", "end_logits"),
    "embedding": ("sentence_embedding",),
}
"""The names of a file's outputs, as Hugging Face's programs for ONNX expect them."""
LARGEST_DIFFERENCE = 1e-4
"""Between an exported model's outputs and ours, relative to the largest output."""

Runtime = Callable[[Any], np.ndarray]
"""A batch of `input_ids`, `attention_mask` and `token_type_ids` [batch, length] to logits or vectors."""


def write_onnx(directory: Path, model: LoadedModel, *, int8: bool = False) -> list[Path]:
    """Writes `model.onnx` beside config and tokenizer, and perhaps `model_int8.onnx`; returns these files.

    Inputs are int64 arrays [batch, length] of any batch size and length.
    The int8 file holds the weights of dense layers and embeddings in 8 bits (onnxruntime's dynamic
    quantisation).

    Raises:
      UserError: a package is missing, the model has no head, or the exported file computes something else.
    """
    missing = [name for name in _packages(model.config) if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(f"--to_onnx needs more packages: pip install {' '.join(missing)}")
    head = _head(model)
    if head == "classifier" and model.config.classifier_activation != "none":
        raise UserError(
            f"the {model.config.classifier_activation} before the classifier is not part of transformers'"
            " model, which --to_onnx exports; use --to_stablehlo"
        )
    save_huggingface(directory, model)
    try:
        written = [_export(directory, model.config, head)]
    finally:
        for weights in directory.glob("**/model.safetensors"):
            weights.unlink()
    _check(written[0], model, head)
    if int8:
        written.append(_quantised(written[0]))
    return written


def onnx_model(path: Path) -> Runtime:
    """Returns an ONNX file as a function, run by onnxruntime on this machine's processor."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    # Idle threads would take the cores from whatever else this process runs in between.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [one.name for one in session.get_inputs()]

    def run(batch: Mapping[str, np.ndarray]) -> np.ndarray:
        outputs: list[Any] = list(session.run(None, {name: batch[name].astype(np.int64) for name in names}))
        return outputs[0] if len(outputs) == 1 else np.stack(outputs, axis=-1)

    return run


def jax_model(model: LoadedModel) -> Runtime:
    """Returns a model as such a function, run by JAX in float32."""
    module = MODULES[_head(model)](model.config)
    compiled = jax.jit(lambda params, batch: forward(module, params, batch, logits_only=True).logits)
    params = jax.device_put(model.params)
    return lambda batch: np.asarray(compiled(params, dict(batch)))


def torch_model(model: LoadedModel) -> Runtime:
    """Returns a model as such a function, run by PyTorch in float32."""
    import torch

    head, names = _head(model), _inputs(model.config)
    with tempfile.TemporaryDirectory() as directory, _quiet():
        save_huggingface(Path(directory), model)
        theirs = _torch_model(Path(directory), model.config, head)

    def run(batch: Mapping[str, np.ndarray]) -> np.ndarray:
        given = {name: torch.tensor(batch[name], dtype=torch.long) for name in names}
        with torch.inference_mode():
            found = theirs(given) if head == "embedding" else theirs(**given)
        outputs = [found[name].numpy() for name in _OUTPUTS[head]]
        return outputs[0] if len(outputs) == 1 else np.stack(outputs, axis=-1)

    return run


def _inputs(config: EncoderConfig) -> list[str]:
    return ["input_ids", "attention_mask", *["token_type_ids"] * config.family.has_segments]


def _packages(config: EncoderConfig) -> tuple[str, ...]:
    return (*_PACKAGES, *(("sentence_transformers",) if config.embedding is not None else ()))


def _head(model: LoadedModel) -> Head:
    head = "embedding" if model.config.embedding is not None else head_of(flatten(model.params), model.config)
    if head not in _OUTPUTS:
        raise UserError(
            "--to_onnx exports a classifier, a tagger, a finder of answers or an embedder, and this model is"
            " none; give a fine-tuned one"
        )
    return head


def _export(directory: Path, config: EncoderConfig, head: Head) -> Path:
    import torch

    names = _inputs(config)
    with _quiet():
        theirs = _torch_model(directory, config, head)

        class Exported(torch.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.model = theirs

            def forward(self, *inputs: torch.Tensor) -> Any:
                given = dict(zip(names, inputs, strict=True))
                found = self.model(given) if head == "embedding" else self.model(**given)
                outputs = tuple(found[name] for name in _OUTPUTS[head])
                return outputs[0] if len(outputs) == 1 else outputs

        tokens = torch.full((2, 8), config.pad_token_id + 1)
        mask = torch.ones_like(tokens)
        mask[0, 5:] = 0  # without padding transformers may leave the mask out, and so would the exported file
        inputs = (tokens, mask, torch.zeros_like(tokens))[: len(names)]
        axes = {0: torch.export.Dim("batch"), 1: torch.export.Dim("length", max=config.longest_input)}
        torch.onnx.export(
            Exported().eval(),
            inputs,
            str(directory / ONNX_FILE),
            input_names=names,
            output_names=list(_OUTPUTS[head]),
            dynamic_shapes=(tuple(axes for _ in names),),
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    return directory / ONNX_FILE


def _torch_model(directory: Path, config: EncoderConfig, head: Head) -> Any:
    import transformers

    if head == "embedding":
        import sentence_transformers

        return sentence_transformers.SentenceTransformer(str(directory), device="cpu").eval()
    loader: Any = getattr(transformers, config.family.classes[head])
    return loader.from_pretrained(directory, attn_implementation="eager").eval()


@contextmanager
def _quiet() -> Iterator[None]:
    """Mutes PyTorch's exporter and transformers, whose warnings are about their own internals."""
    import transformers

    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir", "root")]
    before = [logger.level for logger in loggers]
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, before, strict=True):
                logger.setLevel(level)


def _quantised(path: Path) -> Path:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    target = path.with_name(INT8_FILE)
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)  # it advises a step that is for images
    try:
        quantize_dynamic(str(path), str(target), weight_type=QuantType.QInt8)
    finally:
        root.setLevel(level)
    return target


def _check(path: Path, model: LoadedModel, head: Head) -> None:
    """Raises UserError if an exported file differs from our model on random tokens, padded, in pairs too."""
    theirs, ours = onnx_model(path), jax_model(model)
    for batch in random_batches(model.config):
        expected, found = ours(batch), theirs(batch)
        real = batch["attention_mask"] > 0 if head in ("token", "answer") else ...
        difference = float(np.max(np.abs(found[real] - expected[real])))
        scale = float(np.max(np.abs(expected[real])))
        if not difference <= LARGEST_DIFFERENCE * scale:
            raise UserError(f"{path}: differs from the model by {difference:.1e} of {scale:.2g}: report this")


def random_batches(config: EncoderConfig) -> Iterator[dict[str, np.ndarray]]:
    """Yields batches of random tokens: one row, rows padded to different lengths, rows of two segments."""
    rng = np.random.default_rng(0)
    segments = config.type_vocab_size if config.family.has_segments else 1
    for rows, length in ((1, 5), (4, 17), (3, min(64, config.longest_input))):
        token_ids = rng.integers(0, config.vocab_size, (rows, length), np.int32)
        # Padding where none is: RoBERTa's would not be counted as a position.
        token_ids[token_ids == config.pad_token_id] = (config.pad_token_id + 1) % config.vocab_size
        lengths = np.concatenate([[length], rng.integers(3, length + 1, rows - 1)])
        mask = (np.arange(length) < lengths[:, None]).astype(np.int32)
        token_ids[mask == 0] = config.pad_token_id
        second = (np.arange(length) >= lengths[:, None] // 2).astype(np.int32) * mask
        yield {
            "input_ids": token_ids,
            "attention_mask": mask,
            "token_type_ids": np.minimum(second, segments - 1),
        }
