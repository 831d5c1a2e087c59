"""Where in a pickled module, state dict or checkpoint the tensors are, and what they are called."""

from __future__ import annotations

from dataclasses import dataclass
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
_MOST_MODULES, _MOST_ENTRIES, _LONGEST_NAME = 10_000, 200_000, 1_000
_PLAIN = (type(None), bool, int, float, str)


@dataclass(frozen=True)
class NamedTensors:
    """Name -> what makes its tensor, and the names of what lies beside the tensors and is not taken."""

    nodes: dict[str, Made]
    left_out: list[str]


def named_tensors(value: Any) -> NamedTensors:
    """The tensors of a module, a state dict, or a checkpoint that holds one of them.

    Raises
    ------
    PickleError
        There are several, modules without end, or something else where a tensor should be.
    """
    return _Tree().named_tensors(value)


class _Tree:
    """What nodes hold, each worked out once: a pickle may refer to the same one many times over."""

    def __init__(self) -> None:
        # by the id of a node: all of them live as long as the pickle that is read
        self._states: dict[int, dict[str, Any]] = {}
        self._entries: dict[int, dict[str, Any]] = {}
        self._texts: dict[int, set[str]] = {}
        self._sets: dict[int, bool] = {}

    def named_tensors(self, value: Any) -> NamedTensors:
        """As the function of this name."""
        if self._is_module(value):
            return NamedTensors(self._of_module(value), [])
        entries = self._entries_of(value)
        inner = [name for name, node in entries.items() if self._is_set(node)]
        usual = [name for name in _WEIGHT_KEYS if name in inner][:1]
        if not usual and any(map(is_tensor, entries.values())):
            return self._state_dict(entries)
        chosen = usual or inner
        if len(chosen) > 1:
            raise PickleError(f"it holds several sets of weights: {shown(', '.join(chosen), 300)}")
        if not chosen:
            return NamedTensors({}, list(entries))
        node = entries[chosen[0]]
        beside = [name for name in entries if name != chosen[0]]
        if self._is_module(node):
            return NamedTensors(self._of_module(node), beside)
        found = self._state_dict(self._entries_of(node))
        return NamedTensors(found.nodes, [*beside, *found.left_out])

    def _state_dict(self, entries: dict[str, Any]) -> NamedTensors:
        """Tensors by name; beside them only plain values may lie, which are hardly weights."""
        direct = {name: node for name, node in entries.items() if is_tensor(node)}
        inner = [name for name, node in entries.items() if self._is_set(node)]
        if inner:
            names = shown(", ".join(inner), 200)
            raise PickleError(
                f"it holds several sets of weights: {names}, and tensors beside them: "
                f"{shown(', '.join(direct), 100)}"
            )
        others = [name for name in entries if name not in direct]
        odd = [name for name in others if not isinstance(entries[name], _PLAIN)]
        if odd:
            raise PickleError(
                f"among its tensors are other things, without which they may not be whole: "
                f"{shown(', '.join(odd), 200)}"
            )
        return NamedTensors(direct, others)

    def _of_module(self, root: Made) -> dict[str, Made]:
        """Parameters and buffers of a tree of modules, named as `state_dict` names them."""
        found: dict[str, Made] = {}
        waiting, n_modules, n_entries = [("", root)], 0, 0
        while waiting:
            prefix, module = waiting.pop()
            state = self._state(module)
            if not state:
                raise PickleError(f"its {shown(prefix)} is no module of a kind that is known")
            own = {**self._entries_of(state["_parameters"]), **self._entries_of(state["_buffers"])}
            children = self._entries_of(state["_modules"])
            n_modules, n_entries = n_modules + 1, n_entries + len(own) + len(children)
            longest = max(map(len, (*own, *children)), default=0)
            if (
                n_modules > _MOST_MODULES
                or n_entries > _MOST_ENTRIES
                or len(prefix) + longest > _LONGEST_NAME
            ):
                raise PickleError("its modules lie in each other without end")
            passing = self._texts_in(state.get("_non_persistent_buffers_set"))
            for name, node in own.items():
                if node is None or name in passing:
                    continue
                if not is_tensor(node):
                    raise PickleError(
                        f"its {shown(prefix + name)} is no tensor of a kind that is known"
                    )
                found[prefix + name] = node
            waiting += [
                (f"{prefix}{name}.", child)
                for name, child in reversed(children.items())
                if child is not None
            ]
        return found

    def _is_set(self, node: Any) -> bool:
        """Whether a node is a module, or holds tensors by name."""
        if id(node) not in self._sets:
            holds = self._is_module(node) or any(map(is_tensor, self._entries_of(node).values()))
            self._sets[id(node)] = holds
        return self._sets[id(node)]

    def _is_module(self, node: Any) -> bool:
        return bool(self._state(node))

    def _state(self, node: Any) -> dict[str, Any]:
        """What was put into an object that a module could be; {} for others."""
        if id(node) not in self._states:
            self._states[id(node)] = _state(node)
        return self._states[id(node)]

    def _entries_of(self, node: Any) -> dict[str, Any]:
        """The named entries of a dict or an OrderedDict."""
        if id(node) not in self._entries:
            self._entries[id(node)] = entries_of(node)
        return self._entries[id(node)]

    def _texts_in(self, node: Any) -> set[str]:
        if id(node) not in self._texts:
            self._texts[id(node)] = _texts(node)
        return self._texts[id(node)]


def _state(node: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for state in node.states if isinstance(node, Made) else ():
        if isinstance(state, Pairs):
            found.update(state.by_name())
    parts = ("_parameters", "_buffers", "_modules")
    return found if all(part in found for part in parts) else {}


def entries_of(node: Any) -> dict[str, Any]:
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
