"""The whole step as it is lowered for a GPU or TPU, read on a CPU: nothing that is known to be slow there.

And what it exchanges between devices, as it is compiled for several.
"""

import functools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.export
import numpy as np
import pytest

from bert_emd_jax.checkpoints.model_directory import LoadedModel
from bert_emd_jax.data.examples import Examples
from bert_emd_jax.data.task import Task
from bert_emd_jax.devices.parallel import DEVICES
from bert_emd_jax.distillation.distill_config import DistillConfig
from bert_emd_jax.distillation.trainer import DistillTrainer
from bert_emd_jax.encoding.dataset import EncodedDataset
from bert_emd_jax.encoding.task_data import TaskData
from bert_emd_jax.models.encoder_config import EncoderConfig
from bert_emd_jax.models.ensemble import inference_params
from bert_emd_jax.models.fused_attention import AttentionForm
from bert_emd_jax.models.heads import SequenceClassifier
from bert_emd_jax.models.initialization import initial_params, initial_projection

ROWS, LENGTH, VOCABULARY = 6, 10, 70
PLATFORMS = ("cuda", "tpu")
CUDNN = "__cudnn$fmhaSoftmax"


def bert(layers: int, width: int) -> EncoderConfig:
    return EncoderConfig(
        vocab_size=VOCABULARY,
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=2,
        intermediate_size=20,
        max_position_embeddings=LENGTH,
        num_labels=3,
    )


def step_on(
    devices: int,
    student_layers: int = 3,
    teacher_layers: int = 5,
    dtype: str = "bfloat16",
    scan: bool = True,
    attention: AttentionForm = "direct",
) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    """A step with dropout over so many devices, ROWS rows on each, and its arguments."""
    student, teacher = bert(student_layers, 8), bert(teacher_layers, 12)
    models = (
        LoadedModel(student, initial_params(student, "classifier", 1), None, initial_projection(8, 12, 2)),  # pyright: ignore[reportArgumentType]
        LoadedModel(teacher, initial_params(teacher, "classifier", 3), None),  # pyright: ignore[reportArgumentType]
    )
    one = np.ones(1, np.int32)
    rows = EncodedDataset(one, np.array([0, 1]), one, one, 0)
    examples = Examples(["a"], None, one, one, ["0"], Path("rows"))
    task = Task("toy", ("a", "b", "c"), ("accuracy",), {})
    config = DistillConfig(
        teacher_model="t",
        student_config="s",
        data_dir="d",
        task_name="sst-2",
        output_dir="o",
        dtype=dtype,
    )
    trainer = DistillTrainer(config, *models, TaskData(task, rows, rows, (LENGTH,), examples))
    modules = [SequenceClassifier(model.config, jax.numpy.dtype(dtype), scan=scan) for model in models]
    trainer.student_module, trainer.teacher_module = modules
    trainer.attention = attention
    constants = jax.device_get(trainer.constants(0))
    constants = constants._replace(teacher=inference_params(modules[1], models[1].params))
    ids = np.ones((1, devices * ROWS, LENGTH), np.int32)
    batch = {"input_ids": ids, "attention_mask": ids, "token_type_ids": ids}
    batch |= {"labels": ids[:, :, 0], "weights": ids[:, :, 0].astype(np.float32)}
    everywhere, rows_of_each = jax.sharding.PartitionSpec(), jax.sharding.PartitionSpec(None, DEVICES)
    step = jax.shard_map(
        trainer.update,
        mesh=jax.sharding.Mesh(np.array(jax.devices()[:devices]), (DEVICES,)),
        in_specs=(everywhere, everywhere, rows_of_each),
        out_specs=everywhere,
        check_vma=False,
    )
    return jax.jit(step), (trainer.initial_state(), constants, batch)


@functools.cache
def lowered(platform: str, **options: Any) -> str:
    """The module of a step on one device, before the compiler sees it."""
    step, arguments = step_on(1, **options)
    checks = [jax.export.DisabledSafetyCheck.custom_call(CUDNN)]
    return jax.export.export(step, platforms=[platform], disabled_checks=checks)(*arguments).mlir_module()


def operations(platform: str, name: str, **options: Any) -> list[str]:
    return [line for line in lowered(platform, **options).splitlines() if f"stablehlo.{name}" in line]


@pytest.mark.parametrize("platform", PLATFORMS)
def test_nothing_is_added_to_rows_that_others_add_to(platform):
    """Sums are stored in the word table, each once; others have a value of each row of the batch at most."""
    pattern = r'"stablehlo.scatter"\(.*?<\{(.*?)\}> .*?\}\) : \(tensor<([\dx]+)x(\w+)>'
    found = re.findall(pattern, lowered(platform), re.DOTALL)
    assert len(found) == len(operations(platform, "scatter"))
    shapes = [tuple(map(int, shape.split("x"))) for _, shape, _ in found]
    assert (VOCABULARY, 8) in shapes
    for (attributes, _, kind), shape in zip(found, shapes, strict=True):
        assert kind == "f32"
        assert "unique_indices = true" in attributes or np.prod(shape) <= ROWS * 3


