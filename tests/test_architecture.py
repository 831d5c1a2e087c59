"""The shape of the code: who imports whom, style, types, docstrings, and nothing of one machine in it."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("utils", "datasets", "BrainAgeNetworks", "figures")
# A folder that only one person or one machine has.
MACHINE_PATH = re.compile(r"(?<![\w.~}])/(?:home|root|Users|work|well|scratch)/\w")


def run_tool(*words: str) -> None:
    done = subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]


def repository_files() -> list[Path]:
    """Files that git knows or would add; without git, everything outside folders that are made."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
    )
    if listed.returncode == 0 and listed.stdout:
        names = [name for name in listed.stdout.decode("utf-8").split("\0") if name]
        return [ROOT / name for name in names if (ROOT / name).is_file()]
    made = {"env", "experiments", "simulated", "__pycache__"}
    return [
        path
        for path in ROOT.rglob("*")
        if path.is_file()
        and not any(p in made or p.startswith(".") for p in path.relative_to(ROOT).parts[:-1])
    ]


def python_files() -> list[Path]:
    return [path for path in repository_files() if path.suffix == ".py"]


def test_who_may_import_whom():
    program = (
        "from importlinter.cli import lint_imports; raise SystemExit(lint_imports(no_cache=True))"
    )
    run_tool("-c", program)


def test_every_package_is_under_the_contracts():
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert f"root_packages = {list(PACKAGES)}".replace("'", '"') in text
    found = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    assert found == set(PACKAGES)
    modes = {path.stem for path in (ROOT / "utils" / "modes").glob("*.py")} - {"__init__"}
    assert all(f'"utils.modes.{mode}"' in text for mode in modes)


@pytest.mark.parametrize("words", [("check",), ("format", "--check")])
def test_ruff(words):
    run_tool("-m", "ruff", *words)


@pytest.mark.skipif(
    not np.__version__.startswith("2.4."),
    reason="NumPy's types differ between its versions; checked with 2.4",
)
def test_mypy_on_settings_and_statistics():
    run_tool(
        "-m", "mypy", "--follow-imports=silent",
        "utils/settings", "utils/association", "utils/evaluation",
    )  # fmt: skip


def test_every_module_says_what_it_is_for():
    files = python_files()
    assert len(files) > 60
    without = [
        str(path.relative_to(ROOT))
        for path in files
        if not ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    ]
    assert without == []


def test_everything_public_has_a_docstring():
    without = []
    for path in python_files():
        relative = path.relative_to(ROOT)
        if relative.parts[0] not in (*PACKAGES, "run.py"):
            continue
        body = ast.parse(path.read_text(encoding="utf-8")).body
        without += [
            f"{relative}:{node.lineno} {node.name}"
            for node in body
            if isinstance(node, (ast.FunctionDef, ast.ClassDef))
            and not node.name.startswith("_")
            and not ast.get_docstring(node)
        ]
    assert without == []


def test_no_file_names_a_folder_of_one_machine():
    found = []
    for path in repository_files():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue  # pictures
        found += [
            f"{path.relative_to(ROOT)}: {text[match.start() : match.start() + 60]!r}"
            for match in MACHINE_PATH.finditer(text)
        ]
    assert found == []


def test_the_search_for_folders_of_a_machine_finds_them():
    for text in ("x = '/ho" + "me/ann/data'", "/wo" + "rk/a", "(/Us" + "ers/b)"):
        assert MACHINE_PATH.search(text)
    for text in (
        "https://github.com/ho" + "me/x",
        "~/wo" + "rk/x",
        "net" + "work/x",
        "a/wo" + "rk/x",
    ):
        assert not MACHINE_PATH.search(text)


def test_no_participant_files_are_in_the_repository():
    endings = (".npy", ".nii", ".gz", ".pt", ".tar")
    # of thirteen subjects made of random numbers
    simulated = ROOT / "tests" / "reference" / "releases"
    found = [path for path in repository_files() if path.name.endswith(endings)]
    assert [path for path in found if simulated not in path.parents] == []


def test_both_templates_and_the_contrast_table_are_where_users_look_for_them():
    for name in ("run.py", "setup.sh", "settings.ini", "settings_eval.ini", "requirements.txt"):
        assert (ROOT / name).is_file()
    assert (ROOT / "datasets" / "scaling_values_simple.csv").is_file()
    direct = [path.name for path in (ROOT / "utils").glob("*.py")]
    assert direct == ["__init__.py"]
