"""The least cost that EMD with equal layer weights leaves, whatever the student.

    python benchmarks/plan_floor.py --teacher_model DIR --data_dir DIR [--student_layers 4]

A student layer with mass from several teacher layers can do no better than their weighted mean, and the
spread of these layers around it remains. A plan that leaves little of it is searched from random plans: the
means of the layers that the plan gives, the plan that is cheapest for these means, and so on until nothing
changes. What is printed is the best of many searches, an upper bound of the least.
"""

import argparse
from pathlib import Path

import numpy as np
from jaxtyping import Float

from bert_emd_jax.checkpoints.model_directory import load_model
from bert_emd_jax.data.readers import read_split
from bert_emd_jax.data.tasks import get_task
from bert_emd_jax.encoding.dataset import encode_examples
from bert_emd_jax.models.heads import EncoderWithoutHead, forward
from bert_emd_jax.transport import attention_cost, hidden_cost, network_simplex

Distances = Float[np.ndarray, "T T"]


def spread(distances: Distances, flow: Float[np.ndarray, "S T"]) -> Float[np.ndarray, "S T"]:
    """Returns squared distances of the teacher's layers from the mean that the plan gives each student layer.

    Args:
      distances: squared, between the teacher's layers.
    """
    shares = flow / flow.sum(axis=1, keepdims=True)
    to_shared = shares @ distances
    return to_shared - 0.5 * np.einsum("st,st->s", shares, to_shared)[:, None]


def least_spread(distances: Distances, student_layers: int, searches: int, seed: int = 0) -> float:
    """Returns the least Σ F·spread that was found among plans F with equal layer weights."""
    rng = np.random.default_rng(seed)
    student = np.full(student_layers, 1 / student_layers)
    teacher = np.full(len(distances), 1 / len(distances))
    least = np.inf
    for _ in range(searches):
        flow = network_simplex(rng.random((student_layers, len(distances))), student, teacher).flow
        left, before = float(np.sum(flow * spread(distances, flow))), np.inf
        while left < before - 1e-9 * abs(left):
            flow = network_simplex(spread(distances, flow), student, teacher).flow
            left, before = float(np.sum(flow * spread(distances, flow))), left
        least = min(least, left)
    return least


def layer_distances(args: argparse.Namespace) -> dict[str, Distances]:
    """Returns mean squared differences between teacher layers, of attention scores and of hidden states."""
    model = load_model(args.teacher_model, head="none")
    examples = read_split(get_task(args.task_name, data_dir=args.data_dir), args.data_dir, "train")
    dataset = encode_examples(model.tokenizer, examples, args.max_seq_length)
    rows = np.arange(min(args.rows, len(dataset)))
    batch = dataset.collate(rows, int(dataset.lengths[rows].max()))
    output = forward(EncoderWithoutHead(model.config), model.params, batch)
    scores, states, mask = output.attention_scores, output.hidden_states[1:], batch["attention_mask"]
    return {
        "attention scores": np.asarray(attention_cost(scores, scores, mask), np.float64),
        "hidden states": np.asarray(hidden_cost(states, states, mask), np.float64),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--teacher_model", type=Path, required=True, help="as in run_distill.py")
    parser.add_argument("--data_dir", type=Path, required=True, help="with the rows of a task")
    parser.add_argument("--task_name", default="custom")
    parser.add_argument("--max_seq_length", type=int, default=64)
    parser.add_argument("--rows", type=int, default=64, help="the first so many training rows are read")
    parser.add_argument("--student_layers", type=int, default=4)
    parser.add_argument("--searches", type=int, default=300)
    args = parser.parse_args()
    for kind, distances in layer_distances(args).items():
        least = least_spread(distances, args.student_layers, args.searches)
        between = distances.sum() / (len(distances) * (len(distances) - 1))
        print(f"{kind}: {least:.3g} left; two layers of the teacher differ by {between:.3g} on average")


if __name__ == "__main__":
    main()
