"""What the files of a run and of a model directory are called."""

CONFIG = "config.json"
PARAMS = "params"
PYTORCH = "pytorch"

CHECKPOINTS = "checkpoints"
RUN_CONFIG = "run_config.json"
METRICS = "metrics.jsonl"
LAYER_MAPPING = "layer_mapping.npz"
RESULTS = "eval_results.json"
DEV_PREDICTIONS = "dev_predictions.jsonl"
TEST_PREDICTIONS = "test_predictions.jsonl"
DEV_SIMILARITIES = "dev_similarities.json"
NONFINITE_STEPS = "bad_steps.json"
TEACHER_OUTPUTS = "teacher_outputs"
TRACE = "trace"
TENSORBOARD = "tensorboard"
WANDB = "wandb"
REPORT = "report.html"

WRITTEN = (
    *(CONFIG, "vocab.txt", "tokenizer.json", "tokenizer_config.json", PARAMS, PYTORCH),
    *(CHECKPOINTS, RUN_CONFIG, METRICS, LAYER_MAPPING, RESULTS, DEV_PREDICTIONS),
    *(
        TEST_PREDICTIONS,
        DEV_SIMILARITIES,
        NONFINITE_STEPS,
        TEACHER_OUTPUTS,
        TRACE,
        TENSORBOARD,
        WANDB,
        REPORT,
    ),
)
"""All that a training program writes to its output directory; --overwrite removes these and nothing else."""
