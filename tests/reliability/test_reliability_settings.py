"""R10: wrong settings end with a sentence, never with a traceback, through the real entry of the program."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from run import main
from utils.common.randomness import generator
from utils.settings.schema import EVALUATION_SECTIONS, TRAINING_SECTIONS

VALUES = (
    "", "None", "-1", "0", "1", "2.5", "1e400", "-1e-3", "nan", "inf", "True", "'", '"', "()", "(((", "(1,)", "(1, 2)",
    "(-1, 2)", "('a', 'b')", "[0.5, 0.3, 0.2]", "(60.0, 50.0)", "{}", "{1: 2}", "b'x'", '"female"', "female", "both",
    "swi", "swi swi", "('swi', 'swi')", "é", "\\", "..", ".", "%", "%(x)s", "{subject_id}", "{unknown}", "{", "1_000",
    "0x10", "1j", "lambda: 0", "__import__('os')", "test", "('test', 'test')", "cuda", "cuda:99", "kl", "sfcn", "auto",
    "golden.ini", "cohort", "cohort/participants.csv", "cohort/nidps.csv", "a" * 300, "1" + "0" * 40, "x;y", "#",
)  # fmt: skip
# With these a mutation would make a long run, or write outside the test's folder, rather than be wrong.
SPARED = {
    ("SIMULATION", "folder"),
    ("MISC", "experiments_directory"),
    ("MAPPING", "bootstrap_resamples"),
}
SECTION_MODES = {
    "SPLIT": "split",
    "SIMULATION": "simulate",
    "ASSOCIATION": "associate",
    "DELTAS": "ensemble",
}
SECTION_MODES |= {"REPORT": "ensemble", "MAPPING": "test"}


def mutate_value(text: str, rng: np.random.Generator) -> tuple[str, str]:
    """Set a random key of a random section to a value that may be wrong; (text, section)."""
    sections = TRAINING_SECTIONS if "[DATA]" in text else EVALUATION_SECTIONS
    keys = [
        (s, k) for s, model in sections.items() for k in model.model_fields if (s, k) not in SPARED
    ]
    section, key = keys[rng.integers(len(keys))]
    if rng.integers(8) == 0:
        key = key[:-1] + "x"
    value = VALUES[rng.integers(len(VALUES))]
    lines = [line for line in text.splitlines() if not line.startswith(f"{key} =")]
    if f"[{section}]" not in lines:
        lines.append(f"[{section}]")
    lines.insert(lines.index(f"[{section}]") + 1, f"{key} = {value}")
    return "\n".join(lines) + "\n", section


def mutate_bytes(content: bytes, rng: np.random.Generator) -> bytes:
    """Damage a settings file as editors, copies and encodings do."""
    lines = content.splitlines(keepends=True)
    place = int(rng.integers(len(lines)))
    changes: list[Callable[[], bytes]] = [
        lambda: content.decode().encode("utf-16"),
        lambda: b"\xef\xbb\xbf" + content,
        lambda: content.replace(b"\n", b"\r\n"),
        lambda: content + "name = Müller\n".encode("latin-1"),
        lambda: content + content,
        lambda: content.replace(b"]", b"", 1),
        lambda: content.replace(b" = ", b" ", 1),
        lambda: content[: int(rng.integers(len(content)))],
        lambda: b"".join([*lines[:place], lines[place], *lines[place:]]),
        lambda: b"".join([*lines[:place], b"\0\x01\x02\n", *lines[place:]]),
        lambda: b"".join([*lines[:place], b"    indented = 1\n", *lines[place:]]),
        lambda: content.lower(),
        lambda: b"",
        lambda: bytes(rng.integers(0, 256, 200, dtype=np.uint8)),
    ]
    return changes[int(rng.integers(len(changes)))]()


def command(section: str) -> list[str]:
    """A mode that uses the section, small enough to run to its end where the mutation is harmless."""
    mode = SECTION_MODES.get(section, "train")
    small = ["--cell", "swi_female"] if mode in ("train", "test") else []
    if mode == "train":
        small += ["--network", "1", "-e", "4"]
    return ["-m", mode, *small]


def test_mutated_settings_end_with_a_sentence(
    trained: Path, repetitions, capsys: pytest.CaptureFixture
):
    """Each of 200 (10,000) damaged ini pairs: exit code 0-3, a message where it failed, no exception."""
    codes: dict[int, int] = {}
    pair = {name: (trained / name).read_bytes() for name in ("golden.ini", "golden_eval.ini")}
    for number in range(repetitions(200, 10_000)):
        rng = generator("mutated settings", number)
        name = list(pair)[int(rng.integers(2))]
        section = ""
        if rng.integers(4) == 0:
            changed = mutate_bytes(pair[name], rng)
        else:
            text, section = mutate_value(pair[name].decode(), rng)
            changed = text.encode()
        for each, content in pair.items():
            (trained / each).write_bytes(changed if each == name else content)
        code, err = run_main([*command(section), "-n", str(trained / "golden")], capsys, changed)
        codes[code] = codes.get(code, 0) + 1
        if code in (1, 2):
            assert err.strip() and "Traceback" not in err, changed.decode(errors="replace")
        if code == 2:
            assert "ini" in err, err
        shutil.rmtree(trained / "experiments" / "golden" / "summary", ignore_errors=True)
    assert codes.keys() <= {0, 1, 2, 3}
    assert codes[2] > 0.4 * sum(codes.values()), codes


def run_main(words: list[str], capsys: pytest.CaptureFixture, changed: bytes) -> tuple[int, str]:
    """Exit code and messages of the program in this process; an exception names the settings that caused it."""
    capsys.readouterr()
    try:
        code = main(words)
    except Exception as error:
        pytest.fail(
            f"{type(error).__name__}: {error}\n{words}\n{changed.decode(errors='replace')}",
            pytrace=True,
        )
    return code, capsys.readouterr().err


@pytest.mark.parametrize(
    "override", ["x", "=", "TRAINING", "TRAINING.", "TRAINING.=1", ".seed=1", "A.b=1", "DATA.x=1"]
)
def test_mutated_overrides_are_named(trained: Path, override: str, capsys: pytest.CaptureFixture):
    code, err = run_main(
        ["-m", "train", "-n", str(trained / "golden"), "--set", override], capsys, b""
    )
    assert code == 2
    assert "--set" in err


@pytest.mark.parametrize(
    "mode, override, code, said",
    [
        ("train", f"DATA.subjects={'a' * 300}", 1, "train failed: "),
        (
            "simulate",
            f"SIMULATION.n_test_per_sex=1{'0' * 40}",
            2,
            "golden.ini [SIMULATION]: n_*_per_sex: at most",
        ),
        (
            "simulate",
            f"SIMULATION.n_nidps=1{'0' * 40}",
            2,
            "golden.ini [SIMULATION]: n_nidps: at most 20,000.",
        ),
        ("test", f"MAPPING.bootstrap_resamples=1{'0' * 40}", 2, "bootstrap_resamples"),
    ],
)
def test_what_once_gave_a_traceback_or_filled_the_memory(
    trained: Path, mode: str, override: str, code: int, said: str, capsys: pytest.CaptureFixture
):
    words = ["-m", mode, "-n", str(trained / "golden"), "--set", override]
    found, err = run_main(words, capsys, b"")
    assert found == code, err
    assert said in err
