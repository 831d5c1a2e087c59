"""Weights of other origin: ages worked out by hand, every misfit named, nothing loaded in part."""

from __future__ import annotations

import dataclasses
import json
import math
import pathlib
import zipfile

import pytest
import torch
from torch import nn

from BrainAgeNetworks import pretrained as pretrained_module
from BrainAgeNetworks.checkpoints import save_checkpoint
from BrainAgeNetworks.conversion import (
    convert,
    converted_stem,
    harmful_globals,
    read_converted,
    unusual_globals,
)
from BrainAgeNetworks.matching import match, weights_for
from BrainAgeNetworks.pretrained import Pretrained, read_pretrained
from BrainAgeNetworks.registry import NetworkPlan, build_network, count_parameters
from BrainAgeNetworks.targets import BinsTarget, YearsTarget, target_to_dict
from BrainAgeNetworks.tensor_files import write_tensors
from datasets.contrasts import PUBLISHED_TABLE, read_contrast_table
from utils.common.errors import UserError

BINS = BinsTarget(60.0)
SMALL_BOX = (32, 32, 32)


def drawn(*shape: int) -> torch.Tensor:
    return torch.randn(*shape) / math.sqrt(max(math.prod(shape[1:]), 1))


def blocks(name: str, widths: tuple[int, ...], kernels: list[int], bias: bool) -> dict:
    """Convolutions and batch-norms under the released names."""
    weights = {}
    for i, (n_in, n_out, kernel) in enumerate(zip((1, *widths), widths, kernels)):
        weights[f"{name}{i}.0.weight"] = drawn(n_out, n_in, kernel, kernel, kernel)
        if bias:
            weights[f"{name}{i}.0.bias"] = drawn(n_out)
        weights[f"{name}{i}.1.weight"] = 1 + 0.1 * drawn(n_out)
        weights[f"{name}{i}.1.bias"] = drawn(n_out)
        weights[f"{name}{i}.1.running_mean"] = drawn(n_out)
        weights[f"{name}{i}.1.running_var"] = 1 + drawn(n_out).abs()
        weights[f"{name}{i}.1.num_batches_tracked"] = torch.tensor(70)
    return weights


def released_sfcn(widths=(32, 64, 128, 256, 256, 64), wrapper: str = "module.") -> dict:
    """SFCN's names and shapes as Peng et al. released them, put together here from numbers."""
    torch.manual_seed(5)
    kernels = [3] * (len(widths) - 1) + [1]
    weights = blocks("feature_extractor.conv_", widths, kernels, bias=True)
    weights[f"classifier.conv_{len(widths)}.weight"] = drawn(40, widths[-1], 1, 1, 1)
    weights[f"classifier.conv_{len(widths)}.bias"] = drawn(40)
    return {wrapper + name: value for name, value in weights.items()}


def released_agemapper(widths=(32, 64, 64, 64, 64), positions: int = 150, wrapper="") -> dict:
    """AgeMapper's names and shapes, `FullyConnected_3` first."""
    torch.manual_seed(6)
    weights = blocks("Feature_Extractor.Convolution_", widths, [3] * len(widths), bias=False)
    for number, (n_in, n_out) in zip((3, 2, 1), ((positions * widths[-1], 96), (96, 32), (32, 1))):
        weights[f"FullyConnected.FullyConnected_{number}.weight"] = drawn(n_out, n_in)
        weights[f"FullyConnected.FullyConnected_{number}.bias"] = drawn(n_out)
    return {wrapper + name: value for name, value in weights.items()}


def saved(content, path: pathlib.Path, old: bool = False) -> pathlib.Path:
    torch.save(content, path, _use_new_zipfile_serialization=not old)
    return path


def loaded(pretrained: Pretrained, target, box=SMALL_BOX, head: str = "keep") -> nn.Module:
    network = build_network(dataclasses.replace(pretrained.architecture.plan(box)))
    state, found = weights_for(pretrained, network.state_dict(), target, head)
    assert found.fits
    network.load_state_dict(state)
    return network.eval()


