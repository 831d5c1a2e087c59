"""-m export: the trained networks of every cell as a folder for use elsewhere: weights and a model card."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from BrainAgeNetworks.tensor_files import write_tensors
from utils.common.errors import UserError
from utils.common.files import write_text
from utils.common.folders import replacing_folder
from utils.common.messages import say, warn
from utils.common.model_cards import file_entry, find_exports, write_card
from utils.common.paths import ExportPaths
from utils.experiment.experiment import Cell, Experiment
from utils.experiment.exported import load_exported, refuse_other_outputs
from utils.experiment.model_card import exported_networks, model_card
from utils.experiment.model_card_text import model_card_text
from utils.experiment.trained import TrainedNetwork, load_trained


def run(experiment: Experiment) -> None:
    """Export every cell; one that cannot be exported is a problem, not the end of the run."""
    experiment.each_cell(lambda cell: export_cell(experiment, cell), "exported")
    if not {"licence", "contact"} <= experiment.settings.export.model_fields_set:
        say(
            "set [EXPORT] licence and contact: the model cards tell them to whoever gets the networks."
        )


def export_cell(experiment: Experiment, cell: Cell) -> None:
    """Write the folder of a cell beside, load it back, compare, and only then put it into its place."""
    trained = load_trained(cell, experiment.cell_paths(cell))
    chosen = exported_networks(trained)
    if not chosen:
        raise UserError(
            f"{cell.name}: every network collapsed in training: none is better than the mean age, and none is "
            "worth passing on. Train longer, or with another learning_rate."
        )
    card = model_card(experiment, cell, trained)
    if card["training_ages"]["n"] is None:
        warn(
            f"{cell.name}: was trained on fewer than 10 subjects; the card leaves their ages out, but for their "
            "exact mean age, without which the outputs are no years."
        )
    target = experiment.paths.export(cell.name)
    with replacing_folder(target.folder) as temporary:
        write_export(card, chosen, ExportPaths(temporary))
        verify(cell, chosen, temporary)
    left_out = len(trained) - len(chosen)
    without = f" ({left_out} collapsed and left out)" if left_out else ""
    say(
        f"{cell.name}: {len(chosen)} network(s){without} exported to {target.folder}, read back and found to give "
        "the same ages to the last bit"
    )


def write_export(card: dict[str, Any], networks: list[TrainedNetwork], paths: ExportPaths) -> None:
    """Weights first, the card with everybody's checksum last."""
    name = f"{card['contrast']['name']}_{card['sex']}"
    for trained in networks:
        metadata = {"brain_age": f"{name} network {trained.number}; see {paths.card.name}"}
        write_tensors(trained.network.state_dict(), paths.network(trained.number), metadata)
    write_text(model_card_text(card), paths.text)
    files = [paths.network(trained.number) for trained in networks] + [paths.text]
    write_card({**card, "files": {path.name: file_entry(path) for path in files}}, paths.card)


def verify(cell: Cell, networks: list[TrainedNetwork], folder: Path) -> None:
    """Load what was written as `-m predict` does, and compare its outputs with those of the originals."""
    export = find_exports(folder).of(cell.contrast.name, cell.sex)
    refuse_other_outputs(networks, load_exported(cell, export), folder)
