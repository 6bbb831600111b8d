"""Runs the code cells of notebooks one after the other, without IPython: `python run_notebooks.py OUT.json FILE ...`.

`OUT.json` gets what each cell printed, by notebook and by the id of the cell.
"""

import ast
import io
import json
import re
import sys
from contextlib import redirect_stdout
from pathlib import Path

SMALL = {
    "SCENES": 8,
    "SECONDS": 0,
    "STEPS": 2,
    "TRAIN_SCENES": 8,
    "TEST_SCENES": 4,
    "ROUNDS": 1,
    "NEW_TOKENS": 2,
}
"""What stands in the place of the values at the top of a notebook, so that it takes seconds."""
MAGIC = re.compile(r"^(\s*)%.*$", re.MULTILINE)


def python(source):
    """The code of a cell without the lines that only IPython understands."""
    return MAGIC.sub(r"\1pass", source)


def smaller(source):
    """The code of a cell with smaller values."""
    for name, value in SMALL.items():
        source = re.sub(rf"^{name} = \S+", f"{name} = {value}", source, flags=re.MULTILINE)
    return source


def run_cell(source, names, where):
    """Run a cell as a notebook does: if it ends in an expression, its value is printed."""
    *first, last = ast.parse(source).body
    is_value = isinstance(last, ast.Expr) and not source.rstrip().endswith(";")
    exec(compile(ast.Module(first if is_value else [*first, last], []), where, "exec"), names)
    if is_value:
        value = eval(compile(ast.Expression(last.value), where, "eval"), names)
        if value is not None:
            print(repr(value))


def run(path):
    notebook = json.loads(path.read_text(encoding="utf-8"))
    names = {"__name__": "__main__", "display": lambda shown: None}
    printed = {}
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            with redirect_stdout(io.StringIO()) as out:
                run_cell(smaller(python("".join(cell["source"]))), names, f"{path.name}, cell {cell['id']}")
            printed[cell["id"]] = out.getvalue()
    return printed


if __name__ == "__main__":
    output, *files = sys.argv[1:]
    found = {Path(file).stem: run(Path(file)) for file in files}
    Path(output).write_text(json.dumps(found), encoding="utf-8")
