"""BERT-EMD in JAX: BERT compression with an optimal-transport layer mapping (arXiv 2010.06133)."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bert_emd_jax.api import (
        distill,
        evaluate,
        finetune,
        general_distill,
        mapping,
        plot_layer_weights,
        plot_mapping,
    )
    from bert_emd_jax.data.kind import Prediction
    from bert_emd_jax.distillation.distill_config import DistillConfig, GeneralDistillConfig
    from bert_emd_jax.errors import UserError
    from bert_emd_jax.evaluation.answers import Answer
    from bert_emd_jax.evaluation.evaluation_config import EvaluationConfig
    from bert_emd_jax.evaluation.tagging import Entity
    from bert_emd_jax.model import Model, load
    from bert_emd_jax.training.training_config import FinetuneConfig

__version__ = "0.2.0"

_HOME = {
    **dict.fromkeys(("distill", "evaluate", "finetune", "general_distill"), "api"),
    **dict.fromkeys(("mapping", "plot_layer_weights", "plot_mapping"), "api"),
    **dict.fromkeys(("Model", "load"), "model"),
    "Prediction": "data.kind",
    "Answer": "evaluation.answers",
    "Entity": "evaluation.tagging",
    **dict.fromkeys(("DistillConfig", "GeneralDistillConfig"), "distillation.distill_config"),
    "FinetuneConfig": "training.training_config",
    "EvaluationConfig": "evaluation.evaluation_config",
    "UserError": "errors",
}

__all__ = [
    "Answer",
    "DistillConfig",
    "Entity",
    "EvaluationConfig",
    "FinetuneConfig",
    "GeneralDistillConfig",
    "Model",
    "Prediction",
    "UserError",
    "__version__",
    "distill",
    "evaluate",
    "finetune",
    "general_distill",
    "load",
    "mapping",
    "plot_layer_weights",
    "plot_mapping",
]


def __getattr__(name: str) -> Any:
    # Lazy: programs parse their flags before they pay for importing jax.
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
