"""The ini pair: templates, literals, every problem in one message, overrides, and 200 broken files."""

from __future__ import annotations

import configparser
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from utils.common.errors import SettingsError
from utils.settings.reader import ini_pair, parse_value, read_settings, resolved_ini
from utils.settings.schema import EVALUATION_SECTIONS, TRAINING_SECTIONS
from utils.settings.template import HEADS, render_template

ROOT = Path(__file__).resolve().parents[2]
TEMPLATES = {"settings.ini": TRAINING_SECTIONS, "settings_eval.ini": EVALUATION_SECTIONS}
DATA = (
    '[DATA]\ndataset_sex = "female"\nmodality_flag = "T1_nonlinear"\ndata_directory = "subjects"\n'
)


def write_pair(folder: Path, training: str = DATA, evaluation: str = "") -> str:
    (folder / "study.ini").write_bytes(training.encode("utf-8"))
    (folder / "study_eval.ini").write_bytes(evaluation.encode("utf-8"))
    return str(folder / "study")


def problems(name: str, *overrides: str) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        read_settings(name, overrides)
    return caught.value.problems


@pytest.mark.parametrize("name", TEMPLATES)
def test_template_is_the_schema(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    assert text == render_template(HEADS[name], TEMPLATES[name])
    parser = configparser.ConfigParser(interpolation=None)
    parser.optionxform = str
    parser.read_string(text)
    assert parser.sections() == list(TEMPLATES[name])
    for section, model in TEMPLATES[name].items():
        assert list(parser[section]) == list(model.model_fields)
        assert all(field.description for field in model.model_fields.values()), section


def test_templates_load_with_the_defaults_that_they_show(tmp_path):
    name = write_pair(
        tmp_path, (ROOT / "settings.ini").read_text(), (ROOT / "settings_eval.ini").read_text()
    )
    loaded, bare = read_settings(name), read_settings(write_pair(tmp_path))
    for section in ("split", "training", "network", "misc", "simulation", "mapping", "deltas"):
        assert getattr(loaded, section) == getattr(bare, section)
    assert loaded.data.dataset_sex == ("female", "male")
    assert loaded.training.learning_rate == 5e-3 and loaded.training.ensemble_size == 3


def test_the_examples_load():
    pairs = [
        path.with_name(path.name.replace("_eval", "")) for path in ROOT.glob("docs/**/*_eval.ini")
    ]
    assert pairs
    for path in pairs:
        assert read_settings(str(path)).name == path.stem


def test_every_problem_is_listed_at_once_with_its_place(tmp_path):
    name = write_pair(
        tmp_path,
        '[DATA]\ndataset_sex = "femal"\nmodality_flag = "T1_nonlinear"\n[TRAINING]\n'
        'lerning_rate = 1\ntraining_batch_size = "twelve"\nvalidation_batch_size = 0\n'
        "number_of_epochs = True\n[TRAININ]\n[MAPPING]\n",
        "[DELTAS]\ncombination = mean\nzzz = 1\n[DATA]\n",
    )
    found = problems(name)
    expected = [
        "study.ini: unknown section [TRAININ]; did you mean 'TRAINING'?",
        "study.ini: unknown section [MAPPING] here: it belongs into the other file of the pair",
        "study_eval.ini: unknown section [DATA] here: it belongs into the other file of the pair",
        "study.ini [DATA]: dataset_sex = 'femal': ",
        "study.ini [DATA]: missing key 'data_directory': ",
        "study.ini [TRAINING]: unknown key 'lerning_rate'; did you mean 'learning_rate'?",
        "study.ini [TRAINING]: training_batch_size = 'twelve': ",
        "study.ini [TRAINING]: validation_batch_size = 0: ",
        "study.ini [TRAINING]: number_of_epochs = True: ",
        "study_eval.ini [DELTAS]: unknown key 'zzz' (known: combination, bootstrap_weights, bias_correction, "
        "cross_fit, allow_in_sample, retest)",
    ]
    for start in expected:
        assert sum(problem.startswith(start) for problem in found) == 1, (start, found)
    assert len(found) == len(expected)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("5e-3", 5e-3), ("(0.9, 0.999)", (0.9, 0.999)), ('"a b"', "a b"), ("'x'", "x"),
        ("True", True), ("T1_nonlinear", "T1_nonlinear"), ("[1, 2]", (1, 2)), ("", ""), (None, ""),
        ("a/b c.csv", "a/b c.csv"), ("{[]: 1}", "{[]: 1}"), (r'"\d"', r"\d"),
    ],
)  # fmt: skip
def test_values_are_python_literals_or_text(text, value):
    assert parse_value(text) == value and type(parse_value(text)) is type(value)


