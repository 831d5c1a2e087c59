"""Draws the pictures of the README: `python docs/make_pictures.py` from the program's folder.

The network is drawn from the registered network itself, the brains from a simulated cohort.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import BrainAgeNetworks  # noqa: F401
from BrainAgeNetworks.registry import NetworkPlan, build_network, count_parameters
from datasets.simulation import CohortSpecification, simulate_cohort
from datasets.volumes import open_image
from figures.architecture import (
    ensemble_scheme,
    ensemble_scheme_caption,
    network_architecture,
    network_architecture_caption,
)
from figures.style import save_figure
from utils.common.tables import read_table

PICTURES = Path(__file__).with_name("pictures")


def layers_of(plan: NetworkPlan) -> list[dict]:
    """Name, output shape and parameters of each block, as a volume meets them."""
    network = build_network(plan).eval()
    layers: list[dict] = [{"name": "volume", "output_shape": (1, *plan.box)}]

    def record(module: torch.nn.Module):
        def hook(_module, _inputs, output):
            shape = tuple(output.shape[1:])
            kind = "block" if isinstance(module, torch.nn.Sequential) else "linear"
            number = 1 + sum(layer["name"].startswith(kind) for layer in layers)
            layers.append(
                {
                    "name": f"{kind} {number}",
                    "output_shape": shape,
                    "n_parameters": count_parameters(module),
                }
            )

        return hook

    for part in network.children():
        for module in part.children():
            if isinstance(module, (torch.nn.Sequential, torch.nn.Linear, torch.nn.Conv3d)):
                module.register_forward_hook(record(module))
    with torch.inference_mode():
        network(torch.zeros(1, 1, *plan.box))
    return layers


def simulated_cohort_picture(folder: Path) -> Figure:
    """Middle slices of the youngest and the oldest of a few simulated subjects."""
    specification = CohortSpecification(
        voxel_mm=2.0, n_train_per_sex=4, n_validation_per_sex=1, n_test_per_sex=1
    )
    simulate_cohort(specification, folder)
    people = read_table(folder / "participants.csv").sort_values("age_years")
    contrasts = read_table(folder / "contrasts.csv")
    figure = Figure(figsize=(9, 2.6))
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, 3 * len(contrasts))
    for row, person in zip(axes, (people.iloc[0], people.iloc[-1])):
        for c, contrast in enumerate(contrasts.to_dict("records")):
            path = folder / "subjects" / person["subject_id"] / contrast["data_file"]
            volume = np.asarray(open_image(path).dataobj)
            middle = [size // 2 for size in volume.shape]
            slices = (
                volume[:, :, middle[2] - 2],
                volume[:, middle[1] - 4, :],
                volume[middle[0] + 3],
            )
            for axis, picture in zip(row[3 * c : 3 * c + 3], slices):
                axis.imshow(np.rot90(picture), cmap="gray", vmax=np.percentile(volume, 99.7))
                axis.set_axis_off()
            title = f"{contrast['name']}, {person['age_years']:.0f} years"
            row[3 * c + 1].set_title(title, fontsize=7, pad=3)
    figure.subplots_adjust(0.01, 0.01, 0.99, 0.93, 0.03, 0.12)
    return figure


def main() -> None:
    """Write the pictures and their captions."""
    for name in ("agemapper", "sfcn"):
        plan = NetworkPlan(name, (160, 192, 160), n_outputs=1 if name == "agemapper" else 40)
        layers = layers_of(plan)
        title = {"agemapper": "AgeMapper", "sfcn": "SFCN"}[name]
        figure = network_architecture(layers, title)
        save_figure(figure, PICTURES, f"network_{name}", network_architecture_caption(title))
    save_figure(
        ensemble_scheme(["T1", "T2 FLAIR", "swi"], ["female", "male"], 3),
        PICTURES,
        "ensemble_scheme",
        ensemble_scheme_caption(3),
    )
    with tempfile.TemporaryDirectory() as folder:
        save_figure(
            simulated_cohort_picture(Path(folder) / "cohort"),
            PICTURES,
            "simulated_cohort",
            "A young (above) and an old simulated subject at 2 mm in three contrasts.",
        )
    for path in PICTURES.glob("*.svg"):
        path.unlink()  # the README shows the PNG


if __name__ == "__main__":
    main()
