"""What a student is before its training."""

import jax
import numpy as np
import pytest

from bert_emd_jax.checkpoints.model_directory import load_model
from bert_emd_jax.distillation.distill_config import TeacherAndStudentConfig
from bert_emd_jax.distillation.students import initial_student
from bert_emd_jax.models.heads import SequenceClassifier, forward


@pytest.mark.parametrize("start", ["student_init_layers", "student_config", "student_model"])
def test_a_student_may_learn_without_dropout(tiny_model_dir, start):
    directory = tiny_model_dir("teacher", num_hidden_layers=2, classifier_dropout=0.3)
    given = {start: (1,) if start == "student_init_layers" else directory, "teacher_model": directory}
    batch = {
        "input_ids": np.full((4, 8), 7, np.int32),
        "attention_mask": np.ones((4, 8), np.int32),
        "token_type_ids": np.zeros((4, 8), np.int32),
    }

    def logits(key: jax.Array | None, dropout: float | None) -> np.ndarray:
        config = TeacherAndStudentConfig(**given, student_dropout=dropout)
        student = initial_student(config, load_model(directory), "classifier", seed=0)
        return np.asarray(forward(SequenceClassifier(student.config), student.params, batch, key).logits)

    keys = jax.random.split(jax.random.key(0, impl="rbg"))
    assert np.abs(logits(keys[0], None) - logits(keys[1], None)).max() > 1e-3
    np.testing.assert_array_equal(logits(keys[0], 0.0), logits(None, None))
