"""What a training may start from: what agrees is loaded and recorded, what does not is a sentence."""

from __future__ import annotations

import json
import os
import sys

import pytest
import torch

from BrainAgeNetworks.checkpoints import save_checkpoint
from BrainAgeNetworks.registry import NetworkPlan, build_network
from BrainAgeNetworks.targets import BinsTarget, YearsTarget, target_to_dict
from utils.common.errors import UserError
from utils.experiment.experiment import Experiment, Options
from utils.experiment.pretraining import pre_trained_path, pre_trained_paths, start_from
from utils.modes import convert, verify
from utils.settings.reader import read_settings
from utils.training.member import MemberPlan
from utils.training.optimisation import OptimisationPlan

BOX = (16, 18, 16)


@pytest.fixture
def study(tiny_cohort, tmp_path):
    """Function: overrides -> an experiment on the tiny cohort."""

    def make(*overrides: str, preprocessing: str = "agemapper", **options) -> Experiment:
        (tmp_path / "x.ini").write_text(
            '[DATA]\ndataset_sex = "both"\nmodality_flag = "tiny"\ndata_directory = "subjects"\n'
            f'scaling_values = "contrasts.csv"\npreprocessing = "{preprocessing}"\n'
            "[TRAINING]\nensemble_size = 2\n[NETWORK]\nwidths = (2, 3)\n"
        )
        (tmp_path / "x_eval.ini").write_text("")
        return Experiment(read_settings(str(tmp_path / "x"), overrides), Options(**options))

    return make


@pytest.fixture
def said(caplog):
    """Function: what was said since it was last asked."""
    caplog.set_level("INFO", logger="brain_age")

    def words() -> str:
        text = caplog.text
        caplog.clear()
        return text

    return words


def member_of(target=None, network: str = "agemapper", average: float = 0.0, number: int = 1):
    target = target or YearsTarget(63.0)
    widths = (2, 3) if network == "agemapper" else (2, 3, 4)
    plan = MemberPlan(
        NetworkPlan(network, BOX, target.n_outputs, widths), target,
        OptimisationPlan(average_decay=average), 40, 0.0, 0, torch.device("cpu"),
    )  # fmt: skip
    return plan.build(number, seed=number)


def record_of(experiment: Experiment, scale_factor: float = 100.0) -> dict:
    contrast = experiment.contrasts[0]
    return {
        "contrast": {**contrast.describe(), "scale_factor": scale_factor},
        "network_plan": {"upsample": False},
    }


def checkpoint(experiment: Experiment, path, **changes) -> dict:
    """A checkpoint as a training on the tiny cohort writes it, with changes; its content."""
    torch.manual_seed(9)
    plan = NetworkPlan("agemapper", BOX, widths=(2, 3))
    content = {
        **record_of(experiment), "network_plan": plan.to_dict(), "sex": "both", "experiment": "first",
        "scale_factor_is_auto": False, "target": target_to_dict(YearsTarget(60.0)), "optimiser": {},
        "weights": build_network(plan).state_dict(),
    }  # fmt: skip
    content["contrast"] |= changes.pop("contrast", {})
    save_checkpoint({**content, **changes}, path)
    return content


def sfcn_file(path, n_outputs: int = 40):
    torch.manual_seed(8)
    weights = build_network(NetworkPlan("sfcn", BOX, n_outputs, (2, 3, 4))).state_dict()
    torch.save({f"module.{name}": value for name, value in weights.items()}, path)
    return weights


def test_nothing_to_start_from(study, said):
    experiment = study()
    member = member_of()
    before = {name: value.clone() for name, value in member.network.state_dict().items()}
    assert start_from(experiment, experiment.grid[0], member, record_of(experiment)) == {}
    assert all(torch.equal(v, before[n]) for n, v in member.network.state_dict().items())
    assert said() == ""
    experiment = study('TRAINING.frozen_layers=("Feature_Extractor",)')
    assert start_from(experiment, experiment.grid[0], member, record_of(experiment)) == {}
    assert "these layers stay at random" in said()


