"""Where everything of an experiment lies."""

from __future__ import annotations

from pathlib import Path

import pytest

from utils.common.errors import UserError
from utils.common.paths import ExperimentPaths, experiment_paths, move_aside


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../a", "a b", "-a", "ü", "a\n"])
def test_names_that_could_leave_the_folder_are_refused(tmp_path, name):
    with pytest.raises(UserError, match="use letters, digits"):
        experiment_paths(tmp_path, name)


def test_everything_lies_inside_the_experiment():
    paths = experiment_paths(Path("experiments"), "T1-study_1.0")
    root = Path("experiments/T1-study_1.0")
    names = [
        name
        for name in dir(ExperimentPaths)
        if isinstance(getattr(ExperimentPaths, name), property)
    ]
    found = [getattr(paths, name) for name in names]
    flat = [path for item in found for path in (item if isinstance(item, tuple) else (item,))]
    flat += [paths.deltas("test"), paths.tensorboard("T1_female", 2)]
    assert len(flat) > 15 and all(root in path.parents for path in flat)
    assert len(set(flat)) == len(flat)
    network = paths.cell("T1_female").network(2)
    assert network.last == root / "T1_female" / "network_2" / "last.pt"
    assert network.epoch(7).name == "epoch_0007.pt"


def test_only_networks_with_a_best_checkpoint_count_in_the_order_of_their_numbers(tmp_path):
    cell = ExperimentPaths(tmp_path).cell("T1_female")
    for number in (10, 2, 1):
        cell.network(number).folder.mkdir(parents=True)
        cell.network(number).best.touch()
    cell.network(3).folder.mkdir()
    (cell.folder / "network_x").mkdir()
    assert [paths.folder.name for paths in cell.networks()] == [
        "network_1",
        "network_2",
        "network_10",
    ]
    for epoch in (20, 5):
        cell.network(2).epoch(epoch).touch()
    (cell.network(2).folder / "epoch_x.pt").touch()
    assert cell.network(2).kept_epochs() == [5, 20]


def test_moving_aside_overwrites_nothing(tmp_path):
    moved = []
    for text in ("first", "second"):
        (tmp_path / "a").write_text(text)
        moved.append(move_aside(tmp_path / "a", tmp_path / "previous"))
    assert [path.name for path in moved] == ["a.1", "a.2"]
    assert [path.read_text() for path in moved] == ["first", "second"]
    assert not (tmp_path / "a").exists()
