"""Imports point one way: cli, api, simulation, report, jobs, stages, tools, store, models, numerics."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
# A module may import modules of a lower level, and of its own where the level is shared.
LEVELS = {
    "pipelines.numerics": 0,
    "pipelines.errors": 0,
    "pipelines.contracts": 0,
    "pipelines.text": 0,
    # What makes two spellings one name, for task files, too.
    "pipelines.verdicts.names": 0,
    "pipelines.console": 1,
    # What a task file says of an ad is checked where it is read.
    "pipelines.sources.base": 1,
    "pipelines.sources.fields": 1,
    "models": 2,
    "pipelines.config": 3,
    "pipelines.store": 4,
    "pipelines.sources": 5,
    "pipelines.verdicts": 6,
    "pipelines.tools": 7,
    "pipelines.strategies.items": 7,
    "pipelines.handlers": 8,
    "pipelines.strategies": 8,
    "pipelines.stages": 8,
    "pipelines.jobs": 9,
    "pipelines.report": 10,
    "pipelines.simulation": 11,
    "pipelines.api": 12,
    "pipelines.options": 13,
    "pipelines.cli": 14,
}
MODULES = sorted(
    path for folder in ("pipelines", "models") for path in (ROOT / folder).rglob("*.py")
)


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def level_of(module: str) -> int | None:
    found = [known for known in LEVELS if module == known or module.startswith(f"{known}.")]
    return LEVELS[max(found, key=len)] if found else None


def imports_of(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: relative import"
            names.add(node.module)
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return names


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_point_down(path: Path) -> None:
    module = name_of(path)
    if module == "pipelines":
        assert path.read_text().strip() == "", "pipelines/__init__.py stays empty"
        return
    own = level_of(module)
    assert own is not None, f"{module} has no level: give it one in this test"
    for imported in imports_of(path):
        other = level_of(imported)
        if other is not None:
            assert other <= own, f"{module} imports {imported}, which stands above it"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_leaves_are_free_of_beam_and_tensorflow(path: Path) -> None:
    module, imported = name_of(path), imports_of(path)
    roots = {name.split(".")[0] for name in imported}
    if module.startswith("models"):
        assert "apache_beam" not in roots
        own = {name for name in imported if name.startswith("pipelines")}
        leaves = ("pipelines.numerics", "pipelines.contracts")
        leaves += ("pipelines.console.progress", "pipelines.console.visible", "pipelines.errors")
        assert all(name.startswith(leaves) for name in own)
    if module.startswith("pipelines.numerics"):
        allowed = {"numpy", "scipy", "sklearn", "threadpoolctl", "pipelines"}
        allowed |= {"crowdkit", "pandas"}
        assert roots <= allowed | set(sys.stdlib_module_names)
    if module == "pipelines.contracts":
        assert roots <= {"pyarrow"} | set(sys.stdlib_module_names)


def set_from_outside(source: str, own_modules: set[str]) -> list[str]:
    """Return the assignments to attributes of imported modules of ours: ``handlers.memory = x``."""
    tree = ast.parse(source)
    modules: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules.update(a.asname or a.name for a in node.names if a.name in own_modules)
        elif isinstance(node, ast.ImportFrom):
            modules.update(
                alias.asname or alias.name
                for alias in node.names
                if f"{node.module}.{alias.name}" in own_modules
            )
    found = []
    for node in ast.walk(tree):
        is_write = isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store | ast.Del)
        if is_write and ast.unparse(node.value) in modules:
            found.append(ast.unparse(node))
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("setattr", "delattr"):
            found += [ast.unparse(node)] * (ast.unparse(node.args[0]) in modules)
    return found


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_no_module_sets_a_global_of_another(path: Path) -> None:
    # What one run needs is handed down: a global would hold for every other run of the process.
    own = {name_of(other) for other in MODULES}
    assert set_from_outside(path.read_text(encoding="utf-8"), own) == []


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("handlers.memory = 1", ["handlers.memory"]),
        ("handlers.memory += 1", ["handlers.memory"]),
        ("handlers.memory: int = 1", ["handlers.memory"]),
        ("del handlers.memory", ["handlers.memory"]),
        ("with open('x') as handlers.memory: pass", ["handlers.memory"]),
        ("setattr(handlers, 'memory', 1)", ["setattr(handlers, 'memory', 1)"]),
        ("pipelines.config.x = 1", ["pipelines.config.x"]),
        ("other.memory = handlers.memory", []),
        ("self.handlers = handlers", []),
    ],
)
def test_the_rule_sees_every_way_to_set_a_global(line: str, found: list[str]) -> None:
    imports = "import pipelines.config\nfrom pipelines import handlers\n"
    assert set_from_outside(imports + line, {name_of(path) for path in MODULES}) == found


def test_the_command_starts_without_heavy_libraries() -> None:
    # `scout validate` and every usage error must answer at once, also where no backend is
    # installed; the names below take seconds to import.
    code = (
        "import sys; from pipelines import api;"
        "print(sorted({'apache_beam', 'pydantic', 'sklearn'} & set(sys.modules)));"
        "from pipelines import cli; cli.main(['validate', sys.argv[1]]);"
        "heavy = {'tensorflow', 'keras', 'keras_hub', 'scann', 'sklearn', 'crowdkit'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    task = ROOT / "templates" / "policies" / "clickbait.yaml"
    done = subprocess.run(
        [sys.executable, "-c", code, str(task)], capture_output=True, text=True, cwd=ROOT
    )
    lines = done.stdout.splitlines()
    assert (lines[0], lines[-1]) == ("[]", "[]"), done.stdout + done.stderr


def test_the_main_job_runs_without_tensorflow_and_scann(tmp_path: Path) -> None:
    # Each heavy backend is an extra: with the fake labeler and exact search none is needed.
    code = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] in ('tensorflow', 'keras', 'keras_hub', 'scann', 'tensorflow_text'):
            raise ImportError(f'{name} is not installed here')
sys.meta_path.insert(0, Refuse())
from pathlib import Path
from pipelines import api
from tests import helpers
folder = Path(sys.argv[1])
task = helpers.write_task(folder)
corpus = helpers.write_jsonl(folder / 'ads.jsonl', helpers.tiny_ads())
print(len(api.mine(task, corpus, folder / 'w').items))
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, cwd=ROOT
    )
    assert (done.stdout.strip(), done.stderr) == ("12", "")
