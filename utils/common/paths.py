"""Where everything of an experiment lies; the only place that joins names."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from utils.common.errors import UserError


@dataclass(frozen=True)
class NetworkPaths:
    """Files of one network of a cell."""

    folder: Path

    @property
    def last(self) -> Path:
        return self.folder / "last.pt"

    @property
    def previous(self) -> Path:
        """The last checkpoint but one."""
        return self.folder / "previous.pt"

    @property
    def best(self) -> Path:
        return self.folder / "best.pt"

    @property
    def damaged(self) -> Path:
        """A last checkpoint that was found damaged."""
        return self.folder / "last.damaged"

    @property
    def before_divergence(self) -> Path:
        """The best checkpoint of a network that diverged afterwards."""
        return self.folder / "before_divergence.pt"

    @property
    def history(self) -> Path:
        return self.folder / "history.csv"

    def epoch(self, epoch: int) -> Path:
        """Checkpoint of an epoch that `keep_every` kept."""
        return self.folder / f"epoch_{epoch:04d}.pt"

    def kept_epochs(self) -> list[int]:
        """Epochs whose checkpoints were kept."""
        matches = (re.fullmatch(r"epoch_(\d+)\.pt", path.name) for path in self.folder.glob("*.pt"))
        return sorted(int(match.group(1)) for match in matches if match)


@dataclass(frozen=True)
class CellPaths:
    """Files of one contrast and sex."""

    folder: Path

    def network(self, number: int) -> NetworkPaths:
        return NetworkPaths(self.folder / f"network_{number}")

    def networks(self) -> list[NetworkPaths]:
        """Networks that have a best checkpoint, in order of their number."""
        return [path for path in self._all_networks() if path.best.is_file()]

    def networks_without_best(self) -> list[NetworkPaths]:
        """Networks that were trained and never had a finite validation loss."""
        return [p for p in self._all_networks() if p.last.is_file() and not p.best.is_file()]

    def _all_networks(self) -> list[NetworkPaths]:
        found = [path for path in self.folder.glob("network_*") if path.name[8:].isdigit()]
        return [NetworkPaths(path) for path in sorted(found, key=lambda p: int(p.name[8:]))]

    def predictions(self, split: str) -> Path:
        return self.folder / f"predictions_{split}.csv"

    def predictions_record(self, split: str) -> Path:
        """What to know of predictions that have no metrics: counts, flags, whose networks they are of."""
        return self.folder / f"predictions_{split}.json"

    def volumes(self, split: str) -> Path:
        """Which volumes of a training could be used, and what conforming did to them."""
        return self.folder / f"volumes_{split}.csv"

    def metrics(self, split: str) -> Path:
        return self.folder / f"metrics_{split}.json"


@dataclass(frozen=True)
class ExportPaths:
    """Files of the exported networks of a cell."""

    folder: Path

    @property
    def card(self) -> Path:
        return self.folder / "model_card.json"

    @property
    def text(self) -> Path:
        """The card in words."""
        return self.folder / "MODEL_CARD.md"

    def network(self, number: int) -> Path:
        return self.folder / f"network_{number}.safetensors"

    @property
    def cells(self) -> list[ExportPaths]:
        """Of a folder that holds the exports of several cells: theirs."""
        found = [path.parent for path in sorted(self.folder.glob("*/model_card.json"))]
        return [ExportPaths(folder) for folder in found if not folder.name.startswith(".")]


@dataclass(frozen=True)
class ExperimentPaths:
    """Files of an experiment; `summary` alone holds nothing about one person."""

    root: Path

    def cell(self, name: str) -> CellPaths:
        return CellPaths(self.root / name)

    @property
    def splits(self) -> Path:
        return self.root / "splits.csv"

    @property
    def splits_record(self) -> Path:
        return self.root / "splits.json"

    @property
    def settings(self) -> Path:
        return self.root / "settings.ini"

    @property
    def settings_eval(self) -> Path:
        return self.root / "settings_eval.ini"

    @property
    def bias_correction(self) -> Path:
        return self.root / "bias_correction.json"

    @property
    def combination(self) -> Path:
        return self.root / "combination.json"

    def deltas(self, split: str) -> Path:
        return self.root / f"deltas_{split}.csv"

    @property
    def combination_weights(self) -> Path:
        """Weight of each contrast in the combination, by sex."""
        return self.summary / "combination_weights.csv"

    @property
    def reliability(self) -> Path:
        """Agreement of the networks of each cell on the delta."""
        return self.summary / "reliability.csv"

    @property
    def test_retest(self) -> Path:
        """Agreement of the deltas of first and second scans."""
        return self.summary / "test_retest.csv"

    @property
    def previous(self) -> Path:
        """Runs that were moved aside."""
        return self.root / "previous"

    @property
    def converted(self) -> Path:
        """Tensors of weights that were pickled (`-m convert`)."""
        return self.root / "converted"

    def export(self, cell: str) -> ExportPaths:
        """The networks of a cell as a folder for use elsewhere (`-m export`)."""
        return ExportPaths(self.root / "export" / cell)

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def run_log(self) -> Path:
        return self.logs / "run.log"

    def tensorboard(self, cell: str, number: int) -> Path:
        return self.logs / "tensorboard" / cell / f"network_{number}"

    @property
    def check(self) -> Path:
        """What `-m check` found and saw; holds individuals and stays inside."""
        return self.root / "check"

    @property
    def check_record(self) -> Path:
        return self.check / "check.json"

    @property
    def check_page(self) -> Path:
        return self.check / "check.html"

    @property
    def summary(self) -> Path:
        return self.root / "summary"

    @property
    def metrics_table(self) -> Path:
        """Metrics of all cells, exact; stays inside."""
        return self.root / "metrics.csv"

    @property
    def summary_metrics(self) -> Path:
        """The same without small groups and exact ages."""
        return self.summary / "metrics.csv"

    @property
    def associations(self) -> Path:
        return self.summary / "associations.parquet"

    @property
    def associations_significant(self) -> Path:
        return self.summary / "associations_significant.csv"

    @property
    def associations_record(self) -> Path:
        return self.summary / "associations.json"

    @property
    def phenotype_fates(self) -> Path:
        return self.summary / "nidps.csv"

    @property
    def associations_by_contrast(self) -> Path:
        return self.summary / "associations_by_contrast.csv"

    @property
    def associations_by_category(self) -> Path:
        return self.summary / "associations_by_category.csv"

    @property
    def associations_sexes_combined(self) -> Path:
        return self.summary / "associations_sexes_combined.parquet"

    @property
    def associations_rechecked(self) -> Path:
        return self.summary / "associations_rechecked.csv"

    @property
    def associations_replicated(self) -> Path:
        return self.summary / "associations_replicated.csv"

    @property
    def contrasts_compared(self) -> Path:
        return self.summary / "contrasts_compared.csv"

    @property
    def nidps_represented(self) -> Path:
        return self.summary / "nidps_represented.csv"

    @property
    def association_blocks(self) -> Path:
        """Results of the scan block by block, until all of them stand in the tables."""
        return self.root / "association_blocks"

    @property
    def figures(self) -> Path:
        return self.summary / "figures"

    @property
    def report(self) -> Path:
        return self.summary / "report.html"

    @property
    def provenance(self) -> Path:
        return self.summary / "provenance.json"

    @property
    def summary_settings(self) -> tuple[Path, Path]:
        return self.summary / "settings.ini", self.summary / "settings_eval.ini"


def experiment_paths(root: Path, name: str) -> ExperimentPaths:
    """Paths of the experiment `name` below the experiments directory `root`."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name):
        raise UserError(
            f"experiment name {name!r}: use letters, digits, '.', '-' and '_', beginning with a "
            "letter or digit."
        )
    return ExperimentPaths(root / name)


def move_aside(path: Path, previous: Path) -> Path:
    """Move a file or folder of an earlier run into `previous`, under a number that is free."""
    number = 1
    while (target := previous / f"{path.name}.{number}").exists():
        number += 1
    previous.mkdir(parents=True, exist_ok=True)
    path.rename(target)
    return target
