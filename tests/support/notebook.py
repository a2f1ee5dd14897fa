"""Runs the cells of a notebook, as Jupyter does, without Jupyter.

python -m tests.support.notebook docs/prune.ipynb      # runs it and writes its outputs into it
"""

import ast
import base64
import contextlib
import io
import json
import sys
from pathlib import Path

from matplotlib.figure import Figure


def run(notebook: dict) -> dict:
    """The notebook with the outputs of its cells: what they print, and the value of an expression in the last line."""
    names, number = {"__name__": "__main__"}, 0
    for cell in notebook["cells"]:
        if cell["cell_type"] != "code":
            continue
        number += 1
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            value = _execute("".join(cell["source"]), names)
        cell["execution_count"], cell["outputs"] = number, []
        if printed.getvalue():
            text = printed.getvalue().splitlines(keepends=True)
            cell["outputs"].append({"name": "stdout", "output_type": "stream", "text": text})
        if value is not None:
            data = {"data": _shown(value), "execution_count": number, "metadata": {}, "output_type": "execute_result"}
            cell["outputs"].append(data)
    return notebook


def _execute(source: str, names: dict):
    code = ast.parse(source)
    last = code.body.pop() if isinstance(code.body[-1], ast.Expr) else None
    exec(compile(code, "cell", "exec"), names)
    return eval(compile(ast.Expression(last.value), "cell", "eval"), names) if last else None


def _shown(value) -> dict:
    if not isinstance(value, Figure):
        return {"text/plain": repr(value).splitlines(keepends=True)}
    picture = io.BytesIO()
    value.savefig(picture, format="png", dpi=90)
    return {"image/png": base64.b64encode(picture.getvalue()).decode(), "text/plain": ["<Figure>"]}


if __name__ == "__main__":
    path = Path(sys.argv[1])
    done = run(json.loads(path.read_text()))
    path.write_text(json.dumps(done, indent=1, ensure_ascii=False) + "\n")