@pytest.mark.parametrize("old", [False, True])
def test_released_sfcn_gives_the_hand_computed_age(tmp_path, old):
    weights = released_sfcn()
    # whatever the volume, the outputs are these: a distribution over bins of one year from 42 to 82
    probability = {0: 0.125, 10: 0.5, 38: 0.125, 39: 0.25}
    weights["module.classifier.conv_6.weight"].zero_()
    weights["module.classifier.conv_6.bias"] = torch.tensor(
        [math.log(probability[i]) + 3 if i in probability else -200.0 for i in range(40)]
    )
    pretrained = read_pretrained(saved(weights, tmp_path / "run_20190719_00_epoch_best_mae.p", old))
    assert pretrained.kind == "sfcn" and pretrained.preprocessing == "peng"
    assert pretrained.target == BinsTarget(62.0, 42.0, 82.0, 1.0, 1.0)
    network = loaded(pretrained, BINS)
    years = BINS.years(network(torch.randn(2, 1, *SMALL_BOX)))
    by_hand = 0.125 * 42.5 + 0.5 * 52.5 + 0.125 * 80.5 + 0.25 * 81.5  # = 62
    assert by_hand == 62.0
    assert torch.allclose(years, torch.tensor([by_hand] * 2), atol=1e-4)


def test_released_sfcn_is_the_network_that_was_released(tmp_path):
    pretrained = read_pretrained(saved(released_sfcn(), tmp_path / "sfcn.p"))
    plan = pretrained.architecture.plan()
    assert plan == NetworkPlan("sfcn", (160, 192, 160), 40, (32, 64, 128, 256, 256, 64))
    with torch.device("meta"):
        network = build_network(plan)
    assert count_parameters(network) == 2_952_936
    assert sum(
        value.numel() for name, value in pretrained.weights.items() if name.endswith(("weight", "bias"))
    ) == 2_952_936  # fmt: skip


