"""The house stays as it was drawn: imports point one way, each outside library has its room, files and functions stay short."""

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "latent_lab"

LAYERS = (
    ("files", "provenance", "progress", "exact"),
    ("problems", "run", "tracking", "weights"),
    ("config", "sequences", "loop", "recompute", "compiling", "symbols", "virtual"),
    ("overrides", "backbone", "batching", "schedule", "passes", "edits", "feedback", "decoding", "gathering"),
    ("output", "segments"),
    ("compose", "reasoner", "adapters", "card", "calls"),
    ("job", "supervision"),
    ("checkpoint",),
    ("engine", "grading"),
    ("thoughts", "deliberation", "plans"),
    ("stages", "report"),
    ("door", "bench"),
    ("train", "eval"),
)
"""Modules and packages, the lowest first. A module imports lower layers and its own package, nothing beside or above it."""

UPWARD: dict[tuple[str, str], str] = {}
"""The imports that point up, and why."""

FAMILIES = ({"curriculum", "graphs"}, {"base", "course"})
"""Files of ``stages/`` that belong to one stage; stages never import each other, but all may import ``stages.base``."""

ROOMS: dict[tuple[str, ...], set[str]] = {
    ("hydra", "omegaconf"): {"config", "overrides", "compose", "job", "door"},
    # Whoever is handed an Accelerator names its type; evaluation also gathers replies from all processes.
    ("accelerate",): {"run", "engine", "stages.course", "grading.evaluate"},
    ("peft",): {"adapters"},
    ("wandb", "trackio", "tensorboard", "torch.utils.tensorboard"): {"tracking"},
    ("rich",): {"progress", "report.play_terminal"},
    ("starlette", "uvicorn"): {"report.play_web"},
    ("jinja2",): {"report.page"},
    ("matplotlib",): {
        f"report.{name}_figure"
        for name in (
            "study",
            "card",
            "table",
            "confusion",
            "matrix",
            "thoughts",
            "sweep",
            "iterations",
            "bench",
            "attention",
            "summarize",
        )
    },
    ("datasets",): {"problems.hub"},
    ("pyarrow",): {"problems.files"},
    ("openai", "tenacity", "aiolimiter"): {"calls.client", "calls.batches"},
    ("math_verify",): {"grading.symbolic"},
}
"""Outside libraries, and the only modules that import them."""

LONGEST_FILE, LONGEST_FUNCTION = 450, 60

