"""The sections of NAME.ini: subjects and volumes, split, training, network, simulation."""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator

from utils.common.devices import is_device_name
from utils.settings.section import (
    MOST_BINS,
    BelowOne,
    CellSex,
    Count,
    CountOrZero,
    Fraction,
    NotNegative,
    Positive,
    Section,
    Sex,
    key,
    refuse_empty_or_repeated,
)
from utils.settings.simulation import simulation_section


class DataSettings(Section):
    """Which subjects, which volumes, and how they are read."""

    dataset_sex: CellSex | tuple[Sex, ...] = key(
        '"female", "male", ("female", "male") for one set of networks each, or "both" for one pooled set.',
        examples=[("female", "male")],
    )
    modality_flag: str | tuple[str, ...] = key(
        'Contrast, tuple of contrasts, or "all": names from the contrast table.',
        examples=["T1_nonlinear"],
    )
    data_directory: str = key(
        "Folder with one folder a subject.",
        examples=["/data/subjects"],
        min_length=1,
    )
    path_template: str = key(
        "Where a volume lies below data_directory; {subject_id}, {session} and {data_file} (contrast "
        "table) are filled in.",
        "{subject_id}/{data_file}",
        min_length=1,
    )
    session: str = key("Text that fills {session}.", "")
    scaling_values: str = key(
        "The contrast table: name, scale_factor (or auto: from the training set), resolution, data_file; "
        "optional shape, crop, volume_index, divide_by_mean, category.",
        "datasets/scaling_values_simple.csv",
    )
    preprocessing: Literal["agemapper", "peng"] = key(
        'How a volume becomes input. "agemapper": crop, mean division for some contrasts, scale factor; '
        '"peng" (the released SFCN): divided by the mean of the whole volume, cropped about its centre.',
        "agemapper",
    )
    subjects: str = key(
        "One table of all subjects (CSV or TSV): subject_id or participant_id, age or age_years (years), "
        "sex, split; optionally family, site. Empty: the published lists below.",
        "",
    )
    exclude: str = key("File with a subject id a line: these are left out everywhere.", "")
    data_folder_name: str = key("Folder of the published lists (.txt) and ages (.npy).", "datasets")
    dataset_size: str = key(
        'Which published lists: "full", or a suffix such as "small" (male_train_small.txt).', "full"
    )
    male_train: str = key(
        'Published list of training men; for women "fe" is put in front.', "male_train"
    )
    male_train_age: str = key("Their ages, years.", "male_train_age")
    male_validation: str = key("Published list of validation men.", "male_validation")
    male_validation_age: str = key("Their ages, years.", "male_validation_age")
    conform: Literal["strict", "reorient", "resample"] = key(
        '"strict": a volume whose grid differs from the contrast\'s is refused; "reorient": axes are '
        'permuted and flipped to LAS first; "resample": also mapped onto the grid by its affine.',
        "strict",
    )
    cache_directory: str = key(
        'Where `-m prepare` keeps volumes cropped and packed; they are used where they are. "": never.',
        "cache",
    )
    cache_storage: Literal["uint16", "uint8", "float16", "float32"] = key(
        'How real numbers are kept there: "uint16" (within 1e-4 of the SD in the mask), "uint8" (half the '
        'space, 1/40 SD), "float16" or "float32" (exact). Whole numbers are kept as they are.',
        "uint16",
    )
    num_workers: CountOrZero = key("Threads that read volumes ahead; 0: none.", 2, le=256)
    memory_gb: NotNegative = key(
        "Cropped volumes of a cell that are not prepared are kept in memory if they all fit into this "
        "many GB.",
        4.0,
    )
    shift_transformation: bool = key("Training: shift each axis by up to shift_voxels.", True)
    shift_voxels: CountOrZero = key("Largest shift, voxels; what moves in is zero.", 2, le=20)
    mirror_transformation: bool = key(
        "Training: mirror left and right with probability 1/2.", False
    )
    rotation_degrees: NotNegative = key(
        "Training: turn about each axis by up to so many degrees.", 0.0, le=45
    )
    zoom_fraction: NotNegative = key(
        "Training: enlarge or shrink by up to this share.", 0.0, le=0.5
    )
    gain_fraction: NotNegative = key(
        "Training: multiply intensities by 1 plus or minus up to this.", 0.0, le=0.9
    )
    gamma_fraction: NotNegative = key(
        "Training: raise intensities, as a share of the volume's largest, to a power of 1 plus or minus up "
        "to this.",
        0.0,
        le=0.9,
    )

    @model_validator(mode="after")
    def _sexes(self):
        refuse_empty_or_repeated("dataset_sex", self.dataset_sex)
        return self


class CheckSettings(Section):
    """`-m check`: what is wrong with the inputs, before any epoch. Headers of all volumes are always read."""

    volumes: CountOrZero = key(
        "So many volumes of each cell are opened whole and looked at, spread over the lists; 0: every one.",
        50,
    )
    outlier_z: Positive = key(
        "A volume further than this from its contrast's others is named (robust z: medians and MAD).",
        6.0,
    )


