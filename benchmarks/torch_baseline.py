"""The published BERT-EMD loop in PyTorch, as a baseline; `throughput.py` runs it beside ours.

    python benchmarks/torch_baseline.py [--batch_size 32] [--max_seq_length 128] [--steps 3]

It does what the authors' code does in a step: every sentence padded to the maximum length, the teacher run
anew, the squared differences of every student and teacher layer as a mean of its own, both plans solved on
the host by an exact solver (POT), cost attention in NumPy, BertAdam. The models are those of transformers,
with an attention function that returns the raw scores. Where the authors lose time without need, this loop
does not: it has no dropout in the teacher, masks the scores once per layer instead of once per pair, solves
the S x T problem instead of an (S + T)² one, and reads one loss back to the host instead of five.
"""

import argparse
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import ot
import torch
import transformers
from transformers.modeling_utils import AttentionInterface

from bert_emd_jax.models.encoder_config import EncoderConfig

RAW_SCORES = "raw_scores"


def attention_with_raw_scores(module, query, key, value, attention_mask, scaling, dropout=0.0, **_):
    """As transformers' eager attention, but the second result is QKᵀ/√d before mask and softmax."""
    scores = query @ key.transpose(2, 3) * scaling
    probabilities = torch.softmax(scores if attention_mask is None else scores + attention_mask, dim=-1)
    probabilities = torch.nn.functional.dropout(probabilities, dropout, module.training)
    return (probabilities @ value).transpose(1, 2).contiguous(), scores


AttentionInterface.register(RAW_SCORES, attention_with_raw_scores)


def torch_model(config: EncoderConfig) -> transformers.BertForSequenceClassification:
    """A classifier with random weights that returns the raw attention scores."""
    values = transformers.BertConfig(**config.to_dict())
    values._attn_implementation = RAW_SCORES
    return transformers.BertForSequenceClassification(values)


class Outputs(NamedTuple):
    """hidden_states: the embeddings and every layer's (R, L, W); scores: raw attention (R, H, L, L)."""

    hidden_states: list[torch.Tensor]
    scores: list[torch.Tensor]
    logits: torch.Tensor


def outputs(model: Any, **inputs: torch.Tensor) -> Outputs:
    """Runs a classifier's modules in turn: transformers gathers outputs by hooks, which break a graph."""
    states = model.bert.embeddings(input_ids=inputs["input_ids"], token_type_ids=inputs["token_type_ids"])
    hidden_states, all_scores = [states], []
    padding = 1 - inputs["attention_mask"][:, None, None, :].to(states.dtype)
    mask = padding * torch.finfo(states.dtype).min
    for layer in model.bert.encoder.layer:
        context, scores = layer.attention.self(states, attention_mask=mask)
        attended = layer.attention.output(context, states)
        states = layer.output(layer.intermediate(attended), attended)
        hidden_states.append(states)
        all_scores.append(scores)
    logits = model.classifier(model.dropout(model.bert.pooler(states)))
    return Outputs(hidden_states, all_scores, logits)


def tensors(batch: Mapping[str, np.ndarray], device: str) -> dict[str, torch.Tensor]:
    """A batch of `EncodedDataset.collate` for torch."""
    return {name: torch.from_numpy(values).to(device) for name, values in batch.items()}


class BertAdam(torch.optim.Optimizer):
    """The authors' optimizer: no bias correction, decoupled decay, each tensor clipped by its own norm."""

    def __init__(self, groups, learning_rate: float = 3e-5):
        super().__init__(groups, {"lr": learning_rate})

    @torch.no_grad()
    def step(self, closure=None):  # pyright: ignore[reportIncompatibleMethodOverride]
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state["mean"] = torch.zeros_like(parameter)
                    state["square"] = torch.zeros_like(parameter)
                torch.nn.utils.clip_grad_norm_(parameter, 1.0)
                state["mean"].mul_(0.9).add_(parameter.grad, alpha=0.1)
                state["square"].mul_(0.999).addcmul_(parameter.grad, parameter.grad, value=0.001)
                update = state["mean"] / (state["square"].sqrt() + 1e-6)
                parameter.add_(update.add_(parameter, alpha=group["weight_decay"]), alpha=-group["lr"])