FORBIDDEN_MODULES = {"pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
FORBIDDEN_CALLS = {
    "eval",
    "exec",
    "compile",
    "print",
    "torch.load",
    "yaml.load",
    "yaml.unsafe_load",
    "numpy.load",
    "np.load",
    "os.system",
}


def modules() -> dict[str, ast.Module]:
    """Every module of the package by its dotted name below ``latent_lab``; a package's ``__init__`` by the package's name."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = ast.parse(path.read_text(encoding="utf-8"))
    return found


MODULES = modules()
INSIDE = {name for name in MODULES if name}


def is_for_types_only(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def walk(node: ast.AST) -> Iterator[ast.AST]:
    """Every node that can run: bodies of functions count, ``if TYPE_CHECKING`` does not."""
    yield node
    for child in ast.iter_child_nodes(node):
        if is_for_types_only(child):
            assert isinstance(child, ast.If)
            for other in child.orelse:
                yield from walk(other)
        else:
            yield from walk(child)


def imports(tree: ast.AST) -> set[str]:
    """Full names of what is imported: modules, and ``module.name`` for each name taken from one."""
    names = set()
    for node in walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: write the package's name, not dots"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def ours(tree: ast.AST) -> set[str]:
    """Modules of this package that are imported, by their names below ``latent_lab``; '' for the package itself."""
    found = set()
    for name in imports(tree):
        top, _, rest = name.partition(".")
        if top == "latent_lab":
            found.add(rest if rest in INSIDE else rest.rpartition(".")[0])
    return found


def is_from(name: str, library: str) -> bool:
    return name == library or name.startswith(f"{library}.")


def layer(module: str) -> int:
    """Number of the layer a module lies in."""
    return next(i for i, names in enumerate(LAYERS) if module.partition(".")[0] in names)


def called(node: ast.Call) -> str:
    """``f`` or ``a.f`` for a call of them, else nothing."""
    if isinstance(node.func, ast.Attribute) and isinstance(node.func.value, ast.Name):
        return f"{node.func.value.id}.{node.func.attr}"
    return node.func.id if isinstance(node.func, ast.Name) else ""


# Who imports whom


def test_every_module_has_a_layer() -> None:
    drawn = {name for names in LAYERS for name in names}
    assert {name.partition(".")[0] for name in INSIDE} <= drawn, "give the new module a layer in this file's table"
    assert len(drawn) == sum(map(len, LAYERS))


def test_imports_point_down() -> None:
    wrong = {
        (name, other)
        for name in INSIDE
        for other in ours(MODULES[name])
        if other.partition(".")[0] != name.partition(".")[0] and (not other or layer(other) >= layer(name))
    }
    assert wrong == set(UPWARD)


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("from latent_lab.run import Run", {"run"}),
        ("from latent_lab import checkpoint", {"checkpoint"}),
        ("import latent_lab.grading.evaluate", {"grading.evaluate"}),
        ("from latent_lab.stages.curriculum import Curriculum", {"stages.curriculum"}),
        ("from latent_lab import LatentReasoner", {""}),
        ("def f():\n    from latent_lab.run import Run", {"run"}),
        ("if TYPE_CHECKING:\n    from latent_lab.run import Run", set()),
        ("if TYPE_CHECKING:\n    pass\nelse:\n    from latent_lab.run import Run", {"run"}),
        ("import torch", set()),
    ],
)
def test_imports_in_functions_count_and_those_for_types_do_not(source: str, found: set[str]) -> None:
    assert ours(ast.parse(source)) == found


def test_stages_never_import_each_other() -> None:
    for name in INSIDE:
        package, _, stage = name.partition(".")
        if package == "stages" and stage:
            others = {other.partition(".")[2] for other in ours(MODULES[name]) if other.startswith("stages.")}
            family = next((members for members in FAMILIES if stage in members), {stage})
            assert others <= family | {"base"}, name


@pytest.mark.parametrize("libraries", ROOMS, ids=", ".join)
def test_an_outside_library_has_its_room(libraries: tuple[str, ...]) -> None:
    users = {name for name in MODULES if any(is_from(used, lib) for used in imports(MODULES[name]) for lib in libraries)}
    assert users <= ROOMS[libraries]


def test_modules_are_looked_up_by_name_for_schemas_and_trackers_alone() -> None:
    assert {name for name, tree in MODULES.items() if "importlib" in imports(tree)} <= {"compose", "tracking"}


def test_only_the_reasoner_its_decoding_what_recomputes_and_the_published_step_know_the_cache() -> None:
    def speaks_of_it(tree: ast.AST) -> bool:
        names = {getattr(node, field, None) for node in ast.walk(tree) for field in ("id", "attr", "arg", "name")}
        return bool(names & {"past_key_values", "DynamicCache", "Cache"})

    known = {"reasoner", "decoding", "recompute", "bench.published"}
    assert {name for name, tree in MODULES.items() if speaks_of_it(tree)} == known


def test_what_the_command_line_needs_is_imported_without_torch() -> None:
    names = ["config", "train", "eval", "stages.curriculum", "grading.task", "tracking", "problems.gsm8k", "backbone", "run"]
    names += ["problems.competition", "problems.checks", "report.card_task", "report.table_task", "report.table_runs"]
    names += ["calls.server", "calls.ledger", "calls.client", "calls.local", "grading.judges", "grading.judge"]
    names += ["grading.repair", "grading.published", "problems.gsm_hard", "report.regrade_task", "report.regrade"]
    names += ["grading.answers", "grading.agreement", "report.answers_task", "report.play_task"]
    names += ["deliberation.analysis", "deliberation.forms", "report.iterations_task", "report.iterations"]
    names += [
        "plans.arithmetic",
        "plans.words",
        "plans.clusters",
        "plans.kmeans",
        "plans.vae",
        "plans.annotate_task",
        "plans.annotation",
        "plans.labels_task",
    ]
    names += ["deliberation.backends", "deliberation.loop", "deliberation.rivals", "report.summarize_task", "report.summarize"]
    names += ["calls.here", "calls.wire", "calls.batches"]
    command = "import sys, importlib\nfor name in sys.argv[1:]:\n    importlib.import_module('latent_lab.' + name)\n"
    command += "    assert not {'torch', 'transformers', 'accelerate'} & set(sys.modules), name\n"
    environment = os.environ | {"PYTHONPATH": str(PACKAGE.parent)}
    ended = subprocess.run([sys.executable, "-c", command, *names], env=environment, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")


# What is never written


def is_safe_load(module: str, node: ast.Call) -> bool:
    """Whether this is the one place that may read a ``.pt`` file: tensors alone, and never onto a device of the file's choice."""
    said = {keyword.arg: getattr(keyword.value, "value", None) for keyword in node.keywords}
    return (module, called(node)) == ("weights", "torch.load") and said == {"weights_only": True, "map_location": "cpu"}


def test_files_of_weights_are_read_in_one_place() -> None:
    places = [name for name, tree in MODULES.items() for node in ast.walk(tree) if isinstance(node, ast.Call)
              if called(node) == "torch.load"]  # fmt: skip
    assert places == ["weights"]


@pytest.mark.parametrize(
    ("module", "source", "is_safe"),
    [
        ("weights", "torch.load(f, map_location='cpu', weights_only=True)", True),
        ("weights", "torch.load(f, map_location='cpu', weights_only=False)", False),
        ("weights", "torch.load(f, map_location='cpu', weights_only=flag)", False),
        ("weights", "torch.load(f, map_location='cpu')", False),
        ("weights", "torch.load(f, map_location='cpu', weights_only=True, **options)", False),
        ("weights", "eval(f, map_location='cpu', weights_only=True)", False),
        ("engine", "torch.load(f, map_location='cpu', weights_only=True)", False),
    ],
)
def test_a_load_is_safe_where_it_says_so_itself(module: str, source: str, is_safe: bool) -> None:
    (node,) = (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call))
    assert is_safe_load(module, node) is is_safe


