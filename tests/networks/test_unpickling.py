"""Pickles are read and never run: traps stay shut, bombs stay small, and weights come out bit for bit."""

from __future__ import annotations

import builtins
import io
import os
import pathlib
import pickle
import pickletools
import struct
import tracemalloc
import zipfile
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from BrainAgeNetworks import module_trees, unpickling
from BrainAgeNetworks.torch_files import TorchFileError, read_torch_file
from BrainAgeNetworks.unpickling import Made, Named, Pairs, PickleError, unpickle
from utils.common.randomness import generator

HERE = pathlib.Path("weights.pt")


class Trap:
    """Runs something when an ordinary unpickler reads it."""

    def __init__(self, function, *arguments):
        self.reduced = function, arguments

    def __reduce__(self):
        return self.reduced


class Odd(nn.Module):
    """A module of a class that the reader does not know, with all that modules may have."""

    def __init__(self):
        super().__init__()
        self.first = nn.Sequential(nn.Conv3d(1, 2, 3), nn.BatchNorm3d(2), nn.Identity())
        self.turned = nn.Parameter(torch.arange(6.0).reshape(2, 3).t().half())  # not contiguous
        self.register_parameter("none", None)
        self.register_buffer("kept", torch.tensor([True, False]))
        self.register_buffer("passing", torch.zeros(3), persistent=False)
        self.notes = {"words": ("a", 1, 2.5, None), "set": {1, 2}, "array": np.arange(3)}


def saved(content, old: bool = False) -> bytes:
    stream = io.BytesIO()
    torch.save(content, stream, _use_new_zipfile_serialization=not old)
    return stream.getvalue()


