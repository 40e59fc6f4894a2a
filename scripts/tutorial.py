"""Runs docs/tutorial.ipynb and keeps its outputs in it."""

from pathlib import Path

import nbformat
from nbclient import NotebookClient

if __name__ == "__main__":
    file = Path(__file__).parents[1] / "docs" / "tutorial.ipynb"
    notebook = nbformat.read(file, as_version=4)
    NotebookClient(notebook, timeout=600, record_timing=False, coalesce_streams=True).execute()
    notebook.metadata.language_info = {"name": "python"}  # not the version that it ran on
    nbformat.write(notebook, file)
