"""The notebooks of the documents run from their first cell to their last, where nothing was run before."""

from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "docs" / "notebooks"
pytestmark = pytest.mark.slow  # they train


@pytest.mark.parametrize("name", sorted(path.name for path in FOLDER.glob("*.ipynb")))
@pytest.mark.filterwarnings("ignore")  # of what runs notebooks
def test_a_notebook_runs(name, tmp_path):
    nbformat = pytest.importorskip("nbformat", reason="nbclient is not installed")
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    notebook = nbformat.read(FOLDER / name, as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells), "outputs of one machine are not kept"
    nbclient.NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
    last = [cell for cell in notebook.cells if cell.cell_type == "code"][-1]
    assert last.outputs
    if name == "first_steps.ipynb":  # the one idea holds
        assert float(last.outputs[0]["data"]["text/plain"].removeprefix("np.float32(").rstrip(")")) < 1e-5
