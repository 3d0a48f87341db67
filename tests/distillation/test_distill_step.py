"""The distillation step: equal on any number of devices, equal to the authors' numbers, equal to autodiff."""

import functools
from pathlib import Path
from typing import Any

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from precision import enable_x64
from training_steps import LENGTH, pmap_on, split, uneven_batch

from bert_emd_jax.checkpoints.model_directory import LoadedModel
from bert_emd_jax.data.examples import Examples
from bert_emd_jax.data.task import Task
from bert_emd_jax.devices.parallel import DEVICES, replicate
from bert_emd_jax.distillation.distill_config import DistillConfig
from bert_emd_jax.distillation.layer_losses import LayerPlans
from bert_emd_jax.distillation.teacher_outputs import KINDS, kept_outputs
from bert_emd_jax.distillation.trainer import LAYER_WEIGHT_LOGITS, DistillTrainer
from bert_emd_jax.encoding.dataset import EncodedDataset
from bert_emd_jax.encoding.task_data import TaskData
from bert_emd_jax.models.encoder_config import EncoderConfig
from bert_emd_jax.models.heads import SequenceClassifier, forward
from bert_emd_jax.models.initialization import PROJECTION, initial_params, initial_projection
from bert_emd_jax.transport.layer_weights import learned_layer_weights
from bert_emd_jax.transport.simplex import network_simplex

STUDENT_LAYERS, TEACHER_LAYERS = 2, 3


def config(**changes) -> DistillConfig:
    values = {
        "teacher_model": "t",
        "student_config": "s",
        "data_dir": "d",
        "task_name": "sst-2",
        "output_dir": "o",
        "beta": 0.5,
        "alpha": 0.7,
        "temperature": 2.0,
    }
    return DistillConfig(**(values | changes))


def bert(layers: int, hidden: int, heads: int = 2) -> EncoderConfig:
    return EncoderConfig(
        vocab_size=40,
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=20,
        max_position_embeddings=LENGTH,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        initializer_range=0.3,
        num_labels=3,
    )


def trainer_of(flags: DistillConfig) -> DistillTrainer:
    """The trainer of a small student and teacher, whose task nobody reads rows of."""
    student, teacher = bert(STUDENT_LAYERS, 8), bert(TEACHER_LAYERS, 12)
    tokenizer: Any = None
    student_model = LoadedModel(
        student, initial_params(student, "classifier", 1), tokenizer, initial_projection(8, 12, 2)
    )
    teacher_model = LoadedModel(teacher, initial_params(teacher, "classifier", 3), tokenizer)
    task = Task("toy", ("a", "b", "c"), ("accuracy",), {})
    one = np.ones(1, np.int32)
    rows = EncodedDataset(one, np.array([0, 1]), one, one, 0)
    examples = Examples(["a"], None, one, one, ["0"], Path("rows"))
    return DistillTrainer(
        flags, student_model, teacher_model, TaskData(task, rows, rows, (LENGTH,), examples)
    )


class Steps:
    """Steps of one compiled program on the first `devices` devices, made as they are asked for."""

    def __init__(self, flags: DistillConfig, devices: int, micro_batches: int, brings_outputs: bool) -> None:
        self.trainer = trainer_of(flags)
        # no normalisation of gradients: an error of scale would show
        self.trainer.optimizer = lambda numbers: optax.sgd(0.1)
        self.trainer.teacher_runs = not brings_outputs
        self.brings_outputs, self.devices, self.micro_batches = brings_outputs, devices, micro_batches
        self.step = pmap_on(self.trainer.update, devices)
        # As in a run: replicated once, so that the first call's shardings are those of the later ones.
        mesh = jax.sharding.Mesh(np.array(jax.devices()[:devices]), (DEVICES,))
        self.state, self.constants = jax.device_put(
            jax.device_get((self.trainer.initial_state(), self.trainer.constants(0))),
            jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec()),
        )
        self.states: list[Any] = []
        self.history: list[dict[str, Any]] = []

    def make(self, steps: int, **batch_options: int) -> None:
        while len(self.history) < steps:
            batch = uneven_batch(seed=len(self.history), **batch_options)
            if self.brings_outputs:
                output = forward(self.trainer.teacher_module, self.trainer.teacher.params, batch)
                batch["teacher"] = jax.device_get(kept_outputs(output, KINDS))
            rows = split(batch, self.devices, self.micro_batches)
            self.state, measurements = self.step(self.state, self.constants, rows)
            self.states.append(jax.device_get(self.state))
            self.history.append(jax.device_get(measurements))


steps_of = functools.cache(Steps)


