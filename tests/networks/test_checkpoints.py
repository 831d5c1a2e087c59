"""Checkpoints: whole or refused, whatever happened to the file, and nothing in it is executed."""

from __future__ import annotations

import pathlib

import pytest
import torch

from BrainAgeNetworks.checkpoints import CheckpointError, load_checkpoint, save_checkpoint
from BrainAgeNetworks.registry import NetworkPlan, build_network
from utils.common.randomness import generator


@pytest.fixture
def content():
    torch.manual_seed(1)
    network = build_network(NetworkPlan("agemapper", (4, 4, 4), widths=(2, 2)))
    return {"weights": network.state_dict(), "epoch": 7, "history": [{"epoch": 1, "loss": 0.5}]}


@pytest.fixture
def saved(content, tmp_path):
    path = tmp_path / "best.pt"
    save_checkpoint(content, path)
    return path


def refusal(path) -> str:
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(path)
    assert str(path) in str(caught.value)
    return str(caught.value)


def test_roundtrip_and_plain_torch(content, saved):
    for loaded in (load_checkpoint(saved), torch.load(saved, weights_only=True)):
        assert loaded["epoch"] == 7 and loaded["history"] == content["history"]
        assert loaded["weights"].keys() == content["weights"].keys()
        for name, tensor in content["weights"].items():
            assert torch.equal(loaded["weights"][name], tensor)
    assert [path.name for path in saved.parent.iterdir()] == ["best.pt"]


def test_the_same_content_gives_the_same_bytes(content, saved, tmp_path):
    save_checkpoint(content, tmp_path / "again.pt")
    assert (tmp_path / "again.pt").read_bytes() == saved.read_bytes()


def test_no_flipped_bit_loads_in_silence(saved):
    whole = saved.read_bytes()
    n_bits = len(whole) * 8
    places = generator("flips").choice(n_bits, 300, replace=False).tolist()
    places += range(n_bits - 8 * 95, n_bits, 7)  # the line with the checksum
    for place in places:
        flipped = bytearray(whole)
        flipped[place // 8] ^= 1 << place % 8
        saved.write_bytes(bytes(flipped))
        assert "damaged" in refusal(saved), place
    saved.write_bytes(whole)
    load_checkpoint(saved)


def test_no_truncated_or_lengthened_file_loads_in_silence(saved):
    whole = saved.read_bytes()
    for n_bytes in [
        0,
        1,
        3,
        100,
        *range(200, len(whole) - 1, 997),
        len(whole) - 95,
        len(whole) - 1,
    ]:
        saved.write_bytes(whole[:n_bytes])
        assert "is damaged or no checkpoint" in refusal(saved), n_bytes
    saved.write_bytes(whole + b"\n")
    assert "damaged" in refusal(saved)


def test_a_pickled_object_is_refused_and_not_run(tmp_path):
    class Trap:
        def __reduce__(self):
            return pathlib.Path.touch, (tmp_path / "trapped",)

    torch.save(Trap(), tmp_path / "trap.pt")
    assert "holds pickled Python objects" in refusal(tmp_path / "trap.pt")
    save_checkpoint({"inside": Trap()}, tmp_path / "sealed.pt")  # with a right checksum
    assert "holds pickled Python objects" in refusal(tmp_path / "sealed.pt")
    torch.save(torch.nn.Linear(2, 1), tmp_path / "module.pt")  # as the published program saves
    assert "save the network's state_dict() instead" in refusal(tmp_path / "module.pt")
    torch.save(torch.nn.Linear(2, 1), tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    assert "holds pickled Python objects" in refusal(tmp_path / "old.pt")
    assert not (tmp_path / "trapped").exists()


def test_other_peoples_weights_are_called_that(content, tmp_path):
    torch.save(content["weights"], tmp_path / "state.pt")
    assert "weights of another program" in refusal(tmp_path / "state.pt")
    torch.save(torch.zeros(3), tmp_path / "tensor.pt")
    assert "weights of another program" in refusal(tmp_path / "tensor.pt")


@pytest.mark.parametrize("text", [b"", b"epoch,loss\n1,2\n", b"\x00" * 500, b"PK\x03\x04 no zip"])
def test_files_that_are_no_checkpoint(tmp_path, text):
    (tmp_path / "x.pt").write_bytes(text)
    assert "is damaged or no checkpoint" in refusal(tmp_path / "x.pt")


def test_missing_files_and_folders(tmp_path):
    assert "no checkpoint can be read there (No such file" in refusal(tmp_path / "none.pt")
    assert "no checkpoint can be read there (Is a directory" in refusal(tmp_path)


@pytest.mark.parametrize("version", [0, 2, None])
def test_another_format_is_named(content, tmp_path, version):
    save_checkpoint({**content, "format_version": version}, tmp_path / "x.pt")
    assert f"has format {version}, this program reads 1" in refusal(tmp_path / "x.pt")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b'\x3a\x00\x00\x00\x00\x00\x00\x00{"w":{"dtype":"F32"}}', "is a safetensors file"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "is a Git LFS pointer"),
    ],
)
def test_other_files_under_its_name_are_named(tmp_path, content, said):
    path = tmp_path / "weights.pth"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=said):
        load_checkpoint(path)
