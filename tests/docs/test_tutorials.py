"""The tutorials run, use only documented names, and an error in one is reported with its file and cell."""

import ast
import os
import re
from pathlib import Path

import pytest
from example_shell import make_shell
from test_generated_reference import PATHS
from test_pages import ROOT, find_slips

import speechrnn

myst_nb = pytest.importorskip("myst_nb.core.read", reason="needs the extra docs")
nbclient = pytest.importorskip("nbclient", reason="needs the extra docs")

TUTORIALS = sorted((ROOT / "docs" / "tutorials").glob("*.md"))
LIMIT_SECONDS = 300 * (1 + int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")))


def read_notebook(path: Path):
    return myst_nb.read_myst_markdown_notebook(path.read_text(encoding="utf-8"), path=path)


def read_cells(path: Path) -> list[str]:
    return [cell.source for cell in read_notebook(path).cells if cell.cell_type == "code"]


def execute(path: Path, folder: Path, seconds: int = LIMIT_SECONDS) -> None:
    """Run a notebook in a folder.

    Raises:
        AssertionError: A cell failed; the message names the notebook and holds the cell and the error.
    """
    notebook = read_notebook(path)
    client = nbclient.NotebookClient(
        notebook, timeout=seconds, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
    )
    try:
        client.execute()
    except (nbclient.exceptions.CellExecutionError, nbclient.exceptions.CellTimeoutError) as error:
        raise AssertionError(f"{path.name}: {error}") from error


def split_cell(source: str) -> tuple[str, str]:
    """A cell's Python, and its shell commands with names for what Python fills in."""
    commands = "\n".join(re.findall(r"^ *!(.+)$", source, flags=re.MULTILINE))
    return re.sub(r"^( *)!.+$", r"\1pass", source, flags=re.MULTILINE), re.sub(r"\{.+?\}", "x", commands)


def find_undocumented(path: Path) -> set[str]:
    """Names that a tutorial imports from speechrnn, or from modules of it, that the Python reference lacks."""
    known = {f"speechrnn.{name}" for name in speechrnn.__all__} | set(PATHS)
    nodes = [node for source in read_cells(path) for node in ast.walk(ast.parse(split_cell(source)[0]))]
    used = {
        f"{node.module}.{alias.name}"
        for node in nodes
        if isinstance(node, ast.ImportFrom) and str(node.module).partition(".")[0] == "speechrnn"
        for alias in node.names
    }
    used |= {
        f"speechrnn.{node.attr}"
        for node in nodes
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "speechrnn"
    }
    return used - known


def test_there_are_three_tutorials_in_the_table_of_contents():
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    assert {path.stem for path in TUTORIALS} == set(re.findall(r"^tutorials/(\w+)$", index, flags=re.MULTILINE))
    assert len(TUTORIALS) == 3


@pytest.mark.parametrize("path", TUTORIALS, ids=lambda path: path.stem)
def test_a_tutorial_uses_documented_names_and_existing_commands(path):
    assert not find_undocumented(path)
    assert not [slip for source in read_cells(path) for slip in find_slips(split_cell(source)[1])]


def test_an_undocumented_name_is_found(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "# x\n\n```{code-cell}\nfrom speechrnn.types import derive_seed\nspeechrnn.load, speechrnn.x\n```\n"
    )
    assert find_undocumented(page) == {"speechrnn.types.derive_seed", "speechrnn.x"}


@pytest.mark.slow
def test_a_failing_cell_is_named(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# x\n\n```{code-cell}\nvalue = 1\n```\n\n```{code-cell}\nvalue.wrong()\n```\n")
    with pytest.raises(AssertionError, match=r"(?s)^page\.md: .*value\.wrong\(\).*AttributeError"):
        execute(page, tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(2 * LIMIT_SECONDS)
@pytest.mark.parametrize("path", TUTORIALS, ids=lambda path: path.stem)
def test_a_tutorial_runs(path, tmp_path, tmp_path_factory, monkeypatch):
    shell = make_shell(tmp_path_factory.mktemp("bin"))
    for name in ("PATH", "PYTHONPATH"):
        monkeypatch.setenv(name, shell[name])
    for name in ("recipes", "pyproject.toml"):
        (tmp_path / name).symlink_to(ROOT / name)
    execute(path, tmp_path)