def run_steps(
    flags: DistillConfig,
    devices: int,
    steps: int,
    micro_batches: int = 1,
    brings_outputs: bool = False,
) -> tuple[Any, list[dict[str, Any]]]:
    """(state after `steps` steps, measurements of each); what is compiled and computed once is kept."""
    made = steps_of(flags, devices, micro_batches, brings_outputs)
    made.make(steps)
    return made.states[steps - 1], made.history[:steps]


def of_cost(measurements: dict, kind: str) -> LayerPlans:
    """The plans of one cost, [micro, …]."""
    index = ("attention", "hidden").index(kind)
    return LayerPlans(*(each[:, index] for each in measurements["plans"]))


def assert_trees_close(ours, theirs, tolerance):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance), ours, theirs)


def test_outputs_that_the_batch_brings_along_stand_for_the_teacher():
    """Rounded to bfloat16 they change the costs by less than a thousandth; the gradients follow."""
    with_teacher, history = run_steps(config(), 1, steps=3)
    brought_along, rounded = run_steps(config(), 1, steps=3, brings_outputs=True)
    for exact, ours in zip(history, rounded, strict=True):
        for name in ("loss", "embedding_loss", "soft_loss", "gradient_norm"):
            np.testing.assert_allclose(ours[name], exact[name], rtol=1e-3)
        np.testing.assert_allclose(ours["plans"].cost, exact["plans"].cost, rtol=1e-3)
    assert not np.array_equal(of_cost(rounded[0], "hidden").cost, of_cost(history[0], "hidden").cost)
    assert_trees_close(brought_along.params, with_teacher.params, 1e-3)


@pytest.mark.parametrize(
    ("devices", "flags"),
    [
        *((2, {}), (4, {}), (8, {}), (8, {"mapping": "uniform"}), (8, {"padding": "include"})),
        (8, {"layer_weight_rule": "learned"}),
    ],
    ids=str,
)
def test_losses_and_updates_do_not_depend_on_the_number_of_devices(devices, flags):
    one_state, one = run_steps(config(**flags), 1, steps=4)
    many_state, many = run_steps(config(**flags), devices, steps=4)
    assert one[-1]["loss"] != one[0]["loss"]
    assert_trees_close(many, one, 1e-5)
    assert_trees_close(many_state.params, one_state.params, 1e-5)
    assert_trees_close(many_state.method.weights, one_state.method.weights, 1e-5)


def test_a_step_in_bfloat16_is_the_step_but_for_its_rounding():
    """Values of 8 binary digits: losses within some units in the last place, the state float32 as ever."""
    exact_state, exact = run_steps(config(), 1, steps=2)
    state, rounded = run_steps(config(dtype="bfloat16"), 1, steps=2)
    for ours, theirs in zip(rounded, exact, strict=True):
        for name in ("loss", "attention_loss", "hidden_loss", "embedding_loss", "soft_loss", "hard_loss"):
            np.testing.assert_allclose(ours[name], theirs[name], rtol=4 * 2**-8)
            assert ours[name] != theirs[name]
        np.testing.assert_allclose(ours["plans"].flow.sum((2, 3)), 1, rtol=1e-6)
        assert not ours["bad_steps"]
    kinds = {leaf.dtype for leaf in jax.tree.leaves((state.params, state.optimizer_state, state.method))}
    assert kinds <= {np.dtype("float32"), np.dtype("int32")}
    moved = jax.tree.map(np.subtract, state.params, run_steps(config(), 1, steps=1)[0].params)
    expected = jax.tree.map(np.subtract, exact_state.params, run_steps(config(), 1, steps=1)[0].params)
    ours, theirs = (np.concatenate([leaf.ravel() for leaf in jax.tree.leaves(t)]) for t in (moved, expected))
    assert np.dot(ours, theirs) > 0.95 * np.linalg.norm(ours) * np.linalg.norm(theirs)


def test_micro_batches_weigh_their_rows():
    """Without layers the loss is linear in the rows: micro-batches must give exactly the large batch."""
    flags = config(mapping="none")
    whole_state, whole = run_steps(flags, 2, steps=2)
    parts_state, parts = run_steps(flags, 2, steps=2, micro_batches=3)
    assert_trees_close(
        {name: value for name, value in parts[-1].items() if name.endswith("loss")},
        {name: value for name, value in whole[-1].items() if name.endswith("loss")},
        1e-6,
    )
    assert_trees_close(parts_state.params, whole_state.params, 1e-6)


def test_each_micro_batch_has_a_plan_of_its_own():
    state, history = run_steps(config(), 2, steps=1, micro_batches=3)
    assert history[0]["plans"].flow.shape == (3, 2, STUDENT_LAYERS, TEACHER_LAYERS)
    np.testing.assert_allclose(history[0]["plans"].flow.sum((2, 3)), 1, rtol=1e-6)
    costs = of_cost(history[0], "hidden").cost
    assert np.abs(costs[0] - costs[1]).max() > 1e-3
    np.testing.assert_allclose(np.asarray(state.method.weights[1].student).sum(), 1, rtol=1e-6)