@pytest.mark.parametrize("average", [0.0, 0.9])
def test_own_checkpoint(study, tmp_path, average, said):
    experiment = study("TRAINING.use_pre_trained=best.pt")
    content = checkpoint(experiment, tmp_path / "best.pt")
    member = member_of(average=average)
    found = start_from(experiment, experiment.grid[0], member, record_of(experiment))
    assert found["kind"] == "checkpoint" and found["head"] == "keep" and found["n_matched"] == 18
    assert (
        found["experiment"] == "first" and found["file"] == "best.pt" and len(found["sha256"]) == 64
    )
    torch.manual_seed(0)
    volumes = torch.randn(2, 1, *BOX)
    first = build_network(NetworkPlan("agemapper", BOX, widths=(2, 3)))
    first.load_state_dict(content["weights"])
    ages = YearsTarget(60.0).years(first.eval()(volumes))
    assert torch.allclose(member.target.years(member.evaluated.eval()(volumes)), ages, atol=1e-5)
    assert torch.allclose(member.target.years(member.network.eval()(volumes)), ages, atol=1e-5)
    words = said()
    assert "network 1 starts from" in words and "18 names matched" in words


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"contrast": {"voxel_mm": 2.0}}, r"voxel_mm was 2\.0 in its training and is 8\.0"),
        ({"contrast": {"crop": [[0, 16], [2, 20], [0, 16]]}}, r"crop was \[\[0, 16\], \[2, 20\]"),
        ({"contrast": {"divide_by_mean": True}}, "divide_by_mean was True in its training"),
        (
            {"contrast": {"scale_factor": 90.0}},
            r"scale_factor was 90 in its training and is 100; set",
        ),
        ({"contrast": {"preprocessing": "peng"}}, r'set \[DATA\] preprocessing = "peng"'),
    ],
)
def test_other_volumes_are_refused(study, tmp_path, changes, said):
    experiment = study("TRAINING.use_pre_trained=best.pt")
    checkpoint(experiment, tmp_path / "best.pt", **changes)
    with pytest.raises(UserError, match=rf"best\.pt: does not fit tiny_both: .*{said}"):
        start_from(experiment, experiment.grid[0], member_of(), record_of(experiment))


def test_another_contrast_or_sex_is_said_and_goes_on(study, tmp_path, said):
    experiment = study("TRAINING.use_pre_trained=best.pt")
    changes = {
        "contrast": {"name": "T1", "scale_factor": 5.0, "divide_by_mean": True},
        "sex": "female",
    }
    checkpoint(experiment, tmp_path / "best.pt", **changes)
    assert start_from(experiment, experiment.grid[0], member_of(), record_of(experiment))
    words = said()
    assert "another split" not in words
    assert "was trained on T1, and goes on with tiny" in words
    assert "was trained on female subjects, and goes on with both" in words


def test_another_split_is_said(study, tmp_path, said):
    experiment = study("TRAINING.use_pre_trained=best.pt")
    checkpoint(experiment, tmp_path / "best.pt", split_hash="1a2b")
    record = record_of(experiment)
    for split_hash in ("1a2b", "3c4d"):
        start_from(
            experiment, experiment.grid[0], member_of(), {**record, "split_hash": split_hash}
        )
        assert ("was trained with another split" in said()) == (split_hash == "3c4d")


def test_automatic_scale_factors_may_differ_a_little(study, tmp_path, said):
    experiment = study("TRAINING.use_pre_trained=best.pt")
    table = tmp_path / "contrasts.csv"
    table.write_text(table.read_text().replace("tiny,100", "tiny,auto"))
    checkpoint(experiment, tmp_path / "best.pt", scale_factor_is_auto=True)
    cell = experiment.grid[0]
    assert cell.contrast.scale_factor is None
    assert start_from(experiment, cell, member_of(), record_of(experiment, 101.0))
    assert "automatic scale factor" not in said()
    assert start_from(experiment, cell, member_of(), record_of(experiment, 120.0))
    assert "the automatic scale factor was 100 in its training and is 120" in said()
    checkpoint(experiment, tmp_path / "best.pt")  # the table gave its factor
    with pytest.raises(UserError, match="scale_factor was 100 in its training and is 101"):
        start_from(experiment, cell, member_of(), record_of(experiment, 101.0))


def test_records_of_before_the_second_preprocessing(study, tmp_path):
    experiment = study("TRAINING.use_pre_trained=best.pt")
    content = checkpoint(experiment, tmp_path / "best.pt")
    del content["contrast"]["preprocessing"]
    save_checkpoint(content, tmp_path / "best.pt")
    found = start_from(experiment, experiment.grid[0], member_of(), record_of(experiment))
    assert found["preprocessing"] == "agemapper"
    experiment = study("TRAINING.use_pre_trained=best.pt", preprocessing="peng")
    with pytest.raises(
        UserError, match=r"preprocessing agemapper, and peng is set; set \[DATA\] pre"
    ):
        start_from(experiment, experiment.grid[0], member_of(), record_of(experiment))


