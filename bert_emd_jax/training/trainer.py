"""A kind of training as one object: its state, its compiled step, and what is measured, logged and left."""

import abc
import contextlib
import functools
from collections.abc import Callable, Generator, Iterable, Mapping
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from bert_emd_jax.checkpoints.model_directory import LoadedModel
from bert_emd_jax.devices.compile_ahead import Task
from bert_emd_jax.devices.device_needs import device_needs
from bert_emd_jax.devices.parallel import DEVICES, on_devices, pmap_step, replicate, rows_for_devices
from bert_emd_jax.files import content_hash
from bert_emd_jax.models.batch import Batch
from bert_emd_jax.models.initialization import PROJECTION
from bert_emd_jax.models.params import flatten
from bert_emd_jax.training.loss_scale import initial_loss_scale, is_overflow, unscaled
from bert_emd_jax.training.optimizer import (
    Numbers,
    global_norm,
    learning_rate_schedule,
    make_optimizer,
    schedule_numbers,
)
from bert_emd_jax.training.prefetch import prefetched
from bert_emd_jax.training.row_source import RowSource
from bert_emd_jax.training.run import Run, compute_dtype
from bert_emd_jax.training.state import (
    NOTHING_FROZEN,
    WORD_EMBEDDINGS_FROZEN,
    TrainState,
    apply_gradients,
    create_state,
    dropout_key,
    unless_nonfinite,
)
from bert_emd_jax.training.training_config import TrainingConfig

Measurements = dict[str, Any]


class Constants(NamedTuple):
    """What a step needs beside its state and batch: `Trainer.numbers`, on the devices."""

    numbers: Numbers


class MicroStep(NamedTuple):
    """What a loss may read beside parameters and batch: nothing of it is differentiated.

    index: of the micro-batch. rows: what each micro-batch weighs over all devices, see `Trainer.weighs`.
    constants: see `Trainer.constants`.
    """

    index: Any
    rows: Float[Array, " micro"]
    state: TrainState
    constants: Any

    @property
    def numbers(self) -> Numbers:
        """`Trainer.numbers`."""
        return self.constants.numbers

    @property
    def weight(self) -> Float[Array, ""]:
        """What the micro-batch weighs over all devices; 1 if it is nothing."""
        return jnp.maximum(self.rows[self.index], 1)

    def dropout_key(self) -> Array:
        """Another one in every step, on every device and for every micro-batch."""
        return dropout_key(self.state, self.index, len(self.rows))