def with_pickle(data: bytes) -> bytes:
    """A zip of torch.save whose data.pkl is this."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("x/data.pkl", data)
        archive.writestr("x/byteorder", "little")
        archive.writestr("x/data/0", np.arange(4, dtype="<f4").tobytes())
    return stream.getvalue()


def tensor_pickle(
    size=(4,), stride=(1,), offset=0, numel=4, kind=b"FloatStorage", key="0"
) -> bytes:
    """{"w": a tensor over storage `key`}, put together by hand."""

    def plain(value) -> bytes:
        return pickle.dumps(value, 2)[2:-1].replace(b"q\x00", b"").replace(b"q\x01", b"")

    return (
        b"\x80\x02}X\x01\x00\x00\x00wctorch._utils\n_rebuild_tensor_v2\n("
        b"(X\x07\x00\x00\x00storagectorch\n" + kind + b"\n"
        + plain(key) + plain("cpu") + plain(numel) + b"tQ"
        + plain(offset) + plain(size) + plain(stride) + b"\x89}tRs."
    )  # fmt: skip


def why_not(data: bytes) -> str:
    with pytest.raises(TorchFileError) as caught:
        read_torch_file(HERE, data)
    assert str(caught.value).startswith("weights.pt: ") and str(caught.value).endswith(".")
    assert len(str(caught.value)) < 500
    return str(caught.value)


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("parallel", [False, True])
def test_a_pickled_module_gives_its_state_dict_bit_for_bit(old, parallel, same_to_the_bit):
    torch.manual_seed(3)
    module = nn.DataParallel(Odd()) if parallel else Odd()
    found = read_torch_file(HERE, saved(module, old))
    expected = {name: value.detach() for name, value in module.state_dict().items()}
    assert list(found.tensors) == list(expected)
    assert same_to_the_bit(dict(found.tensors), expected)
    assert all(
        found.tensors[name].dtype == value.dtype and found.tensors[name].is_contiguous()
        for name, value in expected.items()
    )
    assert f"{__name__}.Odd" in found.globals_met and "torch.FloatStorage" in found.globals_met


@pytest.mark.parametrize("old", [False, True])
def test_state_dicts_and_checkpoints_around_them(old, same_to_the_bit):
    network = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    optimiser = torch.optim.Adam(network.parameters())
    network(torch.randn(4, 3)).sum().backward()
    optimiser.step()
    weights = network.state_dict()
    checkpoint = {"epoch": 3, "state_dict": weights, "optimizer": optimiser.state_dict()}
    for content in (weights, dict(weights), checkpoint, {"x": 1, "net": network}):
        assert same_to_the_bit(read_torch_file(HERE, saved(content, old)).tensors, dict(weights))
    two = {"generator": weights, "critic": weights}
    assert "several sets of weights: generator, critic" in why_not(saved(two, old))


def test_views_of_one_storage_are_told_apart():
    whole = torch.arange(12.0)
    content = {"a": whole[2:6], "b": whole[6:].reshape(2, 3).t(), "c": whole[3]}
    for old in (False, True):
        found = read_torch_file(HERE, saved(content, old)).tensors
        assert all(torch.equal(found[name], value) for name, value in content.items())


@pytest.mark.parametrize(
    "kind", ["float64", "bfloat16", "int64", "int32", "int16", "int8", "uint8"]
)
def test_kinds_of_numbers(kind):
    values = torch.tensor([[1, 2], [3, 100]]).to(getattr(torch, kind))
    for old in (False, True):
        found = read_torch_file(HERE, saved({"w": values}, old)).tensors["w"]
        assert found.dtype == values.dtype and torch.equal(found, values)


def test_an_unread_machine_gives_what_python_gives_for_plain_values():
    def plain(value):
        if isinstance(value, Pairs):
            return {plain(k): plain(v) for k, v in value.items}
        if isinstance(value, (list, tuple)):
            return type(value)(map(plain, value))
        return value

    content = {
        "a": [1, -2, 3.5, None, True, 2**70],
        "b": ("x", b"\xff\x00", ("é", "\n")),
        3: [[], {}],
    }
    content["again"] = content["a"]
    for protocol in range(6):
        data = pickle.dumps(content, protocol)
        found = plain(unpickle(io.BytesIO(data)).value)
        if protocol < 3:  # bytes are a call there
            found["b"] = (found["b"][0], content["b"][1], found["b"][2])
        assert found == content, protocol


TRAPS = {
    "os.system": (os.system, "touch {}"),
    "builtins.eval": (eval, "open({!r}, 'w')"),
    "builtins.exec": (exec, "open({!r}, 'w')"),
    "pathlib.Path.touch": (pathlib.Path.touch, pathlib.Path("{}")),
    "builtins.getattr": (getattr, os, "system"),
    "numpy": (np.save, "{}", np.zeros(1)),
    "torch.load": (torch.load, "{}"),
    "builtins.__import__": (builtins.__import__, "antigravity"),
}


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("name", TRAPS)
def test_traps_stay_shut(tmp_path, monkeypatch, old, name):
    target = str(tmp_path / "trapped")
    function, *arguments = TRAPS[name]
    if name == "builtins.getattr":
        arguments = [SimpleNamespace(system=1), "system"]
    arguments = [
        type(a)(str(a).format(target)) if isinstance(a, (str, pathlib.Path)) else a
        for a in arguments
    ]
    weights = {"w": torch.ones(2)}
    for content in (
        Trap(function, *arguments),
        {"state_dict": weights, "extra": Trap(function, *arguments)},
        {"state_dict": weights, "extra": [{"deep": (Trap(function, *arguments),)}]},
    ):
        data = saved(content, old)
        with monkeypatch.context() as patched:
            for module, what in ((os, "system"), (builtins, "eval"), (builtins, "exec")):
                patched.setattr(module, what, lambda *a, **k: pytest.fail("a trap was run"))
            if isinstance(content, Trap):
                assert "holds no tensors; it names " in why_not(data)
            else:
                found = read_torch_file(HERE, data)
                assert torch.equal(found.tensors["w"], weights["w"])
                needed = ("torch._utils", "torch.FloatStorage", "collections.OrderedDict")
                assert any(not g.startswith(needed) for g in found.globals_met)
    assert not (tmp_path / "trapped").exists()


def test_a_trap_in_place_of_a_tensor_or_inside_of_one_is_refused(tmp_path):
    module = nn.Linear(2, 1)
    module._buffers["trap"] = Trap(pathlib.Path.touch, tmp_path / "trapped")
    assert "its trap is no tensor of a kind that is known" in why_not(saved(module))
    by_hand = tensor_pickle().replace(b"\x89}tR", b"\x89cos\nsystem\nX\x04\x00\x00\x00true\x85RtR")
    assert torch.equal(read_torch_file(HERE, with_pickle(by_hand)).tensors["w"], torch.arange(4.0))
    as_offset = tensor_pickle().replace(b"tQK\x00", b"tQcos\nsystem\nX\x04\x00\x00\x00true\x85R")
    assert "described in a way that is not known" in why_not(with_pickle(as_offset))
    assert not (tmp_path / "trapped").exists()


def test_a_global_is_never_looked_up():
    found = unpickle(io.BytesIO(b"\x80\x02cno.such.module\nNo.Such.Name\nX\x01\x00\x00\x00a\x85R."))
    assert isinstance(found.value, Made) and isinstance(found.value.maker, Named)
    assert found.globals_met == {"no.such.module.No.Such.Name"}


def test_a_state_for_what_has_none_is_refused():
    # an ordinary unpickler would set attributes of the function itself
    data = b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n}X\x01\x00\x00\x00aK\x01sb."
    with pytest.raises(PickleError, match="a state is given to what has none"):
        unpickle(io.BytesIO(data))


def peak_bytes(data: bytes) -> int:
    tracemalloc.start()
    try:
        why_not(data)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (tensor_pickle(size=(2**40,), numel=2**40), "announces other values than are stored"),
        (tensor_pickle(size=(2**30, 2**30), stride=(0, 0)), "announces other values than are stored"),
        (tensor_pickle(size=(10**5,), stride=(0,)), "announces other values than are stored"),
        (tensor_pickle(offset=1), "announces other values than are stored"),
        (tensor_pickle(size=(2,), stride=(-1,)), "described in a way that is not known"),
        (tensor_pickle(offset=-1), "described in a way that is not known"),
        (tensor_pickle(size=(2, 2)), "described in a way that is not known"),
        (tensor_pickle(size=(0,)), "announces other values than are stored"),
        (tensor_pickle(kind=b"QUInt8Storage"), "of a kind that is not known"),
        (tensor_pickle(key="7"), "its storage '7' is missing"),
        (tensor_pickle(key="../../x/data/0"), "its storage '../../x/data/0' is missing"),
        (b"\x80\x04\x8e" + struct.pack("<Q", 2**62) + b"abc.", "no weights can be read from it"),
        (b"\x80\x02X" + struct.pack("<I", 2**31) + b"abc.", "no weights can be read from it"),
        (b"\x80\x04\x95" + struct.pack("<Q", 2**62) + b"N.", "holds no tensors"),
        (b"\x80\x02\x8b" + struct.pack("<i", 2**30) + b"1.", "no weights can be read from it"),
        (b"I" + b"9" * 10_000 + b"\n.", "no weights can be read from it"),
        (b"g999999999999\n.", "no weights can be read from it"),
        (b"\x80\x02Np" + b"9" * 400 + b"\n.", "holds no tensors"),
        (b"\x80\x02\x85.", "a value is missing"),
        (b"\x80\x02(.", "no weights can be read from it"),
        (b"\x80\x02NN.", "does not end with one value"),
        (b"\x80\x02K\x01K\x02a.", "elements are put into what is no list"),
        (b"\x80\x02K\x01K\x02K\x03s.", "items are put into what is no dict"),
        (b"\x80\x02}(K\x01u.", "a key has no value"),
        (b"\x80\x05\x97.", "it uses NEXT_BUFFER"),
        (b"\x80\x02\x82\x01.", "it uses EXT1"),
        (b"", "no weights can be read from it"),
        (b"\xff\xfe", "no weights can be read from it"),
    ],
)  # fmt: skip
def test_bombs_and_broken_pickles_have_a_reason_and_stay_small(data, said):
    content = with_pickle(data)
    assert said in why_not(content)
    assert peak_bytes(content) < 3_000_000


def test_what_contains_itself_many_times_over_takes_no_time():
    # t = (t, t), a hundred deep: its hash, its text and a comparison would take 2^100 steps
    doubling = b"\x80\x02)" + b"2\x86" * 100
    as_key = b"\x80\x02}" + doubling[2:] + b"K\x01s."
    for data in (doubling + b".", as_key, doubling + b"Q.", doubling + b"K\x01\x85R."):
        why_not(with_pickle(data))
    kind = tensor_pickle().replace(b"ctorch\nFloatStorage\n", doubling[2:])
    assert "numbers of a kind that is not known" in why_not(with_pickle(kind))


def test_deep_nesting_ends_in_no_recursion():
    for deep in (b"]" * 200_000 + b"a" * 199_999, b"N" + b"\x85" * 200_000):
        assert "holds no tensors" in why_not(with_pickle(b"\x80\x02" + deep + b"."))
    wrapped = b"ctorch._utils\n_rebuild_parameter\n" * 50_000 + b"N" + b"\x85R" * 50_000
    assert why_not(with_pickle(b"\x80\x02}X\x01\x00\x00\x00w" + wrapped + b"s."))


def test_modules_inside_of_themselves_have_an_end():
    module = nn.Linear(1, 1)
    module._modules["again"] = module
    assert "without end" in why_not(saved(module))
    tree = nn.Linear(1, 1)
    for _ in range(40):  # each twice the one before
        twice = nn.Module()
        twice._modules.update(a=tree, b=tree)
        tree = twice
    assert "without end" in why_not(saved(tree))


@pytest.mark.parametrize("old", [False, True])
def test_truncated_files_have_a_reason(old):
    data = saved(nn.Linear(30, 20), old)
    for n_bytes in sorted({*range(0, len(data), 61), 1, 2, 16, 20, len(data) - 1}):
        assert why_not(data[:n_bytes])


@pytest.mark.parametrize("old", [False, True])
def test_damaged_files_never_end_in_a_traceback(old):
    data = saved({"w": torch.ones(3), "v": torch.zeros(2, 2)}, old)
    places = generator("damage", int(old)).integers(0, len(data) * 8, 400).tolist()
    for place in places:
        flipped = bytearray(data)
        flipped[place // 8] ^= 1 << place % 8
        try:
            read_torch_file(HERE, bytes(flipped))
        except TorchFileError as error:
            assert len(str(error)) < 500


def test_other_archives_are_called_what_they_are():
    scripted = io.BytesIO()
    with zipfile.ZipFile(scripted, "w") as archive:
        archive.writestr("x/data.pkl", b"N.")
        archive.writestr("x/constants.pkl", b"N.")
    assert "TorchScript is not read" in why_not(scripted.getvalue())
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x/data.pkl", b"N.")
        archive.writestr("x/data/0", bytes(10_000_000))
    assert "compressed, which torch.save never does" in why_not(packed.getvalue())
    big = with_pickle(tensor_pickle()).replace(b"little", b"big   ")
    assert why_not(big)
    assert "was not written by torch.save" in why_not(pickle.dumps([1, 2]))
    assert why_not(b"epoch,loss\n1,2\n")


def test_a_huge_storage_of_the_old_form_is_not_believed():
    data = saved({"w": torch.ones(3)}, old=True)
    place = data.rindex(struct.pack("<q", 3))
    for announced in (4, 2**61, -1):
        forged = data[:place] + struct.pack("<q", announced) + data[place + 8 :]
        assert "is cut off" in why_not(forged)


def test_every_opcode_is_done_or_refused():
    """A later Python may add some; those are refused."""
    known = {*unpickling._NOTHING_TO_DO, *unpickling._ARGUMENT_IS_VALUE, *unpickling._VALUES}
    known |= {*unpickling._FRESH, "MEMOIZE", "GET", "BINGET", "LONG_BINGET"}
    known |= {"PUT", "BINPUT", "LONG_BINPUT"}
    done = {name[3:].upper() for name in dir(unpickling._Machine) if name.startswith("do_")}
    refused = {opcode.name for opcode in pickletools.opcodes} - known - done
    assert refused == {"EXT1", "EXT2", "EXT4", "NEXT_BUFFER", "READONLY_BUFFER"}


def mutated(data: bytes, draw: np.random.Generator) -> bytes:
    """With some bytes changed, taken out, put in, or repeated from elsewhere."""
    found = bytearray(data)
    for _ in range(draw.choice([1, 2, 8])):
        place, other = draw.integers(0, len(found), 2)
        what = draw.integers(0, 4)
        if what == 0:
            found[place] = draw.integers(0, 256)
        elif what == 1:
            del found[place : place + draw.integers(1, 8)]
        elif what == 2:
            found[place:place] = draw.integers(0, 256, 3).astype(np.uint8).tobytes()
        else:
            found[place:place] = found[other : other + 30]
    return bytes(found)


@pytest.mark.parametrize("old", [False, True])
def test_mutated_pickles_never_end_in_a_traceback(old):
    data = saved(Odd(), old)
    if not old:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            data = archive.read("archive/data.pkl")
    for number in range(400):
        changed = mutated(data, generator("mutated", int(old), number))
        try:
            read_torch_file(HERE, changed if old else with_pickle(changed))
        except TorchFileError as error:
            assert len(str(error)) < 500


def test_the_usual_key_comes_first_and_what_lies_beside_is_named():
    weights = {"w": torch.ones(2), "b": torch.zeros(1)}
    content = {"best_loss": torch.tensor(0.5), "state_dict": weights, "opt": nn.Linear(1, 1)}
    for old in (False, True):
        found = read_torch_file(HERE, saved(content, old))
        assert list(found.tensors) == ["w", "b"] and found.left_out == ["best_loss", "opt"]
    content["encoder"] = content.pop("state_dict")
    said = why_not(saved(content))
    assert "several sets of weights: opt, encoder, and tensors beside them: best_loss" in said


def test_a_state_dict_with_other_things_among_its_tensors_is_refused():
    weights = {"w": torch.ones(2), "bias": np.ones(3)}
    for content in (weights, {"state_dict": weights}, {"w": torch.ones(2), "bias": [0.5, 1.0]}):
        assert "among its tensors are other things, without which they may not be whole: bias" in (
            why_not(saved(content))
        )
    found = read_torch_file(HERE, saved({"w": torch.ones(2), "epoch": 3, "note": None}))
    assert list(found.tensors) == ["w"] and found.left_out == ["epoch", "note"]
    itself: dict = {"w": torch.ones(2)}
    itself["state_dict"] = itself
    assert "several sets of weights: state_dict, and tensors beside" in why_not(saved(itself))


def test_one_dict_that_is_referred_to_many_times_is_read_once(monkeypatch):
    """Of the square of the references a file of a megabyte would take minutes."""
    n_read = 0
    entries_of = module_trees.entries_of

    def counted(node):
        nonlocal n_read
        n_read += 1
        return entries_of(node)

    monkeypatch.setattr(module_trees, "entries_of", counted)
    shared = {f"k{i}": i for i in range(500)}
    assert "holds no tensors" in why_not(saved({f"n{i}": shared for i in range(500)}))
    assert n_read < 20
    monkeypatch.setattr(module_trees, "_MOST_ENTRIES", 4_000)
    module = nn.Module()
    module.register_buffer("one", torch.ones(1))
    module._buffers.update(dict.fromkeys(map(str, range(100)), module.one))
    whole = nn.Module()
    whole._modules.update({f"m{i}": module for i in range(50)})
    assert "without end" in why_not(saved(whole))