class SplitSettings(Section):
    """`-m split`: seeded, stratified by age and sex, families kept together, frozen."""

    fractions: tuple[Positive, Positive, Positive] = key(
        "Training, validation and test share of the subjects; they add up to 1.", (0.6, 0.08, 0.32)
    )
    stratum_years: Positive = key("Width of the age strata, years.", 5.0)
    split_seed: CountOrZero = key("Seed of the split.", 0)

    @model_validator(mode="after")
    def _adds_up(self):
        if abs(sum(self.fractions) - 1) > 1e-6:
            raise ValueError(f"fractions add up to {sum(self.fractions):g}, not 1")
        return self


class TrainingSettings(Section):
    """The ensemble of a cell and how it learns."""

    ensemble_size: Count = key("Identical networks a cell, which differ by seed alone.", 3, le=100)
    seed: CountOrZero = key(
        "From it follow every network's initialisation, order and augmentation.", 0
    )
    number_of_epochs: Count = key("Epochs in total; -e overrides.", 250)
    training_batch_size: Count = key("Subjects a training step.", 12, ge=2)
    accumulation_steps: Count = key(
        "A training step goes through its subjects in so many parts, for GPUs with little memory; "
        "batch-norm then sees a part at a time.",
        1,
    )
    recompute_activations: bool = key(
        "True: blocks are computed again in the backward pass instead of kept: less memory, a third more "
        "time.",
        False,
    )
    sampling: Literal["each", "age_balanced"] = key(
        '"each": every subject once an epoch; "age_balanced": drawn so that rare ages come as often as '
        "common ones.",
        "each",
    )
    validation_batch_size: Count = key("Subjects a forward pass without gradients.", 12)
    optimiser: Literal["adam", "adamW"] = key('"adam" or "adamW" (decoupled weight decay).', "adam")
    learning_rate: Positive = key(
        "Learning rate at the start (CyclicLR: see its two ends instead).", 5e-3, le=10
    )
    optimizer_beta: tuple[BelowOne, BelowOne] = key("Adam's decay rates.", (0.9, 0.999))
    optimizer_epsilon: Positive = key("Adam's epsilon.", 1e-8)
    optimizer_weight_decay: NotNegative = key("Weight decay.", 0.0)
    layer_learning_rates: tuple[tuple[str, Positive], ...] = key(
        'Factors on the learning rate by the beginning of layer names, e.g. (("Feature_Extractor", 0.1),).',
        (),
    )
    frozen_layers: tuple[str, ...] = key(
        "Layers that do not learn, by the beginning of their names; their batch-norm keeps its statistics.",
        (),
    )
    gradient_clip_norm: NotNegative = key(
        "Gradients with a larger norm are shortened to it; 0: never.", 0.0
    )
    ema_decay: BelowOne = key(
        "Weights are averaged over steps with this decay (0.999, say), and the average is validated, kept as "
        "best and tested; 0: no averaging.",
        0.0,
    )
    loss_function: Literal["mse", "mae", "kl"] = key(
        '"mse" or "mae" on years; "kl": SFCN\'s soft labels over the age bins of [NETWORK].', "mse"
    )
    learning_rate_validation_scheduler: bool = key(
        "True: lower the rate when the validation loss stalls (ReduceLROnPlateau).", True
    )
    learning_rate_cyclical: bool = key("True: CyclicLR instead. Both False: StepLR.", False)
    learning_rate_schedule: Literal["", "plateau", "cyclic", "step", "cosine"] = key(
        'Which schedule; "": the one that the two published keys above say. "cosine": falls to '
        "learning_rate_scheduler_min_value at number_of_epochs.",
        "",
    )
    warm_up_epochs: NotNegative = key(
        "The learning rate rises from a hundredth of itself over so many epochs first (a fraction may be "
        "given).",
        0.0,
    )
    learning_rate_scheduler_gamma: Positive = key("Factor of a lowering.", 0.5, lt=1)
    learning_rate_scheduler_step_size: Count = key("StepLR: epochs between lowerings.", 250)
    learning_rate_scheduler_patience: CountOrZero = key("Plateau: epochs without a gain.", 15)
    learning_rate_scheduler_threshold: NotNegative = key(
        "Plateau: what counts as a gain (loss).", 1e-7
    )
    learning_rate_scheduler_min_value: NotNegative = key(
        "Plateau: floor; cyclic: lower end; cosine: last value.", 1e-6
    )
    learning_rate_scheduler_max_value: Positive = key("Cyclic: upper end.", 3e-5)
    learning_rate_scheduler_step_number: Count = key(
        "Cyclic: steps from lower to upper end.", 13200
    )
    early_stopping_min_patience: CountOrZero = key("Never stop before this epoch.", 0)
    early_stopping_patience: Count = key(
        "Stop after so many epochs without a gain in validation loss.", 40
    )
    early_stopping_min_delta: NotNegative = key("What counts as a gain (loss).", 0.0)
    keep_every: CountOrZero = key(
        "Keep the checkpoint of every k-th epoch; 0: best and last only.", 0
    )
    checkpoint_minutes: NotNegative = key(
        "Write a checkpoint within an epoch when the last is so many minutes old; 0: only after epochs.",
        30.0,
    )
    collapsed_networks: Literal["report", "retrain"] = key(
        'A network that diverged, or is no better on validation than the mean age: "report" leaves it out '
        'of the average and says so; "retrain" trains it once more with another seed first.',
        "report",
    )
    precision: Literal["auto", "float32", "bfloat16"] = key(
        'Convolutions of a training step: "auto" is bfloat16 where the processor has it, else float32. '
        "Weights and validation are float32.",
        "auto",
    )
    deterministic: bool = key(
        "True: a GPU gives the same bits each time, more slowly; CPUs always do.", False
    )
    batch_norm_over_processes: Literal["synchronised", "each"] = key(
        'Several processes (torchrun): batch-norm over all subjects of a step, "synchronised", or over '
        'those of "each" process.',
        "synchronised",
    )
    use_pre_trained: str = key(
        "File of weights to start from: a checkpoint, an exported network, SFCN's or AgeMapper's released "
        'state dict; {contrast}, {sex} and {network} are filled in. "": fresh weights.',
        "",
    )
    pre_trained_head: Literal["keep", "new"] = key(
        'Output layer of use_pre_trained: "keep" it, or draw a "new" one (fine-tuning).', "keep"
    )
    tensorboard: bool = key("Write TensorBoard event files.", True)

    @property
    def schedule(self) -> str:
        """Name of the learning-rate schedule: `plateau`, `cyclic`, `step` or `cosine`."""
        if self.learning_rate_schedule:
            return self.learning_rate_schedule
        if self.learning_rate_cyclical:
            return "cyclic"
        return "plateau" if self.learning_rate_validation_scheduler else "step"

    @model_validator(mode="after")
    def _one_schedule(self):
        chosen = not self.learning_rate_schedule
        if chosen and self.learning_rate_validation_scheduler and self.learning_rate_cyclical:
            raise ValueError(
                "learning_rate_validation_scheduler and learning_rate_cyclical are both True; choose one"
            )
        lower = self.learning_rate_scheduler_min_value
        if self.schedule == "cyclic" and lower >= self.learning_rate_scheduler_max_value:
            raise ValueError(
                "the cyclic schedule needs learning_rate_scheduler_min_value below "
                "learning_rate_scheduler_max_value"
            )
        return self