def test_what_editors_and_people_write_is_read(tmp_path):
    training = (
        "\ufeff; a comment\r\n[DATA]\r\ndataset_sex = female ; of both\r\n# another\r\n"
        "modality_flag : T1_nonlinear\r\ndata_directory = some folder/of mine\r\n"
        "[TRAINING]\r\nloss_function = 'mae'\r\n"
    )
    loaded = read_settings(write_pair(tmp_path, training, "[MAPPING]\ndataset_type = test\n"))
    assert loaded.data.dataset_sex == "female" and loaded.sexes == ("female",)
    assert loaded.data.data_directory == "some folder/of mine"
    assert loaded.training.loss_function == "mae" and loaded.evaluated_splits == ("test",)
    assert loaded.path("x/y") == tmp_path / "x" / "y"


@pytest.mark.parametrize(
    ("training", "words"),
    [
        (DATA + 'dataset_sex = "male"\n', "option 'dataset_sex' in section 'DATA' already exists"),
        (DATA + "[DATA]\n", "section 'DATA' already exists"),
        ("dataset_sex = 1\n", "no section headers"),
        (DATA + "just words\n", "parsing errors"),
        (DATA + "[DEFAULT]\nseed = 1\n", "unknown section [DEFAULT]"),
    ],
)
def test_malformed_files_are_named(tmp_path, training, words):
    found = problems(write_pair(tmp_path, training))
    assert any("study.ini" in problem and words in problem for problem in found), found


def test_missing_binary_and_folder_files(tmp_path):
    (tmp_path / "study.ini").write_bytes(b"[DATA]\n\xff\xfe\n")
    (tmp_path / "study_eval.ini").mkdir()
    found = "\n".join(problems(str(tmp_path / "study")))
    assert "study.ini: is not UTF-8 text (byte 7)" in found
    assert "study_eval.ini: cannot be read" in found
    found = "\n".join(problems(str(tmp_path / "none")))
    assert "none.ini: no such file; copy settings.ini" in found
    assert "none_eval.ini: no such file; copy settings_eval.ini" in found
    assert ini_pair("a/b.ini") == (Path("a/b.ini"), Path("a/b_eval.ini"))


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("SPLIT.fractions=(0.5, 0.1, 0.1)", "fractions add up to 0.7, not 1"),
        ("TRAINING.learning_rate_cyclical=True", "choose one"),
        ("NETWORK.age_bins=(42, 81.5)", "whole number of bins"),
        ("NETWORK.age_bins=(-1e308, 1e308)", "whole number of bins"),
        ("MISC.device='cuda:x'", "is not one of auto, cpu, cuda, cuda:N"),
        ("TRAINING.optimizer_beta=(0.9, 1.0)", "less than 1"),
        ("TRAINING.optimizer_weight_decay=1e999", "finite"),
        ("DATA.dataset_sex=()", "dataset_sex"),
        ("DATA.dataset_sex=('male', 'male')", "dataset_sex"),
        ("MAPPING.dataset_type=()", "dataset_type"),
    ],
)
def test_values_that_cannot_work_are_refused(tmp_path, override, words):
    found = problems(write_pair(tmp_path), override)
    assert len(found) == 1 and words in found[0] and "--set" in found[0], found


@pytest.mark.parametrize("value", ['"a ; b"', "'a", '("swi", "vbm"', "[1, 2", '"a" "'])
def test_a_quote_or_bracket_that_is_not_closed_is_no_text(tmp_path, value):
    found = problems(write_pair(tmp_path, f"{DATA}exclude = {value}\n"))
    assert "close its quotes or brackets" in found[0] and "study.ini [DATA]: exclude = " in found[0]
    if ";" not in value:
        found = problems(write_pair(tmp_path), f"DATA.exclude={value}")
        assert found[0].startswith(f"--set DATA.exclude={value}: is no Python value")
    quoted = read_settings(write_pair(tmp_path), ("DATA.exclude='(a'",))
    assert quoted.data.exclude == "(a"


