"""Runs the notebook from top to bottom and keeps what it prints and draws: `make notebook`, before a release.

Half an hour on two cores. What says nothing to a reader is left out: the log of pip, progress bars, and the
report, which is as large as its page.
"""

import tempfile
from pathlib import Path
from typing import Any

import nbclient
import nbformat

NOTEBOOK = Path(__file__).with_name("bert_emd_colab.ipynb")
WITHOUT_OUTPUTS = ("install", "report")
FORM = 'SOURCE = ""  #'


def main() -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    install = next(cell for cell in notebook.cells if cell.id == "install")
    source = install.source
    install.source = source.replace(FORM, f'SOURCE = "{NOTEBOOK.parents[1]}"  #')
    with tempfile.TemporaryDirectory() as directory:
        client = nbclient.NotebookClient(
            notebook, timeout=None, kernel_name="python3", resources={"metadata": {"path": directory}}
        )
        client.execute()
        install.source = source
        for cell in notebook.cells:
            if cell.cell_type == "code":
                cell.metadata.pop("execution", None)
                kept = [] if cell.id in WITHOUT_OUTPUTS else cell.outputs
                cell.outputs = [output for output in kept if output.get("name") != "stderr"]
                for output in cell.outputs:
                    as_in_colab(output, directory)
    notebook.metadata.pop("language_info", None)
    nbformat.write(notebook, NOTEBOOK)
    print(f"{NOTEBOOK}: {NOTEBOOK.stat().st_size / 1e3:.0f} kB")


def as_in_colab(output: Any, directory: str) -> None:
    """Names the working directory that Colab has."""
    if "text" in output:
        output.text = output.text.replace(directory, "/content")


if __name__ == "__main__":
    main()