def test_the_gradient_is_that_of_the_loss_with_the_plan_held_fixed():
    """Against central differences of a loss written out by hand, in float64."""
    flags = config(theta=0.8)
    state, history = run_steps(flags, 1, steps=1)
    student, teacher = bert(STUDENT_LAYERS, 8), bert(TEACHER_LAYERS, 12)
    params = initial_params(student, "classifier", 1)
    params[PROJECTION] = initial_projection(8, 12, 2)
    batch = uneven_batch()
    flows = {kind: of_cost(history[0], kind).flow[0].astype(np.float64) for kind in ("attention", "hidden")}

    with enable_x64(True):
        wide = lambda tree: jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), tree)
        inputs = (batch["input_ids"], batch["attention_mask"], batch["token_type_ids"])
        target = SequenceClassifier(teacher, jnp.float64).apply(
            {"params": wide(initial_params(teacher, "classifier", 3))}, *inputs
        )
        module = SequenceClassifier(student, jnp.float64)
        mask = batch["attention_mask"].astype(bool)
        pairs = mask[:, None, :, None] & mask[:, None, None, :]
        real = batch["weights"] > 0

        def loss(tree) -> float:
            output = jax.device_get(module.apply({"params": tree}, *inputs))
            states = output.hidden_states @ tree[PROJECTION]["kernel"] + tree[PROJECTION]["bias"]
            beta, theta, alpha = flags.prediction.beta, flags.layers.theta, flags.prediction.alpha
            total = beta * np.mean((states[0] - target.hidden_states[0])[mask] ** 2)
            for i in range(STUDENT_LAYERS):
                for j in range(TEACHER_LAYERS):
                    hidden = np.mean((states[i + 1] - target.hidden_states[j + 1])[mask] ** 2)
                    scores = output.attention_scores[i] - target.attention_scores[j]
                    attention = np.sum((scores * pairs) ** 2) / (pairs.sum() * 2)
                    total += beta * theta * flows["hidden"][i, j] * hidden
                    total += beta * theta * flows["attention"][i, j] * attention
            s, t = output.logits[real], np.asarray(target.logits)[real]
            log_soft = lambda x: x - np.log(np.exp(x).sum(-1, keepdims=True))
            soft = -np.mean(np.exp(log_soft(t / 2.0)) * log_soft(s / 2.0)) * 4.0
            hard = -np.mean(np.take_along_axis(log_soft(s), batch["labels"][real][:, None], 1))
            return float(total + alpha * soft + (1 - alpha) * hard)

        assert history[0]["loss"] == pytest.approx(loss(wide(params)), rel=1e-5)
        rng = np.random.default_rng(0)
        direction = jax.tree.map(lambda leaf: rng.standard_normal(np.shape(leaf)), params)
        shifted = lambda size: jax.tree.map(
            lambda leaf, d: np.asarray(leaf, np.float64) + size * d, params, direction
        )
        slope = (loss(shifted(1e-5)) - loss(shifted(-1e-5))) / 2e-5
    # SGD with rate 0.1: the update is the gradient.
    gradient = jax.tree.map(lambda before, after: (before - after) / 0.1, params, state.params)
    along = sum(
        float(np.sum(g * d))
        for g, d in zip(jax.tree.leaves(gradient), jax.tree.leaves(direction), strict=True)
    )
    assert along == pytest.approx(slope, rel=1e-3)


@pytest.mark.parametrize("separate", [False, True])
def test_learned_layer_weights_follow_the_gradient_of_the_exact_transport_cost(separate):
    """Against central differences through the network simplex, in float64."""
    flags = config(
        layer_weight_rule="learned", layer_weight_entropy=0.3, separate_layer_weights=separate, theta=0.8
    )
    state, history = run_steps(flags, 1, steps=3)
    before, _ = run_steps(flags, 1, steps=2)
    logits = {
        (kind, side): np.float64(leaf)
        for kind, sides in before.params[LAYER_WEIGHT_LOGITS].items()
        for side, leaf in sides.items()
    }
    costs = {kind: of_cost(history[2], kind).cost[0].astype(np.float64) for kind in ("attention", "hidden")}
    solved = {kind: np.sum(of_cost(history[2], kind).flow[0] * cost) for kind, cost in costs.items()}

    def loss(logits) -> float:
        if not separate:
            logits = {
                (kind, side): (logits["attention", side] + logits["hidden", side]) / 2
                for kind in costs
                for side in ("student", "teacher")
            }
        weights = {name: np.exp(leaf) / np.exp(leaf).sum() for name, leaf in logits.items()}
        total = 0.0
        for kind, cost in costs.items():
            sides = weights[kind, "student"], weights[kind, "teacher"]
            divergence = sum(np.sum(side * np.log(side * len(side))) for side in sides)
            total += network_simplex(cost, *sides).cost + 0.3 * solved[kind] * divergence
        return flags.prediction.beta * flags.layers.theta * total

    after = state.params[LAYER_WEIGHT_LOGITS]
    for (kind, side), leaf in logits.items():
        for layer in range(len(leaf)):
            step = 1e-5 * np.eye(len(leaf))[layer]
            above, below = (logits | {(kind, side): leaf + sign * step} for sign in (1, -1))
            slope = (loss(above) - loss(below)) / 2e-5
            # SGD with rate 0.1: the update is the gradient.
            assert (leaf[layer] - after[kind][side][layer]) / 0.1 == pytest.approx(slope, rel=1e-3, abs=1e-6)
    expected = learned_layer_weights([after["attention"], after["hidden"]], separate)
    assert_trees_close(state.method.weights, expected, 1e-6)
    assert np.ptp(state.method.weights[0].student) > 1e-3


