"""What a training program says at its end."""

from pathlib import Path
from typing import Any

from bert_emd_jax.report.html import write_report
from bert_emd_jax.training.hosts import is_main


def report_training(output_dir: Path, results: dict[str, Any]) -> None:
    """Writes `report.html` and prints scores and paths, in the main process."""
    if not is_main():
        return
    report = write_report(output_dir)
    metric = results["primary_metric"]
    for name in ("student", "teacher"):
        if name in results:
            label = name if "teacher" in results else "model"
            print(f"{label}: {metric} {results[name]['metrics'][metric]:.4f} on {results['split']}")
    print(f"model directory: {output_dir}")
    print(f"for transformers: {output_dir / 'pytorch'}")
    print(f"report: {report}")