@pytest.mark.parametrize("name", MODULES)
def test_nothing_is_printed_evaluated_or_unpickled(name: str) -> None:
    calls = {called(node) for node in ast.walk(MODULES[name]) if isinstance(node, ast.Call) if not is_safe_load(name, node)}
    assert calls & FORBIDDEN_CALLS == set()
    used = {used for used in imports(MODULES[name]) if used.partition(".")[0] in FORBIDDEN_MODULES}
    assert used <= ({"pickle.UnpicklingError"} if name == "weights" else set())  # the name of an error
    arguments = {kw.arg for node in ast.walk(MODULES[name]) if isinstance(node, ast.Call) for kw in node.keywords}
    assert arguments & {"allow_pickle", "trust_remote_code", "shell"} == set()


# How long things are


def test_a_file_can_be_read_in_one_sitting() -> None:
    lengths = {
        str(path.relative_to(PACKAGE)): len(path.read_text(encoding="utf-8").splitlines()) for path in PACKAGE.rglob("*.py")
    }
    assert {name: length for name, length in lengths.items() if length > LONGEST_FILE} == {}


def test_a_function_fits_on_a_screen() -> None:
    long = {
        f"{name}.{node.name}": length
        for name, tree in MODULES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (length := (node.end_lineno or node.lineno) - node.lineno + 1) > LONGEST_FUNCTION
    }
    assert long == {}