class Baseline:
    """Models, optimizer and layer weights of the published loop; `step` trains on one batch."""

    def __init__(
        self,
        student: EncoderConfig,
        teacher: EncoderConfig,
        *,
        regression: bool = False,
        beta: float = 0.01,
        theta: float = 1.0,
        autocast: bool = False,
        device: str = "cuda" if torch.cuda.is_available() else "cpu",
    ):
        """`autocast`: forward passes and losses in bfloat16, as torch chooses."""
        torch.manual_seed(0)
        self.autocast = autocast
        self.device, self.regression, self.beta, self.theta = device, regression, beta, theta
        self.student = torch_model(student).to(device).train()  # pyright: ignore[reportArgumentType]
        self.teacher = torch_model(teacher).to(device).eval()  # pyright: ignore[reportArgumentType]
        self.fit_dense = torch.nn.Linear(student.hidden_size, teacher.hidden_size).to(device)
        self.optimizer = BertAdam(self._parameter_groups())
        layers = student.num_hidden_layers, teacher.num_hidden_layers
        self.layer_weights = {
            kind: tuple(np.full(count, 1 / count) for count in layers) for kind in ("attention", "hidden")
        }

    def _parameter_groups(self) -> list[dict]:
        named = [*self.student.named_parameters(), *self.fit_dense.named_parameters()]

        def decays(name: str) -> bool:
            return not name.endswith("bias") and "LayerNorm" not in name

        return [
            {"params": [value for name, value in named if decays(name)], "weight_decay": 0.01},
            {"params": [value for name, value in named if not decays(name)], "weight_decay": 0.0},
        ]

    def step(self, batch: Mapping[str, np.ndarray]) -> float:
        """One optimizer step; returns the loss."""
        values = tensors(batch, self.device)
        inputs = {name: values[name] for name in ("input_ids", "attention_mask", "token_type_ids")}
        with torch.autocast(self.device, torch.bfloat16, enabled=self.autocast):
            costs, embedding_loss, prediction_loss = self.forward(inputs)
        mapped_loss = sum(self.mapped_loss(kind, cost) for kind, cost in costs.items())
        shared = [np.mean(sides, axis=0) for sides in zip(*self.layer_weights.values(), strict=True)]
        self.layer_weights = dict.fromkeys(self.layer_weights, tuple(shared))
        loss = self.beta * (self.theta * mapped_loss + embedding_loss) + prediction_loss
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss.item()

    def forward(
        self, inputs: dict[str, torch.Tensor]
    ) -> tuple[dict[str, torch.Tensor], torch.Tensor, torch.Tensor]:
        """Both models: the costs of all pairs of layers by kind, means over padding too, and other losses."""
        student = outputs(self.student, **inputs)
        with torch.no_grad():
            teacher = outputs(self.teacher, **inputs)
        # float32 on the CPU compares slowly with a broadcast bool mask; a product does the same.
        keys = inputs["attention_mask"][:, None, None, :].float()
        hidden = [self.fit_dense(states) for states in student.hidden_states]
        costs = {
            "attention": pairwise_costs(
                *([scores * keys for scores in model.scores] for model in (student, teacher))
            ),
            "hidden": pairwise_costs(hidden[1:], teacher.hidden_states[1:]),
        }
        embedding_loss = torch.nn.functional.mse_loss(hidden[0], teacher.hidden_states[0])
        return costs, embedding_loss, self.prediction_loss(student.logits, teacher.logits)

    def prediction_loss(self, student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
        """The authors' defaults: alpha 1 and temperature 1, so the teacher's predictions alone."""
        if self.regression:
            return torch.nn.functional.mse_loss(student, teacher)
        return (-torch.softmax(teacher, dim=-1) * torch.log_softmax(student, dim=-1)).mean()

    def mapped_loss(self, kind: str, cost: torch.Tensor) -> torch.Tensor:
        """Σ flow · cost over all pairs of layers, and the update of these layer weights."""
        on_host = cost.detach().cpu().numpy().astype(np.float64)
        sides = self.layer_weights[kind]
        flow = ot.emd(*sides, on_host)  # pyright: ignore[reportCallIssue]
        spent = flow * on_host
        self.layer_weights[kind] = tuple(
            _normalized_inverse(spent.sum(axis) / weights)
            for axis, weights in zip((1, 0), sides, strict=True)
        )
        return torch.sum(torch.as_tensor(flow, dtype=cost.dtype, device=cost.device) * cost)


class CompiledBaseline(Baseline):
    """The loop as somebody would write it today who knows torch well: what a card should be compared with.

    Models, losses and costs are one compiled function in bfloat16, the teacher's weights as well, and the
    optimizer is torch's fused one with one norm for all gradients. Fused attention (sdpa) cannot be used: it
    returns no scores, and all models' scores are needed.
    """

    def __init__(self, student: EncoderConfig, teacher: EncoderConfig, **options):
        super().__init__(student, teacher, autocast=True, **options)
        self.teacher.to(torch.bfloat16)  # pyright: ignore[reportArgumentType]
        self.forward = torch.compile(self.forward)
        self.optimizer = ClippedAdamW(self._parameter_groups(), lr=3e-5, fused=True)


class ClippedAdamW(torch.optim.AdamW):
    """Adam with decoupled decay; gradients are clipped by their common norm."""

    @torch.no_grad()
    def step(self, closure=None):  # pyright: ignore[reportIncompatibleMethodOverride]
        parameters = [parameter for group in self.param_groups for parameter in group["params"]]
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        return super().step(closure)


def pairwise_costs(student: Sequence[torch.Tensor], teacher: Sequence[torch.Tensor]) -> torch.Tensor:
    """The mean squared difference of every student and teacher layer."""
    return torch.stack(
        [torch.stack([torch.nn.functional.mse_loss(one, other) for other in teacher]) for one in student]
    )


def _normalized_inverse(unit_costs: np.ndarray) -> np.ndarray:
    """Cost attention: weights in inverse proportion to the unit costs; a layer without cost gets none."""
    inverse = np.divide(1.0, unit_costs, out=np.zeros_like(unit_costs), where=unit_costs != 0)
    return inverse / inverse.sum()


def main() -> None:
    from measuring import STUDENT, TEACHER  # beside this file; not needed where the class is imported

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--max_seq_length", type=int, default=128)
    parser.add_argument("--steps", type=int, default=3)
    args = parser.parse_args()
    baseline = Baseline(STUDENT, TEACHER)
    shape = (args.batch_size, args.max_seq_length)
    batch = {
        "input_ids": np.random.default_rng(0).integers(1000, 30000, shape),
        "attention_mask": np.ones(shape, np.int64),
        "token_type_ids": np.zeros(shape, np.int64),
    }
    print(f"torch {torch.__version__}, transformers {transformers.__version__}, {baseline.device}")
    for step in range(args.steps + 1):  # the first also allocates
        start = time.perf_counter()
        loss = baseline.step(batch)
        seconds = time.perf_counter() - start
        rate = args.batch_size / seconds
        print(f"step {step}: loss {loss:.4f}, {seconds:.2f} s, {rate:.2f} examples/s", flush=True)


if __name__ == "__main__":
    main()