def test_a_cycle_needs_a_lower_and_an_upper_end(tmp_path):
    cyclic = (
        "TRAINING.learning_rate_validation_scheduler=False",
        "TRAINING.learning_rate_cyclical=True",
    )
    name = write_pair(tmp_path)
    assert read_settings(name, cyclic).training.learning_rate_cyclical
    found = problems(name, *cyclic, "TRAINING.learning_rate_scheduler_min_value=3e-5")
    assert len(found) == 1 and "min_value below learning_rate_scheduler_max_value" in found[0]


def test_set_reaches_every_key_and_refuses_what_is_no_key(tmp_path):
    name = write_pair(tmp_path, DATA + "[TRAINING]\nseed = 1\n")
    loaded = read_settings(name, ("training.seed=7", "DELTAS.combination=mean", "DATA.exclude=a=b"))
    assert (loaded.training.seed, loaded.deltas.combination) == (7, "mean")
    assert loaded.data.exclude == "a=b"
    found = problems(name, "seed=1", "TRAINING.seed", "TRAINNG.seed=1", "TRAINING.sed=1")
    assert found[:2] == [
        "--set seed=1: is not of the form SECTION.key=value.",
        "--set TRAINING.seed: is not of the form SECTION.key=value.",
    ]
    assert "unknown section TRAINNG; did you mean 'TRAINING'?" in found[2]
    assert found[3].startswith(
        "study.ini and --set [TRAINING]: unknown key 'sed'; did you mean 'seed'"
    )


def test_resolved_settings_load_again(tmp_path):
    loaded = read_settings(write_pair(tmp_path), ("TRAINING.seed=5", "NETWORK.widths=(8,)"))
    again = tmp_path / "again"
    again.mkdir()
    name = write_pair(
        again,
        resolved_ini(loaded, TRAINING_SECTIONS),
        resolved_ini(loaded, EVALUATION_SECTIONS),
    )
    reread = read_settings(name)
    assert reread.training == loaded.training and reread.network == loaded.network
    assert reread.data == loaded.data and reread.association == loaded.association


LINES = (ROOT / "settings.ini").read_text(encoding="utf-8").splitlines()
ODD_VALUES = st.sampled_from(
    ["1e999", "-1e999", "(1e999, -1e999)", "nan", "{[]: 1}", "9" * 5000, "0x" + "f" * 6000, "(" * 200,
     "None", "()", "[[]]", "b'x'", "...", "1j", r'"\d"', "\x00", "%(x)s", "-1", "0", "True", "''"]
)  # fmt: skip


@st.composite
def broken_ini(draw) -> str:
    """The training template with a few lines changed, doubled, removed, or overwritten by anything."""
    lines = list(LINES)
    for _ in range(draw(st.integers(1, 6))):
        i = draw(st.integers(0, len(lines) - 1))
        change = draw(st.sampled_from(["value", "value", "drop", "double", "text", "swap"]))
        if change == "value":
            lines[i] = lines[i].split("=")[0] + "= " + draw(ODD_VALUES | st.text(max_size=20))
        elif change == "drop":
            del lines[i]
        elif change == "double":
            lines.insert(i, lines[i])
        elif change == "text":
            lines[i] = draw(st.text(max_size=40))
        else:
            j = draw(st.integers(0, len(lines) - 1))
            lines[i], lines[j] = lines[j], lines[i]
    return "\n".join(lines)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(text=broken_ini())
def test_a_broken_file_gives_settings_or_a_settings_error(text):
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "x.ini").write_bytes(text.encode("utf-8", "surrogatepass"))
        Path(folder, "x_eval.ini").write_text("", encoding="utf-8")
        try:
            read_settings(str(Path(folder, "x")))
        except SettingsError as error:
            assert error.problems
            assert all(problem.strip() for problem in error.problems)
