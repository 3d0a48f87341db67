"""Reorders a trained classifier's labels as a task has them."""

import dataclasses
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from bert_emd_jax.data.kinds import kind_of
from bert_emd_jax.data.task import Task
from bert_emd_jax.errors import UserError

if TYPE_CHECKING:
    from bert_emd_jax.checkpoints.model_directory import LoadedModel

logger = logging.getLogger(__name__)


def match_labels(model: "LoadedModel", task: Task, source: str, *, in_order: bool = False) -> "LoadedModel":
    """Returns the model with its classifier reordered, so that output k is label k of the task.

    Labels are matched by name. If the model has none, or only numbers, output k is taken as label k.

    Args:
      source: the flag and path of the model, for messages.
      in_order: the user says that output k is label k, although the names differ.

    Raises:
      UserError: another kind, another number of labels, or names that do not match.
    """
    config, thresholds = model.config, model.config.thresholds
    if config.num_labels != task.num_labels:
        raise UserError(
            f"{source}: it has {config.num_labels} labels, task {task.name} has {task.num_labels};"
            " give a model that was trained on this task, or another --task_name"
        )
    if (kind := kind_of(config, source)) is not task.kind:
        raise UserError(
            f"{source}: is of kind {kind.name}, task {task.name} of kind {task.kind.name};"
            " give a model that was trained on this task, or another --task_name or --kind"
        )
    theirs, ours = config.id2label, task.labels
    if ours is None:
        return model
    in_place = tuple(range(len(ours)))
    order = in_place if theirs is None else task.label_order(theirs)
    if theirs is None:
        if not _are_numbers(ours):
            logger.info("%s: its labels have no names, they are taken as %s", source, ", ".join(ours))
    elif order is None:
        if not (_are_numbers(theirs) or in_order):
            known = (f"{label} ({names[0]})" for label, names in zip(ours, task.label_names, strict=True))
            raise UserError(
                f"{source}: its labels are, in order, {', '.join(theirs)}; those of {task.name} are"
                f" {', '.join(known if task.label_names else ours)}; if they are the same in this order, add"
                " --labels_in_order; else give the same labels the same names in id2label of its config.json"
            )
        logger.info("%s: its labels %s are taken as %s", source, ", ".join(theirs), ", ".join(ours))
    elif order != in_place:
        logger.info(
            "%s: its labels are in the order %s; its classifier is put into the order of %s: %s",
            source,
            ", ".join(theirs),
            task.name,
            ", ".join(ours),
        )
    order = order or in_place
    # The model's names replace the numbers of some GLUE tasks; otherwise the data's own spelling is kept.
    names = tuple(theirs[index] for index in order) if theirs and task.label_names else ours
    classifier = {
        name: np.asarray(leaf)[..., list(order)] for name, leaf in model.params["classifier"].items()
    }
    if thresholds is not None and order != in_place:
        of_classes = len(thresholds) == 1  # of the second of two, which is the first one now
        thresholds = (1 - thresholds[0],) if of_classes else tuple(thresholds[index] for index in order)
    return dataclasses.replace(
        model,
        config=dataclasses.replace(config, id2label=names, thresholds=thresholds),
        params={**model.params, "classifier": classifier},
    )


def _are_numbers(labels: Sequence[str]) -> bool:
    """Whether the labels are just the numbers 0, 1, …"""
    return list(labels) == [str(index) for index in range(len(labels))]