def test_released_sfcn_asks_for_its_preprocessing_and_its_bins(study, tmp_path, said):
    weights = sfcn_file(tmp_path / "sfcn.p")
    overrides = ("TRAINING.use_pre_trained=sfcn.p", "NETWORK.network=sfcn")
    bins = BinsTarget(63.0)
    experiment = study(*overrides)
    with pytest.raises(
        UserError, match=r'trained with preprocessing peng, .* preprocessing = "peng"'
    ):
        start_from(experiment, experiment.grid[0], member_of(bins, "sfcn"), record_of(experiment))
    experiment = study(*overrides, preprocessing="peng")
    cell, record = experiment.grid[0], record_of(experiment, 1.0)
    with pytest.raises(UserError, match=r'Set loss_function = "kl" with age_bins = \(42, 82\)'):
        start_from(experiment, cell, member_of(YearsTarget(63.0), "sfcn"), record)
    member = member_of(bins, "sfcn")
    assert start_from(experiment, cell, member, record)["preprocessing"] == "peng"
    assert all(torch.equal(v, weights[n]) for n, v in member.network.state_dict().items())
    assert "sees 160 x 192 x 160 voxels, this one 16 x 18 x 16" in said()
    with pytest.raises(
        UserError, match=r'Set \[NETWORK\] network = "sfcn" and widths = \(2, 3, 4\)'
    ):
        start_from(experiment, cell, member_of(), record)


def test_a_new_head_for_another_target(study, tmp_path):
    weights = sfcn_file(tmp_path / "sfcn.p")
    overrides = ("TRAINING.use_pre_trained=sfcn.p", "TRAINING.pre_trained_head=new")
    experiment = study(*overrides, preprocessing="peng")
    member = member_of(YearsTarget(63.0), "sfcn")
    drawn = member.network.classifier.conv_3.weight.clone()
    record = record_of(experiment, 1.0)
    found = start_from(experiment, experiment.grid[0], member, record)
    assert found["head"] == "new" and found["n_matched"] == len(weights) - 2
    assert torch.equal(member.network.classifier.conv_3.weight, drawn)
    assert torch.equal(
        member.network.feature_extractor.conv_0[0].weight,
        weights["feature_extractor.conv_0.0.weight"],
    )


def test_networks_that_would_stay_equal_are_called_so(study, tmp_path, said):
    experiment = study("TRAINING.use_pre_trained=best.pt")
    checkpoint(experiment, tmp_path / "best.pt")
    cell, record = experiment.grid[0], record_of(experiment)
    start_from(experiment, cell, member_of(), record)
    assert "stay equal" not in said()
    start_from(experiment, cell, member_of(number=2), record)
    assert "without dropout they stay equal" in said()
    for number in (1, 2):
        checkpoint(experiment, tmp_path / f"tiny_both_{number}.pt")
    experiment = study("TRAINING.use_pre_trained={contrast}_{sex}_{network}.pt")
    start_from(experiment, cell, member_of(number=2), record)
    assert "stay equal" not in said()


def test_fields_of_the_path(study, tmp_path):
    experiment = study("TRAINING.use_pre_trained=old/{contrast}_{sex}/network_{network}/best.pt")
    cell = experiment.grid[0]
    expected = tmp_path / "old" / "tiny_both" / "network_2" / "best.pt"
    assert pre_trained_path(experiment, cell, 2) == expected
    paths = pre_trained_paths(experiment)
    assert len(paths) == 2 and paths[1] == expected
    assert pre_trained_paths(study("TRAINING.use_pre_trained=a.pt")) == [tmp_path / "a.pt"]
    one = study("TRAINING.use_pre_trained={contrast}.pt")
    assert pre_trained_paths(one) == [tmp_path / "tiny.pt"]
    for text in ("{subject}.pt", "{contrast.pt", "{0}.pt", "{sex.x}.pt"):
        wrong = study(f"TRAINING.use_pre_trained={text}")
        with pytest.raises(UserError, match=r"known are \{contrast\}, \{sex\} and \{network\}"):
            pre_trained_path(wrong, cell, 1)
    with pytest.raises(UserError, match="name the file of weights first"):
        pre_trained_paths(study())


