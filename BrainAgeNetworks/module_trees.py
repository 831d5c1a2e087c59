"""Where in a pickled module, state dict or checkpoint the tensors are, and what they are called."""

from __future__ import annotations

from typing import Any

from BrainAgeNetworks.unpickling import Made, Named, Pairs, PickleError
from utils.common.text import shown

_TENSOR_MAKERS = ("torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_tensor")
_PARAMETER_MAKERS = (
    "torch._utils._rebuild_parameter", "torch._utils._rebuild_parameter_with_state",
)  # fmt: skip
# A parameter wraps a tensor; so deep at most.
_MOST_WRAPPINGS = 4
# Under these keys training programs keep the weights in a checkpoint that holds more.
_WEIGHT_KEYS = ("state_dict", "model_state_dict", "model", "network", "net")
# A module inside of itself, or the same one many times over, has no end.
_MOST_MODULES, _LONGEST_NAME = 10_000, 1_000


def named_tensors(value: Any) -> dict[str, Made]:
    """Name -> what makes its tensor, of a module, a state dict, or a checkpoint that holds one of them.

    Raises
    ------
    PickleError
        There are several, modules without end, or something else where a tensor should be.
    """
    if _is_module(value):
        return _of_module(value)
    entries = _entries(value)
    direct = {name: node for name, node in entries.items() if is_tensor(node)}
    if direct:
        return direct
    inner = {
        name: node
        for name, node in entries.items()
        if _is_module(node) or any(map(is_tensor, _entries(node).values()))
    }
    named = [name for name in _WEIGHT_KEYS if name in inner][:1] or list(inner)
    if len(named) > 1:
        raise PickleError(f"it holds several sets of weights: {shown(', '.join(named), 300)}")
    return named_tensors(inner[named[0]]) if named else {}


def _of_module(root: Made) -> dict[str, Made]:
    """Parameters and buffers of a tree of modules, named as `state_dict` names them."""
    found: dict[str, Made] = {}
    waiting, n_modules = [("", root)], 0
    while waiting:
        prefix, module = waiting.pop()
        n_modules += 1
        if n_modules > _MOST_MODULES or len(prefix) > _LONGEST_NAME:
            raise PickleError("its modules lie in each other without end")
        state = _state(module)
        passing = _texts(state.get("_non_persistent_buffers_set"))
        for name, node in {**_entries(state["_parameters"]), **_entries(state["_buffers"])}.items():
            if node is None or name in passing:
                continue
            if not is_tensor(node):
                raise PickleError(
                    f"its {shown(prefix + name)} is no tensor of a kind that is known"
                )
            found[prefix + name] = node
        children = list(_entries(state["_modules"]).items())
        waiting += [(f"{prefix}{name}.", child) for name, child in reversed(children) if child]
    return found


def _state(node: Any) -> dict[str, Any]:
    """What was put into an object that a module could be; {} for others."""
    found: dict[str, Any] = {}
    for state in node.states if isinstance(node, Made) else ():
        if isinstance(state, Pairs):
            found.update(state.by_name())
    parts = ("_parameters", "_buffers", "_modules")
    return found if all(part in found for part in parts) else {}


def _is_module(node: Any) -> bool:
    return bool(_state(node))


def _entries(node: Any) -> dict[str, Any]:
    """The named entries of a dict or an OrderedDict (that of Python 2 gets its pairs as an argument)."""
    if isinstance(node, Pairs):
        return node.by_name()
    if not isinstance(node, Made):
        return {}
    first = node.arguments[0] if isinstance(node.arguments, tuple) and node.arguments else []
    pairs = (
        [pair for pair in first if isinstance(pair, (list, tuple)) and len(pair) == 2]
        if (isinstance(first, list))
        else []
    )
    return {key: value for key, value in [*pairs, *node.items] if isinstance(key, str)}


def _texts(node: Any) -> set[str]:
    """The texts in a set."""
    elements = list(node) if isinstance(node, list) else []
    if isinstance(node, Made) and isinstance(node.arguments, tuple):
        elements = [e for part in node.arguments if isinstance(part, list) for e in part]
    return {element for element in elements if isinstance(element, str)}


def unwrapped(node: Any) -> Any:
    """The tensor in a parameter; whatever it is, of anything else."""
    for _ in range(_MOST_WRAPPINGS):
        if not _is_made_by(node, _PARAMETER_MAKERS):
            break
        node = node.arguments[0] if isinstance(node.arguments, tuple) and node.arguments else None
    return node


def is_tensor(node: Any) -> bool:
    """Whether it would have become a tensor or a parameter."""
    return _is_made_by(unwrapped(node), _TENSOR_MAKERS)


def _is_made_by(node: Any, makers: tuple[str, ...]) -> bool:
    return isinstance(node, Made) and isinstance(node.maker, Named) and str(node.maker) in makers
