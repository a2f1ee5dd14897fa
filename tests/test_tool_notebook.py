"""docs/prune.ipynb runs as it stands, and holds outputs of the code that it holds."""

import json

import pytest

from tests.support import notebook
from tests.support.scripts import ROOT


@pytest.mark.slow
def test_the_notebook_runs():
    given = json.loads((ROOT / "docs/prune.ipynb").read_text())
    kinds = [[output["output_type"] for output in cell.get("outputs", [])] for cell in given["cells"]]
    done = notebook.run(given)
    assert kinds == [[output["output_type"] for output in cell.get("outputs", [])] for cell in done["cells"]]
    assert any("image/png" in output.get("data", {}) for cell in done["cells"] for output in cell.get("outputs", []))
