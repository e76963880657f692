"""What is not written in this project, in the product or in its tests, and why."""

from __future__ import annotations

import ast
import re

import pytest

from support.source import ROOT, Module, imports, is_within, modules

SOURCE = modules("agent", "hub")
TESTS = modules("tests")
each_module = pytest.mark.parametrize("module", SOURCE, ids=lambda module: module.name)
each_test = pytest.mark.parametrize("module", TESTS, ids=lambda module: module.name)

VAGUE = re.compile(r"manager|helper|util(itie)?s?$", re.IGNORECASE)
CHANGES = {"add", "append", "clear", "discard", "extend", "insert", "pop", "remove", "setdefault", "update"}

MOCK = "a mock proves that the mock was called; use the fake of an edge"
SKIP = "a skipped test hides an install step that is missing; do the step"
NOT_IN_TESTS = {
    "unittest.mock": MOCK,
    "mock": MOCK,
    "pytest_mock": MOCK,
    "monkeypatch.setattr": "pass what differs as an argument",
    "pytest.skip": SKIP,
    "pytest.importorskip": SKIP,
    "pytest.mark.skip": SKIP,
    "pytest.mark.skipif": SKIP,
    "time.sleep": "wait for the event, not for luck",
}


def calls(module: Module) -> list[tuple[ast.Call, str]]:
    """Every call with the last word of what is called."""
    found = []
    for node in module.nodes:
        if isinstance(node, ast.Call):
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            found.append((node, name))
    return found


@each_module
def test_tasks_live_in_a_group_and_have_a_name(module: Module) -> None:
    for call, name in calls(module):
        owner = ast.unparse(call.func).rpartition(".")[0]
        assert name not in ("gather", "ensure_future"), (
            f"{module.at(call)} calls {name}: a task that fails must end its group, so use a TaskGroup"
        )
        if name != "create_task":
            continue
        is_alone = owner in ("", "asyncio") or "loop" in owner
        assert not is_alone, f"{module.at(call)}: a task outside of a TaskGroup fails unseen"
        assert any(word.arg == "name" for word in call.keywords), (
            f"{module.at(call)}: name the task, it is what a traceback or a log shows"
        )


@each_module
def test_names_say_what_a_thing_is(module: Module) -> None:
    reason = "Manager, Helper and Utils name no noun of ours; say what it owns"
    assert not any(VAGUE.search(part) for part in module.name.split(".")), f"{module.name}: {reason}"
    for node in module.nodes:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            assert not VAGUE.search(node.name), f"{module.at(node)} {node.name}: {reason}"


@each_module
def test_modules_hold_no_state(module: Module) -> None:
    """Constant tables are welcome, in capitals; what changes belongs to an object of app.py."""
    reason = "state of a module is shared by everything and closed by nobody; give it to an object"
    for statement in module.tree.body:
        for name in _mutable_names(statement):
            assert name.isupper() or name == "__all__", f"{module.at(statement)} {name} may change: {reason}"
    for node in module.nodes:
        assert not isinstance(node, ast.Global), f"{module.at(node)} writes a global: {reason}"
        changed = _changed_name(node)
        assert not changed.isupper(), f"{module.at(node)} changes the constant {changed}: {reason}"


def _mutable_names(node: ast.stmt) -> list[str]:
    """The names that a top-level statement binds to a list, dict or set."""
    if not isinstance(node, ast.Assign | ast.AnnAssign) or node.value is None:
        return []
    makers = ("list", "dict", "set", "defaultdict", "deque", "Counter", "OrderedDict")
    displays = (ast.List, ast.Dict, ast.Set, ast.ListComp, ast.DictComp, ast.SetComp)
    is_made = isinstance(node.value, ast.Call) and ast.unparse(node.value.func).split(".")[-1] in makers
    if not is_made and not isinstance(node.value, displays):
        return []
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    return [target.id for target in targets if isinstance(target, ast.Name)]


def _changed_name(node: ast.AST) -> str:
    """The plain name whose contents a node changes, or ""."""
    changed: ast.expr | None = None
    if isinstance(node, ast.Subscript) and not isinstance(node.ctx, ast.Load):
        changed = node.value
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in CHANGES:
        changed = node.func.value
    return changed.id if isinstance(changed, ast.Name) else ""


@each_test
def test_tests_prove_something(module: Module) -> None:
    names: list[tuple[str, ast.AST]] = list(imports(module))
    names += [(ast.unparse(node), node) for node in module.nodes if isinstance(node, ast.Attribute)]
    for name, node in names:
        reason = next((NOT_IN_TESTS[word] for word in NOT_IN_TESTS if is_within(name, word)), "")
        assert not reason, f"{module.at(node)} uses {name}: {reason}"


def test_tests_are_no_package() -> None:
    """An editable install puts the root of the checkout on sys.path."""
    for folder in ("tests", "systemd", "images", "docs"):
        found = [str(path) for path in (ROOT / folder).rglob("__init__.py")]
        assert not found, f"{found}: `import {folder}` would work in every program of this environment"