def test_converting_and_starting_from_what_was_converted(study, tmp_path, said):
    network = build_network(NetworkPlan("agemapper", BOX, widths=(2, 3)))
    torch.save(network, tmp_path / "NAME.pth.tar")
    experiment = study("TRAINING.use_pre_trained=NAME.pth.tar")
    cell, record = experiment.grid[0], record_of(experiment)
    with pytest.raises(
        UserError, match=r"NAME\.pth\.tar: holds pickled Python objects.*-m convert"
    ):
        start_from(experiment, cell, member_of(), record)
    convert.run(experiment)
    written = experiment.paths.converted / "NAME.safetensors"
    globals_met = json.loads(written.with_suffix(".json").read_text())["globals_met"]
    assert "BrainAgeNetworks.agemapper.AgeMapper" in globals_met
    words = said()
    assert "none of which was called or imported" in words
    assert "do not need BrainAgeNetworks.agemapper.AgeMapper" in words
    experiment = study(f"TRAINING.use_pre_trained={written}")
    member = member_of(YearsTarget(0.0))
    found = start_from(experiment, cell, member, record)
    assert found["kind"] == "agemapper" and found["file"] == "NAME.safetensors"
    assert all(
        torch.equal(v, network.state_dict()[n]) for n, v in member.network.state_dict().items()
    )


def test_what_cannot_be_converted_is_named(study, tmp_path):
    (tmp_path / "tiny_1.pt").write_bytes(b"no weights")
    torch.save(torch.nn.Linear(2, 1), tmp_path / "tiny_2.pt")
    experiment = study("TRAINING.use_pre_trained={contrast}_{network}.pt")
    convert.run(experiment)
    assert len(experiment.problems) == 1 and "tiny_1.pt" in experiment.problems[0]
    assert [p.name for p in sorted(experiment.paths.converted.iterdir())] == [
        "tiny_2.json", "tiny_2.safetensors",
    ]  # fmt: skip
    with pytest.raises(UserError, match="no weights can be read from it: it was not"):
        convert.run(study("TRAINING.use_pre_trained=tiny_1.pt"))
    for number in (1, 2):
        (tmp_path / str(number)).mkdir()
    with pytest.raises(UserError, match=r"would both become a\.safetensors; rename one"):
        convert.run(study("TRAINING.use_pre_trained={network}/a.pt"))


def test_converting_imports_no_module_of_the_file(study, tmp_path, monkeypatch):
    source = tmp_path / "odd_program.py"
    source.write_text("import torch\nclass Net(torch.nn.Linear):\n    pass\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    import odd_program

    torch.save(odd_program.Net(2, 1), tmp_path / "net.pt")
    del sys.modules["odd_program"]
    source.write_text("raise RuntimeError('imported')\n")
    convert.run(study("TRAINING.use_pre_trained=net.pt"))
    assert "odd_program" not in sys.modules


@pytest.mark.parametrize("changes", [{"upsample": True}, {"n_poolings": 1}])
def test_another_way_with_2mm_is_refused_unless_the_head_is_new(study, tmp_path, changes):
    experiment = study("TRAINING.use_pre_trained=best.pt")
    plan = NetworkPlan("agemapper", BOX, widths=(2, 3)).to_dict()
    checkpoint(experiment, tmp_path / "best.pt", network_plan=plan | changes)
    cell, record = experiment.grid[0], record_of(experiment)
    with pytest.raises(UserError, match=r"set \[NETWORK\] resolution_2mm as it was"):
        start_from(experiment, cell, member_of(), record)
    assert start_from(experiment, cell, member_of(), {**record, "network_plan": plan | changes})
    experiment = study("TRAINING.use_pre_trained=best.pt", "TRAINING.pre_trained_head=new")
    assert start_from(experiment, cell, member_of(), record)["head"] == "new"


def test_what_a_file_names_that_could_do_harm_stands_in_a_line_of_its_own(study, tmp_path, said):
    class Trap:
        def __reduce__(self):
            return os.system, ("true",)

    torch.save({"state_dict": {"w": torch.ones(1)}, "x": Trap(), "epoch": 3}, tmp_path / "a.pt")
    convert.run(study("TRAINING.use_pre_trained=a.pt"))
    words = said()
    assert "left out, since they are no weights: x, epoch." in words
    assert f"names {os.name}.system, which run commands or code" in words
    assert "do not need" not in words


def test_converted_files_are_verified_with_the_rest(study, tmp_path, said):
    torch.save({"w": torch.ones(3)}, tmp_path / "a.pt")
    experiment = study("TRAINING.use_pre_trained=a.pt")
    convert.run(experiment)
    said()
    assert list(verify.converted(experiment)) == [] and "1 converted files verified" in said()
    path = experiment.paths.converted / "a.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    ((kind, file, reason),) = verify.converted(experiment)
    assert (kind, file) == ("converted weights", str(path)) and "its checksum differs" in reason