def reference_sfcn(weights: dict, volumes: torch.Tensor) -> torch.Tensor:
    """The released network, written out with functions: (B, 1, X, Y, Z) -> (B, 40) log-probabilities."""
    functions = nn.functional
    x = volumes
    n_blocks = sum(name.endswith(".0.weight") for name in weights)
    for i in range(n_blocks):
        block = f"feature_extractor.conv_{i}"
        kernel = weights[f"{block}.0.weight"]
        x = functions.conv3d(x, kernel, weights[f"{block}.0.bias"], padding=kernel.shape[-1] // 2)
        statistics = weights[f"{block}.1.running_mean"], weights[f"{block}.1.running_var"]
        x = functions.batch_norm(
            x, *statistics, weights[f"{block}.1.weight"], weights[f"{block}.1.bias"]
        )
        if i < n_blocks - 1:
            x = functions.max_pool3d(x, 2, 2)
        x = x.relu()
    x = x.mean(dim=(2, 3, 4), keepdim=True)
    head = f"classifier.conv_{n_blocks}"
    x = functions.conv3d(x, weights[f"{head}.weight"], weights[f"{head}.bias"])
    return functions.log_softmax(x, dim=1).flatten(1)


def test_loaded_sfcn_predicts_what_its_weights_say(tmp_path):
    weights = released_sfcn((4, 6, 8, 8, 8, 5), wrapper="")
    volumes = torch.randn(3, 1, *SMALL_BOX)
    network = loaded(read_pretrained(saved(weights, tmp_path / "x.pt")), BINS)
    expected = reference_sfcn(weights, volumes)
    assert torch.allclose(network(volumes).log_softmax(dim=1), expected, atol=1e-5)
    centres = torch.arange(42.5, 82.0)
    assert torch.allclose(BINS.years(network(volumes)), expected.exp() @ centres, atol=1e-3)


@pytest.mark.parametrize("wrapper", ["", "module.", "module.module."])
@pytest.mark.parametrize("old", [False, True])
def test_released_agemapper_regresses_years(tmp_path, wrapper, old):
    weights = released_agemapper((2, 3, 3, 3, 4), positions=1, wrapper=wrapper)
    last = wrapper + "FullyConnected.FullyConnected_1"
    weights[f"{last}.weight"].zero_()
    weights[f"{last}.bias"] = torch.tensor([63.25])
    pretrained = read_pretrained(saved(weights, tmp_path / "T1_nonlinear_female.pth.tar", old))
    assert (pretrained.kind, pretrained.preprocessing) == ("agemapper", "agemapper")
    assert pretrained.target == YearsTarget(0.0)
    for mean_age_years in (0.0, 61.5):  # an age stays what it was, about whichever mean age
        target = YearsTarget(mean_age_years)
        network = loaded(pretrained, target)
        ages = target.years(network(torch.randn(2, 1, *SMALL_BOX)))
        assert torch.allclose(ages, torch.tensor([63.25, 63.25]), atol=1e-5)


def test_the_box_follows_from_the_first_linear(tmp_path):
    architecture = read_pretrained(saved(released_agemapper(), tmp_path / "a.pt")).architecture
    plan = architecture.plan()
    assert plan == NetworkPlan("agemapper", (160, 192, 160), 1, (32, 64, 64, 64, 64))
    with torch.device("meta"):
        assert count_parameters(build_network(plan)) == 1_313_345
    assert architecture.plan((80, 96, 80), upsample=True).upsample
    with pytest.raises(UserError, match=r"80 x 96 x 80 voxels gives 768 .* weights are for 9600"):
        architecture.plan((80, 96, 80))


def test_state_dicts_inside_of_checkpoints_and_other_precisions(tmp_path, same_to_the_bit):
    weights = released_sfcn((2, 3, 4), wrapper="")
    plain = read_pretrained(saved(weights, tmp_path / "a.pt"))
    for key in ("state_dict", "model_state_dict"):
        content = {"epoch": 12, key: weights, "loss": [0.5]}
        again = read_pretrained(saved(content, tmp_path / "b.pt"))
        assert same_to_the_bit(again.weights, plain.weights)
    halves = {n: v.half() if v.is_floating_point() else v for n, v in weights.items()}
    assert read_pretrained(saved(halves, tmp_path / "c.pt")).weights[
        "feature_extractor.conv_0.0.weight"
    ].dtype == torch.float32  # fmt: skip


def test_files_of_early_torch_have_no_counters(tmp_path):
    weights = {n: v for n, v in released_sfcn((2, 3, 4)).items() if "num_batches" not in n}
    pretrained = read_pretrained(saved(weights, tmp_path / "a.pt"))
    network = build_network(pretrained.architecture.plan(SMALL_BOX))
    state, found = weights_for(pretrained, network.state_dict(), BINS, "keep")
    assert len(found.counters) == 3 and "3 counters of batch-norm start at 0" in found.sentence()
    assert state.keys() == network.state_dict().keys()
    some = {**weights, "module.feature_extractor.conv_0.1.num_batches_tracked": torch.tensor(1)}
    pretrained = read_pretrained(saved(some, tmp_path / "a.pt"))
    with pytest.raises(
        UserError, match=r"2 missing in the file: feature_extractor\.conv_1\.1\.num"
    ):
        weights_for(pretrained, network.state_dict(), BINS, "keep")


def misfit(path: pathlib.Path, weights: dict, plan: NetworkPlan, target=BINS, head="keep") -> str:
    pretrained = read_pretrained(saved(weights, path))
    network = build_network(plan)
    with pytest.raises(UserError) as caught:
        weights_for(pretrained, network.state_dict(), target, head)
    assert str(path) in str(caught.value)
    return str(caught.value)


def test_nothing_is_loaded_in_part(tmp_path):
    path = tmp_path / "a.pt"
    weights = released_sfcn((2, 3, 4), wrapper="")
    plan = NetworkPlan("sfcn", SMALL_BOX, 40, (2, 3, 4))
    for name in list(weights):
        if name == "feature_extractor.conv_0.0.weight":
            continue  # by which it is recognised
        less = {key: value for key, value in weights.items() if key != name}
        said = misfit(path, less, plan)
        assert "missing in the file: " in said or "not in the network: " in said, name
        assert name in said or "conv_" in said
        if "classifier" not in name:
            assert misfit(path, less, plan, head="new")
    said = misfit(path, {**weights, "extra.weight": torch.ones(2)}, plan)
    assert "1 not in the network: extra.weight" in said and "23 names matched" in said
    other = {**weights, "feature_extractor.conv_1.1.bias": torch.ones(7)}
    said = misfit(path, other, plan)
    assert "of another shape: feature_extractor.conv_1.1.bias (7 in the file, 3" in said


def test_another_network_and_what_to_set(tmp_path):
    path = tmp_path / "a.pt"
    weights = released_sfcn((2, 3, 4))
    said = misfit(path, weights, NetworkPlan("agemapper", SMALL_BOX, 1, (2, 3)), YearsTarget(60.0))
    assert 'Set [NETWORK] network = "sfcn" and widths = (2, 3, 4).' in said
    said = misfit(path, weights, NetworkPlan("sfcn", SMALL_BOX, 40, (2, 4)))
    assert "widths = (2, 3, 4)." in said and "of another shape" in said
    agemapper = released_agemapper((2, 3), positions=512)
    said = misfit(
        path, agemapper, NetworkPlan("agemapper", (16, 18, 16), 1, (2, 3)), YearsTarget(0)
    )
    assert "Its first Linear is for another input box" in said


@pytest.mark.parametrize(
    ("weights", "target", "said"),
    [
        (released_sfcn((2, 3, 4)), YearsTarget(60.0),
         r"outputs are age bins of 1 year\(s\) over 42-82, and the settings ask for years\. Set "
         r'loss_function = "kl" with age_bins = \(42, 82\) and bin_width_years = 1; or pre_tr'),
        (released_sfcn((2, 3, 4)), BinsTarget(60.0, 45.0, 85.0),
         r"over 42-82, and the settings ask for age bins of 1 year\(s\) over 45-85"),
        (released_sfcn((2, 3, 4)), BinsTarget(60.0, 42.0, 82.0, 2.0), r"bins of 2 year\(s\)"),
        (released_agemapper((2, 3, 4), 64), BINS, r'are years, .* Set loss_function = "mse" or "mae"'),
    ],
)  # fmt: skip
def test_a_kept_head_must_mean_what_is_asked_for_and_a_new_one_need_not(
    tmp_path, weights, target, said
):
    pretrained = read_pretrained(saved(weights, tmp_path / "a.pt"))
    plan = dataclasses.replace(pretrained.architecture.plan(SMALL_BOX), n_outputs=target.n_outputs)
    torch.manual_seed(0)
    network = build_network(plan)
    with pytest.raises(UserError, match=said):
        weights_for(pretrained, network.state_dict(), target, "keep")
    fresh = {name: value.clone() for name, value in network.state_dict().items()}
    state, found = weights_for(pretrained, network.state_dict(), target, "new")
    layer = pretrained.architecture.output_layer
    assert found.new == [f"{layer}.weight", f"{layer}.bias"]
    for name, value in state.items():
        expected = fresh if name in found.new else pretrained.weights
        assert torch.equal(value, expected[name]), name
    assert f"{len(fresh) - 2} names matched; 2 drawn anew: {layer}.weight" in found.sentence()


def test_outputs_of_another_number_mean_nothing_here(tmp_path):
    weights = released_sfcn((2, 3, 4))
    weights["module.classifier.conv_3.weight"] = drawn(30, 4, 1, 1, 1)
    weights["module.classifier.conv_3.bias"] = drawn(30)
    pretrained = read_pretrained(saved(weights, tmp_path / "a.pt"))
    assert pretrained.target is None
    network = build_network(NetworkPlan("sfcn", SMALL_BOX, 30, (2, 3, 4)))
    with pytest.raises(UserError, match="of a meaning that is not known, and the settings"):
        weights_for(pretrained, network.state_dict(), BinsTarget(60, 42, 72), "keep")


def test_a_match_of_two_tables_of_names():
    here = {name: torch.zeros(2) for name in ("a.weight", "b.weight", "h.weight")}
    there = {"a.weight": torch.zeros(2), "b.weight": torch.zeros(3), "h.bias": torch.zeros(1)}
    found = match(here, there)
    assert (found.matched, found.missing, found.unexpected) == (
        ["a.weight"],
        ["h.bias"],
        ["h.weight"],
    )
    assert found.reshaped == ["b.weight (2 in the file, 3 in the network)"] and not found.fits
    found = match(here, there, new_head="h")
    assert (found.missing, found.unexpected, found.new) == ([], [], ["h.bias"])


@pytest.fixture
def own(tmp_path) -> pathlib.Path:
    """A checkpoint of this program."""
    torch.manual_seed(2)
    plan = NetworkPlan("agemapper", SMALL_BOX, widths=(2, 3))
    network = build_network(plan)
    contrast = read_contrast_table(PUBLISHED_TABLE)["T1_nonlinear"].describe()
    content = {
        "weights": network.state_dict(), "network_plan": plan.to_dict(), "optimiser": {},
        "target": target_to_dict(YearsTarget(58.5)), "contrast": contrast, "experiment": "first",
    }  # fmt: skip
    save_checkpoint(content, tmp_path / "best.pt")
    return tmp_path / "best.pt"


def test_own_checkpoints_come_with_their_record(own):
    pretrained = read_pretrained(own)
    assert (pretrained.kind, pretrained.preprocessing) == ("checkpoint", "agemapper")
    assert pretrained.target == YearsTarget(58.5) and pretrained.record["experiment"] == "first"
    network = loaded(pretrained, YearsTarget(70.0))
    volumes = torch.randn(2, 1, *SMALL_BOX)
    before = build_network(NetworkPlan.from_dict(pretrained.record["network_plan"]))
    before.load_state_dict(pretrained.weights)
    ages = YearsTarget(58.5).years(before.eval()(volumes))
    assert torch.allclose(YearsTarget(70.0).years(network(volumes)), ages, atol=1e-5)


def test_averaged_weights_of_a_checkpoint_are_those_that_were_validated(own, tmp_path):
    content = torch.load(own, weights_only=True)
    average = {name: torch.ones_like(value) for name, value in content["weights"].items()}
    content["average"] = {"n_steps": 3, "weights": average}
    content.pop("format_version")
    save_checkpoint(content, own)
    assert all(torch.equal(v, average[n]) for n, v in read_pretrained(own).weights.items())


def test_exported_networks_come_with_their_card(tmp_path, monkeypatch, own):
    """The card itself is tested where it is written; here it is what `read_exported_network` gives."""
    record = read_pretrained(own).record
    weights = build_network(NetworkPlan.from_dict(record["network_plan"])).state_dict()
    path = tmp_path / "network_1.safetensors"
    write_tensors(weights, path)
    monkeypatch.setattr(pretrained_module, "is_exported", lambda p: p == path)
    monkeypatch.setattr(
        pretrained_module, "read_exported_network", lambda p: (weights, dict(record))
    )
    found = read_pretrained(path)
    assert found.kind == "exported" and found.record == record and len(found.sha256) == 64
    assert found.target == YearsTarget(58.5) and found.preprocessing == "agemapper"


def refusal(path: pathlib.Path) -> str:
    with pytest.raises(UserError) as caught:
        read_pretrained(path)
    assert str(path) in str(caught.value)
    return str(caught.value)


def test_damaged_and_other_files_are_refused(own, tmp_path):
    whole = own.read_bytes()
    own.write_bytes(whole[:200] + bytes([whole[200] ^ 1]) + whole[201:])
    assert "is damaged: its checksum does not match" in refusal(own)
    own.write_bytes(whole[:-94])
    assert "damaged or no checkpoint" in refusal(own)
    own.write_bytes(whole[:500])
    assert "is damaged" in refusal(own)
    assert "no weights can be read there" in refusal(tmp_path / "none.pt")
    assert "is a folder" in refusal(tmp_path)
    weights = released_sfcn((2, 3, 4))
    bad = {**weights, "module.classifier.conv_3.bias": torch.full((40,), math.nan)}
    assert "classifier.conv_3.bias holds values that are NaN" in refusal(
        saved(bad, tmp_path / "nan.pt")
    )
    assert "of no network that is known here; its names begin with fc.weight, fc.bias" in refusal(
        saved(nn.Sequential().state_dict() | {"fc.weight": torch.ones(1), "fc.bias": torch.ones(1)},
              tmp_path / "other.pt")
    )  # fmt: skip
    for content in ({}, [torch.ones(1)], torch.ones(1), {"a": 1}, {"w": torch.ones(2).to_sparse()}):
        assert "holds no state dict" in refusal(saved(content, tmp_path / "x.pt"))
    (tmp_path / "lfs.pt").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    assert "is a Git LFS pointer" in refusal(tmp_path / "lfs.pt")
    for data in (
        b"",
        b"epoch,loss\n1,2\n",
        b"\x00" * 500,
        b"PK\x03\x04 no zip",
        b"<!doctype html>",
    ):
        (tmp_path / "x.pt").write_bytes(data)
        assert refusal(tmp_path / "x.pt")


@pytest.mark.parametrize("old", [False, True])
def test_pickled_modules_are_refused_until_they_are_converted(tmp_path, old):
    network = build_network(NetworkPlan("sfcn", SMALL_BOX, 40, (2, 3, 4)))
    source = saved(nn.DataParallel(network), tmp_path / "NAME.pth.tar", old)
    assert "Convert it first: -m convert" in refusal(source)
    target, record = convert(source, tmp_path / "converted")
    assert target == tmp_path / "converted" / "NAME.safetensors"
    pretrained = read_pretrained(target)
    assert pretrained.kind == "sfcn" and pretrained.sha256 == record["sha256"]
    assert all(torch.equal(v, network.state_dict()[n]) for n, v in pretrained.weights.items())
    written = json.loads(target.with_suffix(".json").read_text())
    assert written == record and record["n_tensors"] == len(network.state_dict())
    assert record["source"] == "NAME.pth.tar" and len(record["source_sha256"]) == 64
    assert "BrainAgeNetworks.sfcn.SFCN" in unusual_globals(record["globals_met"])


def test_converted_files_are_verified(tmp_path):
    source = saved(released_sfcn((2, 3, 4)), tmp_path / "a.pt")
    target, _ = convert(source, tmp_path / "out")
    whole = target.read_bytes()
    assert read_converted(target)[0].keys() == released_sfcn((2, 3, 4)).keys()
    for place in range(0, len(whole), 173):
        target.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        assert refusal(target)
    target.write_bytes(whole[:-1])
    assert "its checksum differs" in refusal(target)
    target.write_bytes(whole)
    target.with_suffix(".json").write_text("[]")
    with pytest.raises(UserError, match=r"holds no checksum of a\.safetensors"):
        read_pretrained(target)
    target.with_suffix(".json").unlink()
    assert "a.json with its checksum does not lie beside it" in refusal(target)


def test_a_trap_is_neither_run_by_reading_nor_by_converting(tmp_path):
    class Trap:
        def __reduce__(self):
            return pathlib.Path.touch, (tmp_path / "trapped",)

    source = saved({"state_dict": released_sfcn((2, 3, 4)), "extra": Trap()}, tmp_path / "a.pt")
    assert "Convert it first" in refusal(source)
    target, record = convert(source, tmp_path / "out")
    assert read_pretrained(target).kind == "sfcn"
    assert any(
        "pathlib" in name or "getattr" in name for name in unusual_globals(record["globals_met"])
    )
    assert not (tmp_path / "trapped").exists()


def test_names_of_converted_files():
    for name, stem in (
        ("T1.pth.tar", "T1"), ("a.b.pt", "a.b"), ("best.p", "best.p"), ("x.pkl", "x"), (".pt", ".pt"),
    ):  # fmt: skip
        assert converted_stem(pathlib.Path("/somewhere") / name) == stem


def test_checkpoints_of_this_program_are_not_converted(own, tmp_path):
    said = r"is a checkpoint of this program; set \[TRAINING\] use_pre_trained to it as it is"
    with pytest.raises(UserError, match=said):
        convert(own, tmp_path / "out")
    data = own.read_bytes()
    (tmp_path / "bare.pt").write_bytes(data[: data.rindex(b"\nbrain-age checkpoint")])
    with pytest.raises(UserError, match=said):
        convert(tmp_path / "bare.pt", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_flipped_bit_among_the_numbers_of_another_program_is_noticed(tmp_path):
    weights = released_sfcn((2, 3, 4), wrapper="")
    path = saved(weights, tmp_path / "a.pt")
    data = bytearray(path.read_bytes())
    kernel = weights["feature_extractor.conv_1.0.weight"].numpy().tobytes()
    data[bytes(data).index(kernel) + 6] ^= 16
    path.write_bytes(bytes(data))
    torch.load(path, weights_only=True)  # notices nothing
    assert "is damaged: the checksum of a/data/" in refusal(path)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", bytes(10_000_000))
    assert "compressed, which torch.save never does" in refusal(path)


def test_an_exported_network_without_its_card_is_called_so(tmp_path):
    weights = {"w": torch.ones(2)}
    for name, metadata in (("network_3", None), ("mine", {"brain_age": "T1_female network 3"})):
        write_tensors(weights, tmp_path / f"{name}.safetensors", metadata)
        assert "model_card.json of the export" in refusal(tmp_path / f"{name}.safetensors")
    write_tensors(weights, tmp_path / "mine.safetensors")
    assert "mine.json with its checksum does not lie beside it" in refusal(
        tmp_path / "mine.safetensors"
    )


def test_globals_that_mean_harm_are_told_from_classes_of_another_program():
    met = [
        "__builtin__.eval",
        "builtins.set",
        "nets.Net",
        "os.system",
        "oslo.Net",
        "torch.FloatStorage",
    ]
    assert harmful_globals(met) == ["__builtin__.eval", "os.system"]
    assert unusual_globals(met) == ["nets.Net", "oslo.Net"]
