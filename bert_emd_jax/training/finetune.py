"""Fine-tuning one BERT on a task, as the programs and the Python API call it."""

from pathlib import Path
from typing import Any

from bert_emd_jax.checkpoints.model_directory import load_model
from bert_emd_jax.data.task_data import check_length, load_task_data, task_of
from bert_emd_jax.devices import hosts
from bert_emd_jax.models.initialization import NewHead
from bert_emd_jax.runs.run_directory import prepare_run_directory
from bert_emd_jax.training.config import FinetuneConfig
from bert_emd_jax.training.dry_run import describe_run
from bert_emd_jax.training.finetune_step import make_finetune_step
from bert_emd_jax.training.run import Method, finished_results, run_training
from bert_emd_jax.training.task_target import classifier, task_target

PROGRAM = "run_finetune"


def finetune(config: FinetuneConfig) -> dict[str, Any]:
    """Trains a classifier (or regressor) and returns the content of `eval_results.json`.

    With `dry_run`, nothing is trained: returns what `describe_run` says.

    Raises:
      UserError: a flag, file or row that the user can put right.
    """
    hosts.initialize(config)
    task = task_of(config)
    head = NewHead(task.num_labels, config.seed, task.labels)
    model = load_model(Path(config.bert_model), new_head=head, do_lower_case=config.do_lower_case)
    check_length(config.max_seq_length, model.config.max_position_embeddings, config.bert_model)
    data = load_task_data(config, task, model.tokenizer)
    if not config.dry_run:
        hosts.on_main(lambda: prepare_run_directory(config, PROGRAM))
        if (results := finished_results(config)) is not None:
            return results
    module = classifier(model.config, config.dtype, config.remat)
    method = Method(
        make_step=lambda optimizer: make_finetune_step(module, optimizer, regression=task.is_regression)
    )
    target = task_target(config, module, data)
    if config.dry_run:
        return describe_run(config, PROGRAM, {"student": model}, target, method, data.train.lengths)
    return run_training(config, PROGRAM, model, target, method)