class NetworkSettings(Section):
    """The architecture."""

    network: str = key('Registered network: "agemapper" or "sfcn".', "agemapper")
    widths: tuple[Count, ...] = key("Channels of each block; (): as published.", ())
    dropout_rate_1: Fraction = key(
        "Dropout before the first Linear (SFCN: its only one).", 0.0, lt=1
    )
    dropout_rate_2: Fraction = key("Dropout before the second Linear.", 0.0, lt=1)
    dropout_rate_3: Fraction = key("Dropout before the last Linear.", 0.0, lt=1)
    resolution_2mm: Literal["upsample", "native"] = key(
        '2 mm contrasts: "upsample" x2 first, as published, or "native": one pooling fewer, eight times '
        "quicker.",
        "upsample",
    )
    blocks: Literal["auto", "plain", "fused"] = key(
        'How blocks are computed: "plain" one operation after the other, "fused" without the large '
        'intermediate volumes; "auto": fused where it is quicker.',
        "auto",
    )
    age_bins: tuple[float, float] = key(
        'First and last edge of the age bins for "kl", years.', (42.0, 82.0)
    )
    bin_width_years: Positive = key("Width of an age bin, years.", 1.0)
    soft_label_sd_years: Positive = key("SD of the soft label, years.", 1.0)

    @model_validator(mode="after")
    def _bins(self):
        first, last = self.age_bins
        n_bins = (last - first) / self.bin_width_years
        if not 2 <= n_bins <= MOST_BINS or abs(n_bins - round(n_bins)) > 1e-6:
            raise ValueError(
                f"age_bins must span a whole number of bins of bin_width_years, 2 to {MOST_BINS}"
            )
        return self


class MiscSettings(Section):
    """Where results go and what computes."""

    experiments_directory: str = key("Results lie in experiments_directory/NAME.", "experiments")
    device: str = key('"auto", "cpu", "cuda" or "cuda:N"; --device overrides.', "auto")

    @model_validator(mode="after")
    def _device(self):
        if not is_device_name(self.device):
            raise ValueError(f"device = {self.device!r} is not one of auto, cpu, cuda, cuda:N")
        return self


SimulationSettings = simulation_section(Section)

TRAINING_SECTIONS: dict[str, type[Section]] = {
    "DATA": DataSettings,
    "CHECK": CheckSettings,
    "SPLIT": SplitSettings,
    "TRAINING": TrainingSettings,
    "NETWORK": NetworkSettings,
    "MISC": MiscSettings,
    "SIMULATION": SimulationSettings,
}
