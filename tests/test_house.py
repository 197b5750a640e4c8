"""The repository's layout, packaging, workflow and documents agree with each other and with the house rules."""

import ast
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from pipeline import __version__

PACKAGES = ("jobs", "models", "pipeline")
FRAMEWORKS = ("torch", "tensorflow", "keras", "jax", "flax", "optax")
OWN_FRAMEWORK = {
    "models/roberta_torch": {"torch"},
    "models/roberta_tf": {"tensorflow", "keras"},
    "models/roberta_flax": {"jax", "flax", "optax"},
}
TRAINING = "jobs/training"
DEMO_RECIPE = "jobs/checkpoints/demo_recipe"  # trains
MEASURING = "jobs/benchmarks"  # runs one framework at a time, imported where it is measured
FORBIDDEN_NAMES = {"utils", "util", "common", "helper", "helpers", "manager", "misc"}
KINDS_OF_CHANGE = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
SHAPED = re.compile(r"[a-z][a-z0-9]*(?:_[a-z0-9]+)*_([A-Z][A-Z0-9]*)")  # hidden_BSH: its letters are its shape
PRIVATE_CODE = re.compile(r"\(B\d+\)|\bspec/(?:speed|checkpoints|model)\b|\bspec \d+\.\d")
PRIVATE_TO_RAY = re.compile(r"^ray\b.*(?:[.]_(?!_)|[.]core\b|[.]autoscaler\b)|^_(?:private|internal|raylet)$")
LONGEST_FILE = 400  # lines; a file beyond it holds more than one noun


def tracked_files(repository: Path) -> list[Path]:
    if not (repository / ".git").exists():
        pytest.skip("not a git checkout: the documented tree is compared with the tracked files")
    listing = subprocess.run(["git", "ls-files"], cwd=repository, capture_output=True, text=True, check=True)
    return [Path(line) for line in listing.stdout.splitlines() if (repository / line).exists()]


def documented_tree(repository: Path) -> dict[str, set[str]]:
    """Folder ("" for the root) -> what the tree in docs/architecture.md shows in it, folders with a closing slash."""
    text = (repository / "docs/architecture.md").read_text(encoding="utf-8")
    block = text.split("## Project layout")[1].split("```")[1]
    shown: dict[str, set[str]] = {}
    parents: list[str] = [""]
    for line in filter(str.strip, block.splitlines()):
        depth = (len(line) - len(line.lstrip())) // 2
        name = line.split()[0]
        del parents[depth + 1 :]
        shown.setdefault(parents[depth], set()).add(name)
        if name.endswith("/"):
            parents.append(parents[depth] + name)
    return shown


def children(files: list[Path], folder: str) -> Iterator[str]:
    depth = folder.count("/")
    for file in files:
        if file.as_posix().startswith(folder):
            yield file.parts[depth] + ("/" if len(file.parts) > depth + 1 else "")


def test_what_the_project_layout_shows_of_a_folder_is_all_there_is_in_it(repository: Path) -> None:
    """A folder shown with folders only has no others; one shown with a file has no other files either."""
    files = tracked_files(repository)
    for folder, shown in documented_tree(repository).items():
        unnamed = {"__init__.py", "__main__.py"}
        inside = {name for name in children(files, folder) if not name.startswith(".")} - unnamed
        if all(name.endswith("/") for name in shown):
            inside = {name for name in inside if name.endswith("/")}
        assert shown == inside, f"the tree of {folder or 'the repository'}"


@pytest.fixture(scope="module")
def project(repository: Path) -> dict[str, Any]:
    return tomllib.loads((repository / "pyproject.toml").read_text(encoding="utf-8"))


