"""The package as a whole: names, errors, and whether the stubs tell the truth."""
import ast
import inspect

import pytest
from conftest import ROOT

import gantry

STUBS = ast.parse((ROOT / "python" / "gantry" / "__init__.pyi").read_text())
CLASSES = {node.name: node for node in STUBS.body if isinstance(node, ast.ClassDef)}
FUNCTIONS = {node.name: node for node in STUBS.body if isinstance(node, ast.FunctionDef)}


def method(name, function):
    return next(node for node in CLASSES[name].body if isinstance(node, ast.FunctionDef) and node.name == function)


def keywords(function):
    return [argument.arg for argument in function.args.kwonlyargs]


def test_version_is_the_project_s():
    declared = next(line for line in (ROOT / "CMakeLists.txt").read_text().splitlines() if line.startswith("project("))
    assert gantry.__version__ == declared.split()[2]
    assert f'version = "{gantry.__version__}"' in (ROOT / "pyproject.toml").read_text()


def test_errors_are_python_s_own_kinds():
    assert issubclass(gantry.InputError, ValueError) and issubclass(gantry.Error, RuntimeError)


@pytest.mark.parametrize(("function", "options"), [
    (method("Model", "generate"), gantry.generate_options()),
    (method("Trainer", "__init__"), gantry.trainer_options()),
    (FUNCTIONS["train"], gantry.train_options()),
], ids=["generate", "Trainer", "train"])
def test_stubs_list_the_options(function, options):
    assert sorted(keywords(function)) == sorted(options)
    assert all(help for _, help in options.values())


def test_stubs_list_what_exists():
    public = {name for name in gantry.__all__ if not name.startswith("_")}
    assert public == set(CLASSES) | set(FUNCTIONS)
    for name, node in CLASSES.items():
        declared = {child.name for child in node.body if isinstance(child, ast.FunctionDef)}
        real = {member for member in vars(getattr(gantry, name)) if not member.startswith("_")}
        assert {member for member in declared if not member.startswith("_")} == real, name


def test_everything_has_a_docstring():
    for name in gantry.__all__:
        if name == "__version__":
            continue
        thing = getattr(gantry, name)
        assert inspect.getdoc(thing), name
        if inspect.isclass(thing):
            for member, value in vars(thing).items():
                assert member.startswith("_") or inspect.getdoc(value), f"{name}.{member}"
    assert "temperature = 0.0:" in gantry.Model.generate.__doc__
