"""What the study compares: methods, as flags of `run_distill.py`, and students. Imports no jax."""

import dataclasses

BETA, LEARNING_RATE = "beta", "learning_rate"
BASELINE, WITHOUT_LAYERS, DEFAULT = "uniform", "logits", "emd"
"""The methods that the others are compared with."""
_RELATIONS = ("--use_relation", "--no_use_attention", "--no_use_hidden", "--no_use_embedding")
_BALANCED = ("--balance", "costs", "--hidden_cost", "normalised")
_EQUAL_WEIGHTS = ("--mapping", "emd", "--layer_weight_rule", "fixed")


@dataclasses.dataclass(frozen=True)
class Method:
    """One way to train a student.

    flags: all that tells it from the others. tuned: the flag that its trials go to. beta: given, no trials.
    like: the method that it differs from in one thing, and takes the chosen value of.
    """

    title: str
    flags: tuple[str, ...]
    tuned: str = BETA
    beta: float | None = None
    like: str | None = None

    @property
    def augmented(self) -> bool:
        """Whether it learns from the rows that run_augment.py makes, in as many steps as the others."""
        return "--aug_train" in self.flags


def _emd(title: str, *flags: str, like: str | None = "emd") -> Method:
    return Method(title, ("--mapping", "emd", *flags), like=like)


def _fixed(title: str, *flags: str) -> Method:
    return Method(f"EMD, fixed weights, {title}", (*_EQUAL_WEIGHTS, *flags), like="emd_fixed")


METHODS = {
    # alpha 0 leaves the true labels alone: the same program, schedule and batches as all others.
    "finetune": Method("fine-tuned, no teacher", ("--mapping", "none", "--alpha", "0"), LEARNING_RATE),
    "logits": Method("logits only", ("--mapping", "none"), LEARNING_RATE),
    "uniform": Method("uniform (TinyBERT)", ("--mapping", "uniform")),
    "emd": _emd("EMD, normalize", like=None),
    "emd_default": Method("EMD, default β", ("--mapping", "emd"), beta=0.01),
    "emd_fixed": Method("EMD, fixed weights", _EQUAL_WEIGHTS),
    "emd_learned": _emd("EMD, learned weights", "--layer_weight_rule", "learned", like=None),
    "emd_softmax": _emd("EMD, softmax", "--layer_weight_rule", "softmax", like=None),
    "emd_double_softmax": _emd(
        "EMD, double softmax", "--layer_weight_rule", "double_softmax", like="emd_softmax"
    ),
    "nearest": Method("nearest layer", ("--mapping", "nearest"), like="uniform"),
    "capped": Method("capped transport", ("--mapping", "capped")),
    "last": Method("last layer alone", ("--mapping", "last"), like="uniform"),
    "reverse": Method("layers the other way round", ("--mapping", "reverse"), like="uniform"),
    "relations": Method("relations, uniform", ("--mapping", "uniform", *_RELATIONS)),
    "relations_last": Method(
        "relations, last layer (MiniLMv2)", ("--mapping", "last", *_RELATIONS), like="relations"
    ),
    "uniform_balanced": Method("uniform, balanced costs", ("--mapping", "uniform", *_BALANCED)),
    "emd_balanced": _emd("EMD, balanced costs", *_BALANCED, like=None),
    "top": Method("top layers", ("--mapping", "top"), like="uniform"),
    "random": Method("random layers", ("--mapping", "random"), like="uniform"),
    "emd_exact": Method("EMD by network simplex", ("--mapping", "emd_exact"), like="emd"),
    "emd_no_attention": _emd("EMD without attention", "--no_use_attention"),
    "emd_no_hidden": _emd("EMD without hidden states", "--no_use_hidden"),
    "emd_no_embedding": _emd("EMD without embedding", "--no_use_embedding"),
    "emd_fixed_no_attention": _fixed("without attention", "--no_use_attention"),
    "emd_fixed_no_hidden": _fixed("without hidden states", "--no_use_hidden"),
    "emd_fixed_no_embedding": _fixed("without embedding", "--no_use_embedding"),
    "logits_aug": Method(
        "logits only, augmented rows", ("--mapping", "none", "--aug_train"), LEARNING_RATE, like="logits"
    ),
    "uniform_aug": Method("uniform, augmented rows", ("--mapping", "uniform", "--aug_train"), like="uniform"),
    "emd_aug": _emd("EMD, augmented rows", "--aug_train"),
    "emd_fixed_aug": _fixed("augmented rows", "--aug_train"),
}
CORE_METHODS = ("finetune", "logits", "uniform", "emd", "emd_fixed", "nearest")


@dataclasses.dataclass(frozen=True)
class Student:
    """Where a student comes from.

    cut: teacher layers, 0-based, that it is cut out of, whole or only `width` dimensions of them; else it has
    `layers` layers, half as wide as the teacher's. pretraining: the mapping of its general distillation, if
    it has one. epochs: of the plan's, how many it learns for.
    """

    title: str
    learning_rate: float
    cut: tuple[int, ...] = ()
    width: int | None = None
    layers: int = 0
    pretraining: tuple[str, ...] = ()
    epochs: float = 1.0


_UNIFORM = ("--mapping", "uniform")
STUDENTS = {
    "narrow4": Student(
        "general distillation by EMD, fixed weights", 3e-4, layers=4, pretraining=_EQUAL_WEIGHTS
    ),
    "narrow4_uniform": Student("general distillation by uniform", 3e-4, layers=4, pretraining=_UNIFORM),
    "random4": Student("random weights", 3e-4, layers=4),
    "narrow3": Student(
        "general distillation by EMD, fixed weights", 3e-4, layers=3, pretraining=_EQUAL_WEIGHTS
    ),
    # Whole layers of the teacher know much of a task already. The rate is a pilot's (docs/protocol.md).
    "cut2": Student("the teacher's layers 3 and 6", 4e-4, cut=(2, 5), epochs=0.5),
    "cut2_lower": Student("the teacher's first 2 layers", 4e-4, cut=(0, 1), epochs=0.5),
    "cut3": Student("the teacher's layers 2, 4 and 6", 1e-4, cut=(1, 3, 5)),
    "cut4": Student("the teacher's first 4 layers", 1e-4, cut=(0, 1, 2, 3)),
    "cut4_narrow": Student(
        "the teacher's layers 2, 3, 5 and 6, half as wide", 6e-4, cut=(1, 2, 4, 5), width=192
    ),
}