def test_the_version_is_a_literal_and_in_the_changelog(repository: Path, project: dict[str, Any]) -> None:
    assert project["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "pipeline.__version__"}
    assert f'__version__ = "{__version__}"' in (repository / "pipeline/__init__.py").read_text(encoding="utf-8")
    headings = re.findall(r"^## \[(.+?)\]", (repository / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert [heading.split("]")[0] for heading in headings[:2]] == ["Unreleased", __version__]


def test_the_changelog_is_in_the_form_of_keep_a_changelog(repository: Path) -> None:
    text = (repository / "CHANGELOG.md").read_text(encoding="utf-8")
    first, *releases = re.findall(r"^## (.+)$", text, re.MULTILINE)
    assert first == "[Unreleased]"
    assert [release for release in releases if not re.fullmatch(r"\[\d+\.\d+\.\d+\] - \d{4}-\d\d-\d\d", release)] == []
    assert set(re.findall(r"^### (.+)$", text, re.MULTILINE)) <= KINDS_OF_CHANGE


def test_every_dependency_has_a_pin(repository: Path, project: dict[str, Any]) -> None:
    def name(requirement: str) -> str:
        return re.split(r"[\[<>=!~ ]", requirement)[0].lower().replace("_", "-")

    pins = {
        name(line): line
        for line in (repository / "constraints.txt").read_text(encoding="utf-8").splitlines()
        if not line.startswith("#")
    }
    extras = project["project"]["optional-dependencies"]
    wanted = {name(line) for lines in [project["project"]["dependencies"], *extras.values()] for line in lines}
    assert wanted - {"preln"} <= set(pins)
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in pins.values()), "a pin names a local build"


def test_the_extras_are_those_that_the_documents_promise(project: dict[str, Any]) -> None:
    expected = [
        "torch",
        "tensorflow",
        "flax",
        "flax-cuda",
        "tensorflow-cuda",
        "s3",
        "gcs",
        "azure",
        "delta",
        "hub",
        "report",
        "train",
        "bench",
        "dev",
        "test",
    ]
    assert set(project["project"]["optional-dependencies"]) == set(expected)
    base = " ".join(project["project"]["dependencies"])
    assert not any(re.search(rf"\b{framework}\b", base) for framework in FRAMEWORKS)


def test_importing_every_driver_module_imports_no_framework(repository: Path) -> None:
    names = [
        ".".join(file.with_suffix("").parts).removesuffix(".__init__")
        for file in tracked_files(repository)
        if file.suffix == ".py" and file.parts[0] in PACKAGES and file.name != "__main__.py"
        if not file.as_posix().startswith((*OWN_FRAMEWORK, TRAINING, DEMO_RECIPE))
    ]
    program = (
        "import importlib, sys\n"
        f"for name in {names!r}: importlib.import_module(name)\n"
        f"print(*sorted(set({FRAMEWORKS!r}) & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", program], cwd=repository, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == ""


def python_files(repository: Path) -> list[Path]:
    return [file for package in PACKAGES for file in sorted((repository / package).rglob("*.py"))]


def imported(file: Path) -> set[str]:
    """Every dotted name that a file imports anywhere in it, inside functions too."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def test_each_framework_is_imported_in_its_own_folder_only(repository: Path) -> None:
    wrong = []
    for file in python_files(repository):
        place = file.relative_to(repository).as_posix()
        own = next((names for folder, names in OWN_FRAMEWORK.items() if place.startswith(folder + "/")), set())
        if place.startswith((TRAINING + "/", DEMO_RECIPE + "/", MEASURING + "/")):
            own = set(FRAMEWORKS)
        used = {name.split(".")[0] for name in imported(file)} & set(FRAMEWORKS)
        wrong += [f"{place} imports {name}" for name in sorted(used - own)]
    assert not wrong


def test_a_framework_folder_imports_no_other_framework_folder(repository: Path) -> None:
    modules = {folder: folder.replace("/", ".") for folder in OWN_FRAMEWORK}
    wrong = [
        f"{file.relative_to(repository)} imports {name}"
        for folder in OWN_FRAMEWORK
        for file in sorted((repository / folder).rglob("*.py"))
        for name in imported(file)
        if name.startswith(tuple(module for other, module in modules.items() if other != folder))
    ]
    assert not wrong


def test_only_training_imports_ray_train(repository: Path) -> None:
    users = [
        file.relative_to(repository).as_posix()
        for file in python_files(repository)
        if any(name == "ray.train" or name.startswith("ray.train.") for name in imported(file))
    ]
    assert all(place.startswith(TRAINING + "/") for place in users)


def private_uses_of_ray(code: str) -> list[str]:
    """Where code names a private module or attribute of Ray: by an import, an attribute of a module, or in a string."""
    tree = ast.parse(code)
    modules: dict[str, str] = {}  # name in this file -> the module, or what it was imported from
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
            modules |= {
                alias.asname or alias.name.split(".")[0]: alias.name if alias.asname else "ray"
                for alias in node.names
                if alias.name.split(".")[0] == "ray"
            }
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "ray":
            found += [f"{node.module}.{alias.name}" for alias in node.names]
            modules |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            root, _, rest = ast.unparse(node).partition(".")
            if root in modules:
                found.append(f"{modules[root]}.{rest}")
            elif modules and node.attr.startswith("_") and root not in ("self", "cls"):
                found.append(f"ray: {ast.unparse(node)}")  # an object of Ray's, for all that the file's text tells
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and " " not in node.value:
            found.append(node.value)
    return [name for name in found if PRIVATE_TO_RAY.search(name)]


def test_only_ray_state_reaches_into_the_private_state_of_ray(repository: Path) -> None:
    places = {
        file.relative_to(repository).as_posix(): found
        for file in [*python_files(repository), *sorted((repository / "preln").rglob("*.py"))]
        if (found := private_uses_of_ray(file.read_text("utf-8")))
    }
    assert set(places) == {"pipeline/cluster/ray_state.py"}, places


@pytest.mark.parametrize(
    "code",
    [
        "import ray\nray._private.worker.global_worker",
        "import ray._private.state",
        "import ray._private.worker as worker",
        "from ray import _private",
        "from ray.data import _internal as internal",
        "from ray.data._internal.execution.execution_callback import ExecutionCallback",
        "from ray.core.generated import gcs_pb2",
        "from ray.autoscaler.v2.utils import is_autoscaler_v2",
        "import ray as r\nr._private",
        "from ray import data\ndata._internal",
        "import ray\ngetattr(ray, '_private')",
        "import importlib\nimportlib.import_module('ray._raylet')",
        "import ray\ndef step(executor):\n    return executor._topology",
    ],
)
def test_every_way_into_the_private_state_of_ray_is_found(code: str) -> None:
    assert private_uses_of_ray(code)


def test_every_module_says_in_its_first_line_what_it_is(repository: Path) -> None:
    wordless = [
        file.relative_to(repository).as_posix()
        for file in python_files(repository)
        if file.read_text(encoding="utf-8").strip() and not ast.get_docstring(ast.parse(file.read_text("utf-8")))
    ]
    assert not wordless


def test_no_module_is_a_catch_all_or_hides_a_module_of_python_itself(repository: Path) -> None:
    names = {file.stem for file in python_files(repository) if not file.stem.startswith("__")}
    names |= {file.parent.name for file in python_files(repository)}
    assert not names & FORBIDDEN_NAMES
    assert not names & set(sys.stdlib_module_names)
    assert not names & set(FRAMEWORKS)


def test_files_stay_short(repository: Path) -> None:
    lengths = {
        file.relative_to(repository).as_posix(): len(file.read_text("utf-8").splitlines())
        for file in python_files(repository)
    }
    assert {file: lines for file, lines in lengths.items() if lines > LONGEST_FILE} == {}


def shape_letters(tree: ast.Module) -> set[str]:
    """The shape letters of names that a file itself introduces: arguments, variables, fields."""
    names = [node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)]
    names += [node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)]
    shapes = [found[1] for found in map(SHAPED.fullmatch, names) if found]
    return {letter for shape in shapes for letter in shape if letter.isalpha()}


def test_the_legend_of_a_file_explains_its_shape_letters(repository: Path) -> None:
    unexplained = []
    for file in python_files(repository):
        tree = ast.parse(file.read_text("utf-8"))
        legend = ast.get_docstring(tree) or ""
        missing = sorted(letter for letter in shape_letters(tree) if not re.search(rf"\b{letter}\b", legend))
        unexplained += [f"{file.relative_to(repository)}: {letter}" for letter in missing]
    assert not unexplained


def test_a_comment_gives_its_reason_and_no_private_code(repository: Path) -> None:
    places = [
        f"{file}: {found[0]}"
        for file in tracked_files(repository)
        if file.suffix in (".py", ".md", ".toml", ".yaml") and file.name != "test_house.py"
        for found in PRIVATE_CODE.finditer((repository / file).read_text("utf-8"))
    ]
    assert not places


def test_make_alone_prints_every_target(repository: Path) -> None:
    run = subprocess.run(["make"], cwd=repository, capture_output=True, text=True, check=True)
    printed = set(re.findall(r"^  make (\w+) +\S", run.stdout, re.MULTILINE))
    phony = re.search(r"^\.PHONY: (.+)$", (repository / "Makefile").read_text("utf-8"), re.MULTILINE)
    assert phony
    assert printed == set(phony[1].split())


def test_the_workflow_runs_the_same_two_targets_as_ci_run(repository: Path) -> None:
    for file in (".ci/run", ".github/workflows/ci.yml"):
        text = (repository / file).read_text("utf-8")
        assert re.findall(r"^(?:\s*- run: )?make (\w+)", text, re.MULTILINE) == ["check", "test"], file


def test_the_pre_commit_hooks_are_the_commands_of_make_check(repository: Path) -> None:
    recipe = (repository / "Makefile").read_text("utf-8").split("\ncheck:")[1].split("\n\n")[0]
    commands = re.findall(r"^\t\$\(VENV\)/bin/(.+)$", recipe, re.MULTILINE)
    hooks = yaml.safe_load((repository / ".pre-commit-config.yaml").read_text("utf-8"))["repos"][0]["hooks"]
    assert [hook["entry"].removeprefix(".venv/bin/") for hook in hooks] == commands


def test_the_classifiers_name_only_versions_that_the_workflow_runs(repository: Path, project: dict[str, Any]) -> None:
    workflow = yaml.safe_load((repository / ".github/workflows/ci.yml").read_text("utf-8"))
    (job,) = workflow["jobs"].values()
    versions = re.findall(r"Python :: (3\.\d+)", " ".join(project["project"]["classifiers"]))
    assert versions
    assert set(versions) <= set(job["strategy"]["matrix"]["python"])


def test_the_jobs_in_the_readme_are_valid_specs(repository: Path) -> None:
    from pipeline.spec.job_spec import JobSpec

    blocks = re.findall(r"```yaml\n(.+?)```", (repository / "README.md").read_text("utf-8"), re.DOTALL)
    assert blocks
    for block in blocks:
        spec = JobSpec.from_yaml(block)
        assert JobSpec.from_yaml(spec.to_yaml()) == spec


def test_the_json_schema_for_editors_is_that_of_the_spec(repository: Path) -> None:
    from pipeline.spec.job_spec import json_schema

    committed = (repository / "docs/jobspec.schema.json").read_text("utf-8")
    assert json.loads(committed) == json_schema(), "run `make schema` and commit docs/jobspec.schema.json"


def test_the_json_schema_takes_the_jobs_of_the_readme_and_refuses_an_unknown_key(repository: Path) -> None:
    schema = json.loads((repository / "docs/jobspec.schema.json").read_text("utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    for block in re.findall(r"```yaml\n(.+?)```", (repository / "README.md").read_text("utf-8"), re.DOTALL):
        job = yaml.safe_load(block)
        validator.validate(job)
        assert not validator.is_valid({**job, "inputs": "x"})


def test_documents_name_only_files_that_exist(repository: Path) -> None:
    documents = [repository / name for name in ("README.md", "CONTRIBUTING.md", "docs/architecture.md")]
    missing = [
        f"{document.name}: {name}"
        for document in documents
        for name in re.findall(r"`((?:docs|jobs|models|pipeline|tests)/[\w./-]+)`", document.read_text("utf-8"))
        if "roberta_X" not in name and not (repository / name).exists()
    ]
    assert not missing


def defined_in(file: Path) -> set[str]:
    """The functions and classes of a file, and the methods of its classes as `Class.method`."""
    names = set()
    for node in ast.parse(file.read_text("utf-8")).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            names.add(node.name)
        if isinstance(node, ast.ClassDef):
            names |= {f"{node.name}.{inner.name}" for inner in node.body if isinstance(inner, ast.FunctionDef)}
    return names


def test_every_call_of_the_documented_walk_is_in_the_file_that_is_named(repository: Path) -> None:
    text = (repository / "docs/architecture.md").read_text("utf-8")
    walk = " ".join(text.split("## From `annotate` to a committed object")[1].split("\n## ")[0].split())
    calls = re.findall(r"`([\w.]+)` in `([\w/]+\.py)`", walk)
    assert len(calls) > 20
    assert [(name, file) for name, file in calls if name not in defined_in(repository / file)] == []


def test_verbs_that_the_readme_names_are_verbs_of_the_command(repository: Path) -> None:
    from typer.main import get_command

    from jobs.cli import app

    shown = set(
        re.findall(r"^preln (\w+)|`preln ([a-z]+)\b", (repository / "README.md").read_text("utf-8"), re.MULTILINE)
    )
    verbs = set(getattr(get_command(app), "commands", {}))
    named = {verb for pair in shown for verb in pair if verb}
    assert named
    assert named <= verbs