def test_each_term_can_be_left_out():
    _, history = run_steps(config(), 1, steps=1)
    full = history[0]
    layers = 0.5 * (full["attention_loss"] + full["hidden_loss"] + full["embedding_loss"])
    assert full["loss"] == pytest.approx(layers + full["prediction_loss"], rel=1e-5)
    for flags, remaining in [
        ({"mapping": "none"}, full["prediction_loss"]),
        ({"objective": "prediction"}, full["prediction_loss"]),
        (
            {"objective": "intermediate", "use_attention": False},
            0.5 * (full["hidden_loss"] + full["embedding_loss"]),
        ),
        (
            {"objective": "intermediate", "use_hidden": False},
            0.5 * (full["attention_loss"] + full["embedding_loss"]),
        ),
        (
            {"objective": "intermediate", "use_embedding": False},
            0.5 * (full["attention_loss"] + full["hidden_loss"]),
        ),
    ]:
        trainer = trainer_of(config(**flags))
        loss = pmap_on(lambda *arguments, trainer=trainer: trainer.update(*arguments)[1]["loss"], 1)
        state, constants = trainer.initial_state(), trainer.constants(0)
        assert loss(state, constants, split(uneven_batch(), 1)) == pytest.approx(remaining, rel=1e-4), flags


def test_exact_mapping_equals_sinkhorn_where_that_is_exact():
    _, emd = run_steps(config(), 1, steps=2)
    _, exact = run_steps(config(mapping="emd_exact"), 2, steps=2)
    np.testing.assert_allclose([row["loss"] for row in exact], [row["loss"] for row in emd], rtol=1e-5)
    assert (exact[1]["plans"].gap < 1e-5).all()


def test_fillers_alone_do_not_break_the_step():
    made = Steps(config(mapping="uniform"), 8, micro_batches=1, brings_outputs=False)
    made.make(1, rows=8, fillers=7)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(made.states[0].params))
    assert np.isfinite(made.history[0]["loss"])


def test_the_step_lowers_for_tpu_and_cuda():
    """The whole pmapped step, transport included, without such a device."""
    trainer = trainer_of(config())
    export = jax.export.export(jax.jit(trainer.compiled_step), platforms=["tpu", "cuda"])
    batch = split(uneven_batch(), jax.device_count())
    exported = export(trainer.initial_state(), jax.device_get(trainer.constants(0)), batch)
    assert exported.platforms == ("tpu", "cuda")
    assert exported.nr_devices == jax.device_count()


@pytest.mark.parametrize("mapping", ["emd", "emd_exact"])
def test_a_step_that_is_not_finite_leaves_the_state_as_it_was(mapping):
    trainer = trainer_of(config(mapping=mapping))
    step, state = trainer.compiled_step, trainer.initial_state()
    batch = split(uneven_batch(), jax.device_count())
    good = jax.device_get(trainer.constants(0))
    bad = jax.tree.map(np.copy, good)
    bad.teacher["bert"]["layer_1"]["output"]["bias"][3] = np.nan

    before, _ = jax.device_get(step(replicate(state), replicate(good), batch))
    after, measured = jax.device_get(step(replicate(before), replicate(bad), batch))
    assert np.isnan(measured["loss"])
    assert (after.step, after.bad_steps, measured["bad_steps"]) == (2, 1, 1)
    unchanged = after.replace(step=before.step, bad_steps=before.bad_steps)
    jax.tree.map(np.testing.assert_array_equal, unchanged, before)
    recovered, measured = jax.device_get(step(replicate(after), replicate(good), batch))
    assert (recovered.step, recovered.bad_steps) == (3, 0)
    assert np.isfinite(measured["loss"])
    assert np.isfinite(np.concatenate([leaf.ravel() for leaf in jax.tree.leaves(recovered.params)])).all()