@pytest.mark.parametrize("platform", PLATFORMS)
def test_layers_are_compiled_once(platform):
    """Three loops over layers, on TPUs one for the last pivots; no more operations for more layers.

    On a GPU the host would have to wait for each pivot of a loop.
    """
    assert len(operations(platform, "while")) == {"cuda": 3, "tpu": 4}[platform]
    for name in ("dot_general", "while", "scatter", "rng_bit_generator"):
        more = operations(platform, name, student_layers=4, teacher_layers=7)
        assert len(more) == len(operations(platform, name)) > 0, name


@pytest.mark.parametrize("platform", PLATFORMS)
def test_outputs_of_all_layers_are_not_copied(platform):
    """Loops write them where the costs read them."""
    for line in operations(platform, "concatenate"):
        shape = re.search(r"-> tensor<([\dx]+)x\w+>", line)
        assert shape, line
        assert len(shape.group(1).split("x")) < 4 or f"{LENGTH}x" not in shape.group(1), line


@pytest.mark.parametrize("platform", PLATFORMS)
def test_states_and_scores_stay_in_bfloat16(platform):
    """No float32 copy of all layers' outputs is kept for the costs."""
    scores, states = f"5x{ROWS}x2x{LENGTH}x{LENGTH}", f"5x{ROWS}x{LENGTH}x12"
    converted = [
        line
        for line in operations(platform, "convert")
        if f"-> tensor<{scores}xf32>" in line or f"-> tensor<{states}xf32>" in line
    ]
    # Each for the sum of squares alone, into which the compiler takes the conversion.
    assert len(converted) <= 2


def test_fused_attention_leaves_no_map_of_the_teacher(monkeypatch):
    """One call of cuDNN's for all of its layers; the student's scores are there for its dropout."""
    from jax._src.cudnn import fused_attention_stablehlo

    monkeypatch.setattr(fused_attention_stablehlo, "check_cudnn_version", lambda: 91000)
    teacher, student = (rf"tensor<{layers}x{ROWS}x2x{LENGTH}x{LENGTH}x" for layers in (5, 3))
    assert re.search(teacher, lowered("cuda"))
    module = lowered("cuda", attention="cudnn")
    assert module.count(f"custom_call @{CUDNN}(") == 1
    assert not re.search(teacher, module)
    assert re.search(student, module)
    # Of single layers, too, only the student's are formed.
    scores = rf"stablehlo.dot_general.*-> tensor<{ROWS}x2x{LENGTH}x{LENGTH}x"
    assert len(re.findall(scores, lowered("cuda"))) - len(re.findall(scores, module)) == 1
    # A loop over heads for the costs and one for their gradient; their lengths are known.
    assert len(operations("cuda", "while", attention="cudnn")) == len(operations("cuda", "while")) + 2


@pytest.mark.parametrize("platform", PLATFORMS)
def test_float16_is_lowered_with_its_loss_scale(platform):
    module = lowered(platform, dtype="float16")
    dots = [line for line in module.splitlines() if "stablehlo.dot_general" in line]
    assert sum("f16>" in line and "bf16>" not in line for line in dots) > len(dots) / 2
    assert not any("bf16" in line for line in dots)
    # The scale is a scalar of the state that comes in and goes out.
    signature = next(line for line in module.splitlines() if "func.func public @main" in line)
    arguments, results = signature.split("->")
    scalars = [side.count("tensor<f32>") for side in (arguments, results)]
    plain = next(line for line in lowered(platform).splitlines() if "func.func public @main" in line)
    assert scalars[0] == plain.split("->")[0].count("tensor<f32>") + 1


COLLECTIVES = r"all-reduce|all-gather|all-to-all|reduce-scatter|collective-permute|collective-broadcast"


def test_devices_exchange_the_gradient_and_little_more():
    """Sums of one gradient, of the costs and of some counts."""
    step, arguments = step_on(8, dtype="float32", scan=False)
    compiled = step.lower(*arguments).compile().as_text()
    exchanged = re.findall(rf"= (\(.*?\)|\S+) ({COLLECTIVES})(?:-start)?\(", compiled)
    assert exchanged
    assert {name for _, name in exchanged} == {"all-reduce"}
    shapes = re.findall(r"(\w+)\[([\d,]*)\]", " ".join(shape for shape, _ in exchanged))
    assert {kind for kind, _ in shapes} <= {"f32", "s32", "u32", "pred"}
    numbers = sum(int(np.prod([int(size) for size in shape.split(",") if size])) for _, shape in shapes)
    parameters = sum(leaf.size for leaf in jax.tree.leaves(arguments[0].params))
    assert parameters <= numbers <= parameters + 200
