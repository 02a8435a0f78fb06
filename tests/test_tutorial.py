"""The notebook docs/tutorial.ipynb runs from its first cell to its last, in a fresh kernel."""

import json
import re
from pathlib import Path

import pytest

from tests.support.studies import ROUGH_FLAGS

ROOT = Path(__file__).parents[1]
NOTEBOOK = ROOT / "docs/tutorial.ipynb"
GROWS = "grow"  # the tag of cells that add seeds to a finished run


def cells_of(kind):
    return [cell for cell in json.loads(NOTEBOOK.read_text())["cells"] if cell["cell_type"] == kind]


def test_it_is_stored_without_outputs():
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in cells_of("code"))


def test_its_links_lead_somewhere():
    links = [link for cell in cells_of("markdown") for link in re.findall(r"\]\(([^)#]+)", "".join(cell["source"]))]
    assert len(links) > 3 and [link for link in links if not (NOTEBOOK.parent / link).exists()] == []


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    """The code cells after they ran in an empty folder; a cell that fails does not stop the others."""
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    place = {"metadata": {"path": str(tmp_path_factory.mktemp("notebook"))}}
    kernel = {"timeout": 600, "kernel_name": "python3", "allow_errors": True, "resources": place}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XLA_FLAGS", ROUGH_FLAGS)
        nbclient.NotebookClient(notebook, **kernel).execute()
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def outputs(cells, kind):
    return [output for cell in cells for output in cell.outputs if output.output_type == kind]


def grows(cell):
    return GROWS in cell.metadata.get("tags", ())


@pytest.mark.slow
def test_its_cells_run(executed):
    cells = [cell for cell in executed if not grows(cell)]
    assert [output.evalue for output in outputs(cells, "error")] == []
    assert [output.text for output in outputs(cells, "stream") if output.name == "stderr"] == []  # no noise
    assert sum("image/png" in output.data for output in outputs(cells, "execute_result")) >= 2


@pytest.mark.slow
def test_its_progress_is_a_few_lines(executed):
    shown = [output.data["text/plain"] for output in outputs(executed[:1], "display_data")]
    assert len(shown) == 1 and 2 <= len(shown[0].splitlines()) <= 4


@pytest.mark.slow
def test_its_study_grows(executed):
    assert [output.evalue for output in outputs(filter(grows, executed), "error")] == []
