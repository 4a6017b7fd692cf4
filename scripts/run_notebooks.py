"""`python -m scripts.run_notebooks [NAME ...]`: executes the notebooks and saves them with their pictures.

python -m scripts.run_notebooks                      # all of inference/*.ipynb, with the weights they name
python -m scripts.run_notebooks text_to_image        # one

They name the demo's weights (`make demo demo-adapters`). A notebook that fails is left as it was; the exit
status is then 1. `execute` and `with_parameters` are what the tests run notebooks with.
"""

import ast
import hashlib
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbformat import NotebookNode

from dataset_tools.progress import progress_bar
from modules.command_lines import Parser
from modules.schema import one_line

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "inference"
TAG = "parameters"  # of the one cell with settings
TIME_LIMIT_S = 1800  # of a cell
START_LIMIT_S = 600  # of a kernel, on a machine that is busy
# The first cell of code in every notebook.
START = """\
import os
import sys
from pathlib import Path

ROOT = next(folder for folder in (Path.cwd(), *Path.cwd().parents) if (folder / "pyproject.toml").is_file())
os.chdir(ROOT)  # from here on, paths are those of the command line
sys.path.insert(0, str(ROOT))"""
FAILURE, MISTAKE = 1, 2  # exit status


def main(arguments: Sequence[str]) -> int:
    """Run the command line; returns the exit status."""
    parser = Parser(prog="python -m scripts.run_notebooks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="of a notebook (default: all)")
    known = {path.stem: path for path in sorted(FOLDER.glob("*.ipynb"))}
    names = [Path(name).stem for name in parser.parse_args(arguments).names] or list(known)
    for name in names:
        if name not in known:
            print(f"error: no notebook {name!r}; there are: {', '.join(known)}", file=sys.stderr)
            return MISTAKE
    return max([renew(known[name]) for name in names], default=0)


def renew(path: Path) -> int:
    """Execute a notebook and save it with its outputs; returns the exit status. A failed one is not saved."""
    notebook = read(path)
    try:
        with progress_bar(path.name, sum(cell.cell_type == "code" for cell in notebook.cells)) as advance:
            execute(notebook, on_cell_complete=lambda **_: advance(1))
    except CellExecutionError as error:
        print(f"error: {path.name}: {failed_line(notebook)}{error.ename}: {error.evalue}", file=sys.stderr)
        return FAILURE
    except (CellTimeoutError, DeadKernelError) as error:
        print(f"error: {path.name}: {one_line(error)}", file=sys.stderr)
        return FAILURE
    scrub(notebook)
    text = nbformat.writes(notebook) + "\n"
    path.write_text(text, encoding="utf-8", newline="\n")
    print(f"{path.relative_to(ROOT)}: {len(notebook.cells)} cells, {len(text.encode()) / 1000:.0f} kB")
    return 0


def failed_line(notebook: NotebookNode) -> str:
    """Where a notebook failed: number and first line of the cell."""
    for number, cell in enumerate(notebook.cells, start=1):
        if any(output.output_type == "error" for output in cell.get("outputs", ())):
            return f"cell {number} ({cell.source.splitlines()[0]}): "
    return ""


def read(path: Path) -> NotebookNode:
    """A notebook's file; ValueError unless it is a valid one."""
    notebook = nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]
    nbformat.validate(notebook)
    return notebook


def parameters_cell(notebook: NotebookNode) -> NotebookNode:
    """The cell with the settings; ValueError unless there is exactly one."""
    cells = [cell for cell in notebook.cells if TAG in cell.metadata.get("tags", ())]
    if len(cells) != 1:
        raise ValueError(f"expected one cell with the tag {TAG!r}, found {len(cells)}")
    return cells[0]


def with_parameters(notebook: NotebookNode, values: Mapping[str, Any]) -> NotebookNode:
    """The notebook with other values for settings; ValueError for one that its cell does not have."""
    cell = parameters_cell(notebook)
    found = [node for node in ast.walk(ast.parse(cell.source)) if isinstance(node, ast.Name)]
    names = {name.id for name in found if isinstance(name.ctx, ast.Store)}
    if unknown := sorted(values.keys() - names):
        raise ValueError(f"no settings of this notebook: {', '.join(unknown)}; there are: {sorted(names)}")
    cell.source += "".join(f"\n{name} = {value!r}" for name, value in values.items())
    return notebook


def execute(notebook: NotebookNode, folder: Path = FOLDER, **options: Any) -> NotebookNode:
    """Run all cells in a kernel of this Python that starts in a folder; CellExecutionError if one fails.

    options: of NotebookClient.
    """
    client = NotebookClient(
        notebook,
        timeout=TIME_LIMIT_S,
        startup_timeout=START_LIMIT_S,
        kernel_name="python3",
        resources={"metadata": {"path": str(folder)}},
        record_timing=False,
        # Each kernel would warn that it talks by TCP on this machine, as all kernels do by default.
        extra_arguments=["--IPKernelApp.log_level=ERROR"],
        **options,
    )
    client.execute()
    return notebook


def scrub(notebook: NotebookNode) -> None:
    """Leave nothing of this machine in a notebook, and note which code its outputs are of."""
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
        "executed": fingerprint(notebook),
    }
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            if "text" in output:
                output.text = without_paths(output.text)
            for kind, data in output.get("data", {}).items():
                if isinstance(data, str) and kind.startswith("text/"):
                    output.data[kind] = without_paths(data)


def without_paths(text: str) -> str:
    """A text in which paths of the project's files begin in its folder."""
    return text.replace(f"{ROOT}{os.sep}", "").replace(str(ROOT), ".")


def fingerprint(notebook: NotebookNode) -> str:
    """A short checksum of the code of a notebook."""
    code = "\0".join(cell.source for cell in notebook.cells if cell.cell_type == "code")
    return hashlib.sha256(code.encode()).hexdigest()[:16]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
