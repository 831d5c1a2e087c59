"""Several processes train what one does with the same batches: float64, gloo, real torchrun."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from BrainAgeNetworks.checkpoints import load_checkpoint
from tests.training.shared_training import build, in_processes, make_volumes, restored, train
from utils.common.errors import UserError
from utils.common.launcher import Launch, launch
from utils.training.processes import ALONE, Processes, processes

TRAININGS = ["whole", "stopped", "gone_on", "of_each", "in_parts", "differing"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A prepared cohort."""
    folder = tmp_path_factory.mktemp("volumes")
    make_volumes(folder)
    return folder


@pytest.fixture(scope="module")
def by_two(folder, tmp_path_factory) -> Path:
    """What two processes kept of all trainings."""
    result = tmp_path_factory.mktemp("by_two")
    ended = in_processes(folder, result, TRAININGS)
    assert ended.returncode == 0, ended.stderr
    assert not ended.stderr.strip(), ended.stderr
    return result


def numbers(value) -> list[float]:
    """All numbers of a state in a fixed order; other leaves are left out."""
    if isinstance(value, torch.Tensor):
        return value.double().flatten().tolist()
    if isinstance(value, dict):
        return [number for key in sorted(value, key=str) for number in numbers(value[key])]
    if isinstance(value, (list, tuple)):
        return [number for item in value for number in numbers(item)]
    return [float(value)] if isinstance(value, (int, float)) else []


def assert_same_states(first: Path, second: Path, tolerance: float = 1e-10) -> None:
    """Weights, running statistics, moments of Adam, averages, history: everything that is kept."""
    one, other = (load_checkpoint(path) for path in (first, second))
    assert one.keys() == other.keys() and one["weights"].keys() == other["weights"].keys()
    assert one["history"] and one["optimiser"]["state"]
    for key in one:
        assert numbers(one[key]) == pytest.approx(
            numbers(other[key]), rel=tolerance, abs=tolerance
        ), key


@pytest.mark.parametrize("epoch", [1, 3])
@pytest.mark.parametrize("number", [1, 2])
def test_two_processes_equal_one_with_the_same_batches(folder, by_two, tmp_path, number, epoch):
    train(folder, tmp_path, smallest_group=2)
    name = f"{number}_{epoch}.pt"
    assert_same_states(tmp_path / name, by_two / "whole" / name)
    assert not any("module." in key for key in load_checkpoint(tmp_path / name)["weights"])


def test_three_processes_equal_one_with_the_same_batches(folder, tmp_path):
    ended = in_processes(folder, tmp_path / "by_three", ["whole"], n=3)
    assert ended.returncode == 0, ended.stderr
    train(folder, tmp_path / "by_one", smallest_group=3)
    assert_same_states(tmp_path / "by_one" / "1_3.pt", tmp_path / "by_three" / "whole" / "1_3.pt")


def test_a_signal_to_one_stops_all_at_the_same_step(by_two):
    said = [(by_two / "stopped" / f"stopped_{index}").read_text() for index in (0, 1)]
    assert said == ["a signal to another process", "SIGTERM"]
    place = load_checkpoint(by_two / "stopped" / "1_position.pt")
    # a step has a loss for each of two members: the tenth is the second's in the fifth step
    assert place["epoch"] == 1 and place["progress"]["next_step"] == 2
    assert place["progress"]["n_subjects"] == 8  # of both processes


def test_stopped_and_gone_on_equals_uninterrupted_in_two_processes(by_two):
    assert_same_states(by_two / "gone_on" / "2_3.pt", by_two / "whole" / "2_3.pt", 0.0)


def test_one_process_goes_on_from_where_two_stopped(folder, by_two, tmp_path):
    train(folder, tmp_path, members=restored(by_two / "stopped", "position"))
    for name in ("1_3.pt", "2_3.pt"):
        assert_same_states(tmp_path / name, by_two / "whole" / name)


def test_batch_norm_of_each_process_is_another_training(folder, by_two, tmp_path):
    train(folder, tmp_path, smallest_group=4)
    one, other = (
        load_checkpoint(path / "1_3.pt")["history"][0] for path in (tmp_path, by_two / "of_each")
    )
    assert one["train_loss"] == pytest.approx(other["train_loss"], rel=0.2)
    assert one["train_loss"] != pytest.approx(other["train_loss"], rel=1e-6)


def test_parts_are_as_many_in_every_process(by_two):
    """Groups of seven and four are 3 + 4 and 2 + 2 subjects: the first could be cut in 1 and 2 parts."""
    assert load_checkpoint(by_two / "in_parts" / "1_3.pt")["epoch"] == 3


def test_what_differs_is_refused_by_all_with_the_process_named(by_two):
    said = {(by_two / "differing" / f"same_{index}").read_text() for index in (0, 1)}
    assert said == {
        "the settings of process 2 of 2 is not that of the first: {'a': 1} and {'a': 0}. All processes "
        "need the same settings, lists, prepared volumes and checkpoints."
    }


def test_a_sentence_of_one_process_is_everybodys(by_two):
    said = {(by_two / "differing" / f"together_{index}").read_text() for index in (0, 1)}
    assert said == {"the disk is full."}


def test_without_torchrun_there_is_one_process(monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    assert launch() == Launch()
    with processes(lambda: torch.device("cpu")) as (here, device):
        assert here is ALONE and device == torch.device("cpu")
    network, values = build(1).network, torch.ones(3)
    assert ALONE.sharing(network) is network and ALONE.sum_of(values) is values
    assert ALONE.agree_any(True) and not ALONE.agree_any(False)
    with pytest.raises(UserError, match="lists"), ALONE.together(), ALONE.ending_all():
        raise UserError("the lists are empty.")


def test_torchruns_variables_are_read(monkeypatch):
    words = {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4"}
    for name, value in words.items():
        monkeypatch.setenv(name, value)
    assert launch() == Launch(5, 8, 1, 4)
    assert launch().name == "process 6 of 8" and not launch().is_first


def test_each_process_takes_its_own_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    here = Processes(Launch(index=5, n=8, local_index=1, n_local=4))
    assert here.device_of(torch.device("cuda")) == torch.device("cuda:1")
    assert here.device_of(torch.device("cpu")) == torch.device("cpu")
    with pytest.raises(UserError, match="4 processes on this machine cannot share one GPU"):
        here.device_of(torch.device("cuda:0"))


def test_fewer_gpus_than_processes_is_a_sentence(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    said = r"2 processes on this machine, and torch sees 1 GPU\(s\) here: start 1 \(--nproc_per_node=1\)"
    with pytest.raises(UserError, match=said):
        Processes(Launch(0, 2, 0, 2)).device_of(torch.device("cuda"))
