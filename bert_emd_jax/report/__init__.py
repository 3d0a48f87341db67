"""The HTML report of a run."""

from pathlib import Path


def write_report(run_dir: Path) -> Path:
    """Writes `run_dir/report.html` from the files of a run; see `bert_emd_jax.report.html`."""
    from bert_emd_jax.report.html import write_report as write

    return write(run_dir)