class Trainer(abc.ABC):
    """A kind of training. `step` makes one optimizer step, `train` a whole run of them.

    primary_metric: the one of `evaluate` that chooses the best step, the lowest if `lower_is_better`.
    evaluates_at_start: also before the first step. waits_for_step: a step is finished before the next one is
    started. check_every: steps between two calls of `check`; 0: never. meanwhile: a call to make once, while
    the first step is compiled. on_log: gets the step and every row of `metrics.jsonl`. numbers: what the
    compiled step takes as arguments, so that it is compiled once for runs that differ in these alone.
    """

    program: ClassVar[str]
    primary_metric: str
    lower_is_better: bool = False
    evaluates_at_start: bool = False
    waits_for_step: bool = False
    check_every: int = 0

    def __init__(
        self,
        config: TrainingConfig,
        model: LoadedModel,
        rows: RowSource,
        *,
        extra_params: Mapping[str, Any] | None = None,
        learning_rates: Mapping[str, float] | None = None,
        method: Any = None,
    ) -> None:
        """Trains `model` on `rows`.

        Args:
          extra_params: trained beside the model's parameters, and no part of what is saved.
          learning_rates: peak rates of top-level parameters that do not take --learning_rate.
          method: what the train state holds beside parameters and optimizer state at the start.
        """
        self.config = config
        self.dtype = compute_dtype(config, self.program)
        self.model = model
        self.rows = rows
        self.total_steps = config.optimizer.steps(rows.steps_per_epoch)
        self.numbers = schedule_numbers(config.optimizer, self.total_steps)
        self._learning_rates = dict(learning_rates or {})
        self.numbers |= {f"learning_rate of {name}": rate for name, rate in self._learning_rates.items()}
        frozen = config.optimizer.freeze_word_embeddings
        self._frozen = WORD_EMBEDDINGS_FROZEN if frozen else NOTHING_FROZEN
        self._extra_params = dict(extra_params or {})
        self._method = method
        self.meanwhile: Callable[[], None] | None = None
        self.on_log: Callable[[int, dict[str, Any]], None] | None = None
        self._constants: tuple[int, Any] | None = None
        self._programs: dict[tuple[tuple[int, ...], ...], Any] = {}

    @abc.abstractmethod
    def loss(
        self, params: Any, batch: Batch, step: MicroStep
    ) -> tuple[Float[Array, ""], tuple[Measurements, Any]]:
        """Returns (this device's share of the loss, (shares of what is measured, what else the step keeps)).

        Over all devices and micro-batches shares add up to the values of the step; "loss" is among them. What
        else is kept is equal on all devices, and gets an axis of micro-batches.
        """

    @abc.abstractmethod
    def evaluate(self) -> dict[str, float]:
        """The metrics of the parameters as they are."""

    @abc.abstractmethod
    def results(self, model: LoadedModel) -> dict[str, Any]:
        """What `eval_results.json` says of the best model; called in the main process."""

    def weighs(self, batch: Batch) -> Float[Array, " micro"]:
        """How much each micro-batch counts in the mean that the loss is: its real rows."""
        return batch["weights"].sum(axis=1)

    def constants(self, epoch: int) -> Any:
        """What the step needs in an epoch and nobody differentiates, on all devices: `Constants`, or more."""
        return Constants(self._replicated_numbers)

    def optimizer(self, numbers: Numbers) -> optax.GradientTransformation:
        """The optimizer with the given `numbers`."""
        peak = numbers["learning_rate"]
        relative = {name: numbers[f"learning_rate of {name}"] / peak for name in self._learning_rates}
        return make_optimizer(self.config.optimizer, self._schedule(numbers), relative)

    def _schedule(self, numbers: Numbers) -> optax.Schedule:
        return learning_rate_schedule(self.config.optimizer.lr_schedule, numbers)

    @functools.cached_property
    def _replicated_numbers(self) -> Numbers:
        return replicate({name: np.float32(number) for name, number in self.numbers.items()})

    def after_update(
        self,
        before: TrainState,
        after: TrainState,
        kept: Any,
        losses: Measurements,
        rows: Float[Array, " micro"],
    ) -> tuple[TrainState, Measurements]:
        """The state with what the kind of training keeps, and measurements; inside the compiled step.

        Args:
          kept: what `loss` returned to be kept, of every micro-batch.
          losses: its terms, over all devices and micro-batches.
          rows: what every micro-batch weighs.
        """
        return after, {}

    def prepare(self) -> dict[str, Any]:
        """Gets ready for a run; returns what `run_config.json` says of it beside the flags."""
        return {}

    def inputs(self) -> dict[str, str]:
        """Hashes of what a run is made from, by what it is; a resumed run must be made from the same."""
        return {
            f"the {name}": content_hash(model.config.values(), flatten(model.params))
            for name, model in self.models.items()
        }

    @property
    def models(self) -> dict[str, LoadedModel]:
        """The "student", which is trained, and perhaps its "teacher"."""
        return {"student": self.model}

    def mapping_facts(self) -> dict[str, Any] | None:
        """What a dry run says of the mapping of layers, if there is one."""
        return None

    def recipe(self) -> Mapping[str, Any] | None:
        """What a dry run says of flags that were measured for such runs: their title and flags."""
        return None

    def resume(self, step: int) -> None:  # noqa: B027  (most kinds of training have nothing to do here)
        """Takes over what an earlier run has logged up to a step; 0 for a new run."""

    def log(self, step: int, measurements: Measurements) -> dict[str, Any]:
        """What a logged step's row of `metrics.jsonl` holds beside means of the scalars; plans as arrays."""
        return {}

    def check(self, step: int, measurements: Measurements) -> dict[str, Any]:
        """The row of `metrics.jsonl` of a check."""
        return {}

    def needed_later(self) -> Iterable[Task]:
        """What `evaluate` and `results` will compile: tasks for "evaluate" and "export"."""
        return ()

    def before_checkpoint(self) -> None:  # noqa: B027
        """Writes what must not lag behind a checkpoint."""

    @functools.cached_property
    def state(self) -> TrainState:
        """The train state, replicated over the devices."""
        return replicate(self.initial_state())

    def initial_state(self) -> TrainState:
        """The state before the first step, on the host."""
        trained = dict(self.model.params) | self._extra_params
        if self.model.projection is not None:
            trained[PROJECTION] = self.model.projection
        scale = initial_loss_scale(self.dtype)
        seed = self.config.optimizer.seed
        return create_state(trained, self.optimizer(self.numbers), seed, self._method, scale, self._frozen)

    @functools.cached_property
    def compiled_step(self) -> Any:
        """`update` over all devices of all hosts: (state, constants, batch) -> (state, measurements)."""
        return pmap_step(self.update)

    def batches(self, first: int, last: int) -> contextlib.closing[Generator[tuple[int, Batch]]]:
        """(rows, arrays for `step`) of the steps from `first` up to `last`, made one step ahead."""
        optimizer = self.config.optimizer
        micro_batches = optimizer.gradient_accumulation_steps
        padded_rows = rows_for_devices(optimizer.train_batch_size, jax.device_count(), micro_batches)
        put = {}
        if device_needs().copies_ahead and jax.process_count() == 1:
            put = {"put": on_devices}
        return contextlib.closing(prefetched(self.rows, first, last, padded_rows, micro_batches, **put))

    def step(self, batch: Batch, epoch: int = 0) -> Measurements:
        """Makes one optimizer step: `state` moves on; returns what was measured, still on the devices.

        Args:
          batch: one of `batches`, [local devices, micro-batches, rows, …].
        """
        if self._constants is None or self._constants[0] != epoch:
            self._constants = epoch, self.constants(epoch)
        constants = self._constants[1]
        self.state, measurements = self._program(constants, batch)(self.state, constants, batch)
        self._while_compiling()
        return measurements

    def _program(self, constants: Any, batch: Batch) -> Any:
        """The compiled step for a batch of such shapes: of a short run one that is compiled quickly."""
        needs, rows = device_needs(), self.total_steps * self.config.optimizer.train_batch_size
        if rows >= needs.rows_for_tuning or jax.process_count() > 1:
            return self.compiled_step
        shapes = tuple(leaf.shape for leaf in jax.tree.leaves(batch))
        if shapes not in self._programs:
            lowered = self.compiled_step.lower(self.state, constants, batch)
            self._while_compiling()
            self._programs[shapes] = lowered.compile(compiler_options=dict(needs.step_options))
        return self._programs[shapes]

    def _while_compiling(self) -> None:
        """Once, during the first compilation or, if that cannot be, after the first step was begun."""
        meanwhile, self.meanwhile = self.meanwhile, None
        if meanwhile is not None:
            meanwhile()

    def update(self, state: TrainState, constants: Any, batch: Batch) -> tuple[TrainState, Measurements]:
        """One optimizer step on one device of `DEVICES`: a pure function, which `compiled_step` compiles.

        The sums over micro-batches are here, those over devices are one psum and the loss's own.
        """
        rows = jax.lax.psum(self.weighs(batch), DEVICES)
        scale = state.loss_scale
        trained = self._frozen.trained  # what is left out here is not computed
        seed = 1.0 if scale is None else scale.scale  # the derivative of what is differentiated by the loss
        if rows.shape[0] == 1:  # the usual case, without a loop around the model
            step = MicroStep(0, rows, state, constants)
            loss = functools.partial(self.loss, batch=_micro_batch(batch, 0), step=step)
            value, pull_back, (shares, kept) = jax.vjp(loss, state.params, has_aux=True)
            gradients = trained(*pull_back(jnp.asarray(seed, value.dtype)))
            kept = jax.tree.map(lambda value: value[None], kept)
        else:

            def one(index: Any) -> Any:
                step = MicroStep(index, rows, state, constants)
                loss = functools.partial(self.loss, batch=_micro_batch(batch, index), step=step)
                value, pull_back, measured = jax.vjp(loss, state.params, has_aux=True)
                return trained(*pull_back(jnp.asarray(seed, value.dtype))), measured

            def accumulate(sums: Any, index: Any) -> tuple[Any, Any]:
                gradients, (shares, kept) = one(index)
                return jax.tree.map(jnp.add, sums, (gradients, shares)), kept

            shapes = jax.eval_shape(one, jnp.asarray(0))
            zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), (shapes[0], shapes[1][0]))
            (gradients, shares), kept = jax.lax.scan(accumulate, zeros, jnp.arange(rows.shape[0]))
        gradients, shares = jax.lax.psum((gradients, shares), DEVICES)
        gradients = unscaled(gradients, scale)
        after = apply_gradients(state, gradients, self.optimizer(constants.numbers), self._frozen)
        after, measurements = self.after_update(state, after, kept, shares, rows)
        gradient_norm = global_norm(gradients)
        after = unless_nonfinite(state, after, shares["loss"], gradient_norm)
        if scale is not None:
            skipped = is_overflow(scale, shares["loss"], gradient_norm)
            measurements |= {"loss_scale": scale.scale, "skipped_steps": skipped.astype(jnp.int32)}
        return after, {
            **shares,
            **measurements,
            "gradient_norm": gradient_norm,
            "learning_rate": self._schedule(constants.numbers)(state.step),
            "bad_steps": after.bad_steps,
        }

    def train(self) -> dict[str, Any]:
        """Trains to the last step, from the last checkpoint if there is one and `--resume` is given.

        Leaves everything in the output directory, and returns what `eval_results.json` holds.

        Raises:
          UserError: the directory cannot be used, no checkpoint is intact, or too many steps were not finite.
          Interrupted: a signal came; the run can be resumed.
        """
        run = Run(self)
        if (results := run.finished_results()) is not None:
            return results
        with run:
            for epoch, batch in run.steps():
                run.after_step(self.step(batch, epoch))
            return run.finish()

    def best_model(self, state: TrainState) -> LoadedModel:
        """The model that a state on the host holds, as it is saved."""
        params = {name: values for name, values in state.params.items() if name not in self._extra_params}
        projection = params.pop(PROJECTION, None)
        return LoadedModel(self.model.config, params, self.model.tokenizer, projection)


def _micro_batch(batch: Batch, index: Any) -> Batch:
    return jax.tree.map(lambda values: values[index], batch)
