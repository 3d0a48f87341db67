"""How the encoders of a step compute attention: `--attention`."""

import flax.linen as nn
import jax

from bert_emd_jax.distillation.distill_config import MappingConfig
from bert_emd_jax.distillation.layer_losses import reads
from bert_emd_jax.errors import UserError
from bert_emd_jax.models.encoder_config import EncoderConfig
from bert_emd_jax.models.ensemble import Ensemble
from bert_emd_jax.models.fused_attention import AttentionForm

_AMPERE = 8  # the first NVIDIA generation that cuDNN's attention runs on


def attention_form(
    config: MappingConfig, dtype: str, student: EncoderConfig, teacher: EncoderConfig
) -> AttentionForm:
    """What `--attention` means on JAX's default device: cuDNN's kernel on a GPU, XLA elsewhere.

    Raises:
      UserError: the flag asks for what is impossible here.
    """
    if config.attention != "fused":
        return "direct"
    if dtype not in ("bfloat16", "float16"):
        raise UserError(f"--attention fused: needs --dtype bfloat16 or float16, and this is {dtype}")
    heads = student.num_attention_heads, teacher.num_attention_heads
    if reads(config.costs, "attention_scores") and heads[0] != heads[1]:
        raise UserError(
            f"--attention fused: the student has {heads[0]} heads and the teacher {heads[1]}, so that their"
            " means over heads are compared; use direct, or --no_use_attention"
        )
    if jax.default_backend() != "gpu":
        return "xla"
    device = jax.local_devices()[0]
    generation = str(getattr(device, "compute_capability", "")).split(".")[0]
    if not generation.isdigit() or int(generation) < _AMPERE:
        raise UserError(
            "--attention fused: needs an NVIDIA GPU of compute capability 8.0 or newer, and this is"
            f" {device.device_kind}; use direct"
        )
    return "cudnn"


def with_attention(module: nn.Module, form: AttentionForm) -> nn.Module:
    """Returns a model, or one of several, with another form of attention."""
    if isinstance(module, Ensemble):
        return module.clone(members=tuple(member.clone(attention=form) for member in module.members))
    return module.clone(attention=form)
