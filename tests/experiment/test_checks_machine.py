"""The machine and the settings: torch's faults, device, memory, disk, cores; paths, tables and age bins."""

from __future__ import annotations

import logging
import math

import pytest
import torch

from BrainAgeNetworks.registry import count_parameters
from utils.common.errors import UserError
from utils.experiment.checks import machine
from utils.experiment.checks.quick import quick_check
from utils.experiment.training import member_plan
from utils.modes import prepare


def said(checked_study, part: str, *settings: str, **options) -> list[str]:
    found = checked_study.check(*settings, **options).findings
    return [f"{f.level} {f.reason}" for f in found if f.part == part]


def test_a_machine_that_can_do_it_gets_notes_alone(checked_study, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr(torch, "__version__", "2.13.0")
    found = said(checked_study, "machine")
    assert len(found) == 3 and all(text.startswith("note ") for text in found)
    assert any("3 networks of" in text and "GB of memory" in text for text in found)


@pytest.mark.parametrize(
    ("version", "faulty"), [("2.9.1+cu128", True), ("2.8.0", False), ("2.10.0", False)]
)
def test_the_versions_of_torch_with_a_faulty_convolution(
    checked_study, monkeypatch, version, faulty
):
    monkeypatch.setattr(torch, "__version__", version)
    found = said(checked_study, "machine")
    assert any(text.startswith("warning torch 2.9.1") for text in found) == faulty


def test_a_device_that_is_not_there_stops(checked_study, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    found = said(checked_study, "machine", device="cuda:7")
    assert any(text.startswith("error device cuda:7") for text in found)


def test_too_little_memory_and_disk(checked_study, monkeypatch):
    monkeypatch.setattr(machine, "free_memory_bytes", lambda: 1e6)
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda path: usage)
    found = said(checked_study, "machine")
    assert any("GB of memory, and 0.001 GB are free" in text for text in found)
    assert any(
        "checkpoints of 1 cell(s), 3 a network" in text and "are free" in text for text in found
    )
    kept = said(checked_study, "machine", "TRAINING.keep_every=10")
    assert any("28 a network" in text for text in kept)
    monkeypatch.setattr(machine, "free_memory_bytes", lambda: None)
    assert not any("GB of memory, and" in text for text in said(checked_study, "machine"))


def test_prepared_volumes_are_not_kept_in_memory(checked_study):
    cache = "DATA.cache_directory=cache"
    assert any("volumes kept in memory" in text for text in said(checked_study, "machine", cache))
    prepare.run(checked_study.experiment(cache))
    assert any("volumes read ahead" in text for text in said(checked_study, "machine", cache))


def test_a_gpu_with_too_little_memory(checked_study, monkeypatch):
    experiment = checked_study.experiment()
    monkeypatch.setattr(machine, "_free_gpu_bytes", lambda device: 1e6)
    size = {"tiny_female": machine.NetworkSize(1_000_000, 2_000_000_000)}
    found = [
        finding.reason
        for finding in machine._memory(experiment, experiment.subjects, torch.device("cuda"), size)
        if finding.level == "warning"
    ]
    # three networks with gradients and Adam, and one batch of three at a time
    assert found == [
        "tiny_female: 3 networks of 1,000,000 parameters, batches of 3: about 2.6 GB of GPU memory, and 0.001 GB "
        "are free"
    ]


def test_more_workers_and_threads_than_cores(checked_study, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "5000")
    found = said(checked_study, "machine", "DATA.num_workers=200")
    assert any(text.startswith("warning num_workers = 200") for text in found)
    assert any(text.startswith("warning OMP_NUM_THREADS = 5000") for text in found)


def test_the_size_of_a_network_is_that_of_the_network(checked_study):
    plain = checked_study.experiment("NETWORK.blocks=plain", "TRAINING.precision=float32")
    plan = member_plan(plain, plain.cells[0], 60.0, torch.device("cpu"))
    size = machine.network_size(plain, plan)
    assert size.n_parameters == count_parameters(plan.build_network())
    n_volumes, voxels = plain.settings.training.training_batch_size, math.prod(plan.network.box)
    kept = (
        4 * n_volumes * voxels * plan.network.widths[0] * 2
    )  # the first block's convolution and norm
    assert kept < size.bytes_a_step < 3 * kept
    fused = checked_study.experiment("NETWORK.blocks=fused", "TRAINING.precision=float32")
    less = machine.network_size(fused, member_plan(fused, fused.cells[0], 60.0, plan.device))
    assert less.n_parameters == size.n_parameters and less.bytes_a_step <= size.bytes_a_step
    assert machine.network_size(plain, plan, with_activations=False).bytes_a_step == 0


def test_a_network_that_cannot_be_built_stops(checked_study):
    found = said(checked_study, "settings", "NETWORK.widths=(4, 4, 4, 4, 4, 4)")
    assert any("is too small for 6 poolings" in text for text in found)


def test_contrasts_paths_and_tables_that_are_not_there(checked_study):
    (checked_study.folder / "x_eval.ini").write_text('[ASSOCIATION]\nnidps = "nidps.csv"\n')
    found = said(checked_study, "settings", 'DATA.data_directory="nowhere"')
    assert any("nowhere is no folder" in text for text in found)
    assert any("[ASSOCIATION] nidps:" in text and "does not exist" in text for text in found)
    assert any(
        "no contrast swi" in t for t in said(checked_study, "settings", 'DATA.modality_flag="swi"')
    )
    found = said(checked_study, "settings", 'DATA.path_template="{subject}/{data_file}"')
    assert any("unknown field" in text for text in found)


def test_ages_outside_the_bins(checked_study):
    found = said(checked_study, "settings", 'TRAINING.loss_function="kl"')
    assert found == []
    found = said(
        checked_study, "settings", 'TRAINING.loss_function="kl"', "NETWORK.age_bins=(55.0, 82.0)"
    )
    assert found == ["error [NETWORK] age_bins = (55, 82): 3 of 10 ages lie outside"]


@pytest.fixture
def heard(monkeypatch):
    """Warnings of the program."""
    logger, lines = logging.getLogger("brain_age"), []
    monkeypatch.setattr(logger, "warning", lambda text, *values: lines.append(text % values))
    return lines


def test_the_quick_part_is_silent_where_nothing_is_wrong(checked_study, heard, monkeypatch):
    monkeypatch.setattr(torch, "__version__", "2.13.0")
    quick_check(checked_study.experiment())
    assert heard == []


def test_the_quick_part_warns_in_a_line_each(checked_study, heard, monkeypatch):
    monkeypatch.setattr(torch, "__version__", "2.9.0")
    for position in (0, 1, 7, 8, 9):
        checked_study.volume(position).unlink()
    quick_check(checked_study.experiment())
    assert len(heard) == 3
    assert "torch 2.9.0 has a faulty Conv3d" in heard[0]
    assert "5 of the volumes looked at cannot be used; -m check names them all." in heard[1]
    assert "none of the 3 looked at validation volumes can be used" in heard[2]


def test_the_quick_part_stops_where_no_volume_can_be_used(checked_study, heard):
    for position in range(12):
        checked_study.volume(position).unlink()
    with pytest.raises(UserError, match=r"no training volume that was looked at.*no such file"):
        quick_check(checked_study.experiment())


def test_a_file_that_is_gone_is_an_error_though_it_is_prepared(checked_study, heard, monkeypatch):
    monkeypatch.setattr(torch, "__version__", "2.13.0")
    cache = "DATA.cache_directory=cache"
    prepare.run(checked_study.experiment(cache))
    checked_study.volume(1).unlink()
    quick_check(checked_study.experiment(cache))
    assert len(heard) == 1 and "1 of the volumes looked at cannot be used" in heard[0]
    found = [f for f in checked_study.check(cache).findings if f.level == "error"]
    assert [(f.subject_id, "no such file" in f.reason) for f in found] == [("002", True)]
    for position in range(12):
        checked_study.volume(position).unlink(missing_ok=True)
    with pytest.raises(UserError, match=r"no training volume that was looked at.*no such file"):
        quick_check(checked_study.experiment(cache))


def test_the_quick_part_says_how_many_problems_the_lists_have(checked_study):
    checked_study.rows += ["001,50,f,test", "020,50,x,test"]
    checked_study.write_table()
    with pytest.raises(UserError, match=r"occur twice.* 2 more problem\(s\)"):
        quick_check(checked_study.experiment())
    checked_study.rows[-2:] = ["020,50,x,test"]
    checked_study.write_table()
    with pytest.raises(UserError, match=r"sex 'x' is not understood") as error:
        quick_check(checked_study.experiment())
    assert "more problem" not in str(error.value)
