"""R5, R11: damaged subject tables, lists, arrays of ages and contrast tables are read or named, never a traceback.

A mutation may leave a file that is as good as the one before it; so either a table or a sentence is accepted, and
the time and memory that it took are bounded. What may not happen is any other exception, or the end of the process.
"""

from __future__ import annotations

import io
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from datasets.ages import parse_ages, read_age_array
from datasets.contrasts import PUBLISHED_TABLE, read_contrast_table
from datasets.subjects import COLUMNS, read_id_list, read_subject_table
from utils.common.errors import UserError
from utils.common.randomness import generator
from utils.common.tables import write_table

LONGEST_S = 2.0
LONGEST_MESSAGE = 2000
MEGABYTE = 1_000_000
MEMORY_FACTOR = 50
N_SUBJECTS = 25
TOKENS = (
    b",", b";", b"\t", b'"', b'""', b"'", b"\n", b"\r", b"\r\n", b"\n\n", b"\0", b"\x1a", b"\xff", b"\xe9",
    "é".encode(), b"\xef\xbb\xbf", "\u200b".encode(), "\u2028".encode(), b"-9999", b"n/a", b"NA", b"nan", b"inf",
    b"-inf", b"1e9", b"1E+06", b"9" * 30, b"9" * 400, b"9" * 5000, b"1e400", b"89+", b"26,9", b"1,234",
    b"45 years", b"1950-03-01", b"#REF!", b"=1+1", b"../x", b"..", b"x" * 300, b"(1, 2)", b"{}", b"%s", b"True",
    b"female", b"M,", b"2.0", b"val", b"1:2 3:4 5:6", b"91 109 91", b"mm", b"auto", b"eid", b"subject_id", b"age",
    b"sep=;\n", b"-1", b"0", "٣".encode(),
)  # fmt: skip


def subject_table(rng: np.random.Generator) -> pd.DataFrame:
    """Subjects as a study has them, some values missing."""
    ages = np.round(rng.uniform(45, 82, N_SUBJECTS), 2)
    return pd.DataFrame(
        {
            "subject_id": [f"{number:07d}" for number in rng.permutation(9_999_999)[:N_SUBJECTS]],
            "age": np.where(rng.random(N_SUBJECTS) < 0.1, np.nan, ages),
            "sex": rng.choice(["female", "male"], N_SUBJECTS),
            "split": rng.choice(["train", "validation", "test"], N_SUBJECTS),
            "family": rng.choice(["", "F1", "F2"], N_SUBJECTS),
            "site": rng.choice(["1", "2"], N_SUBJECTS),
        }
    )


SUBJECTS = subject_table(generator("fuzzed lists", 0))  # the permutation is large: drawn once


def as_text(separator: str, **options) -> bytes:
    return SUBJECTS.to_csv(index=False, sep=separator, **options).encode()


def as_parquet() -> bytes:
    handle = io.BytesIO()
    SUBJECTS.to_parquet(handle, index=False, compression="zstd", write_page_checksum=True)
    return handle.getvalue()


def as_array(values: np.ndarray) -> bytes:
    handle = io.BytesIO()
    np.save(handle, values)
    return handle.getvalue()


CONTRASTS = (
    b"name,scale_factor,resolution,data_file,shape,crop,volume_index,divide_by_mean,category\n"
    b"swi,auto,4mm,swi.nii.gz,46 55 46,2:42 3:51 0:40,,True,iron\n"
    b"rsfmri_3,2.5,2mm,f/rs.nii.gz,,,3,0,\n"
)
# Name of the file -> (content, what reads it)
VALID: dict[str, tuple[bytes, Callable[[Path], object]]] = {
    "comma.csv": (as_text(","), read_subject_table),
    "tab.tsv": (as_text("\t", na_rep="n/a"), read_subject_table),
    "excel.csv": (
        b"\xef\xbb\xbf" + as_text(";", decimal=",").replace(b"\n", b"\r\n"),
        read_subject_table,
    ),
    "quoted.csv": (as_text(",", quoting=1), read_subject_table),
    "people.parquet": (as_parquet(), read_subject_table),
    "list.txt": ("\n".join(SUBJECTS["subject_id"]).encode() + b"\n", read_id_list),
    "ages.npy": (as_array(SUBJECTS["age"].to_numpy()), lambda path: parse_ages(read_age_array(path))),
    "texts.npy": (
        as_array(SUBJECTS["age"].astype(str).to_numpy(dtype="U5")),
        lambda path: parse_ages(read_age_array(path)),
    ),
    "contrasts.csv": (CONTRASTS, read_contrast_table),
    "published.csv": (PUBLISHED_TABLE.read_bytes(), read_contrast_table),
}  # fmt: skip


def flip(content: bytes, rng: np.random.Generator) -> bytes:
    changed = bytearray(content)
    for place in rng.integers(len(content), size=int(rng.integers(1, 5))):
        changed[place] ^= 1 << int(rng.integers(8))
    return bytes(changed)


def insert(content: bytes, rng: np.random.Generator) -> bytes:
    place = int(rng.integers(len(content) + 1))
    return content[:place] + TOKENS[rng.integers(len(TOKENS))] + content[place:]


def change_field(content: bytes, rng: np.random.Generator) -> bytes:
    """Another value, none, or the neighbour's as well."""
    separator = max((b",", b"\t", b";"), key=content.count)
    fields = content.split(separator)
    place = int(rng.integers(len(fields)))
    kind = int(rng.integers(4))
    number = str(rng.choice([rng.normal() * 10.0 ** rng.integers(-3, 12), rng.integers(-9, 130)]))
    fields[place : place + 1] = (
        [TOKENS[rng.integers(len(TOKENS))]],
        [],
        [fields[place], fields[place]],
        [number.encode()],
    )[kind]
    return separator.join(fields)


def change_lines(content: bytes, rng: np.random.Generator) -> bytes:
    lines = content.splitlines(keepends=True) or [b""]
    first, second = (int(place) for place in rng.integers(len(lines), size=2))
    kind = int(rng.integers(4))
    if kind == 0:
        del lines[first]
    elif kind == 1:
        lines.insert(second, lines[first])
    elif kind == 2:
        lines[first], lines[second] = lines[second], lines[first]
    else:
        lines[first] = lines[first][: int(rng.integers(len(lines[first]) + 1))]
    return b"".join(lines)


def change_encoding(content: bytes, rng: np.random.Generator) -> bytes:
    text = content.decode("utf-8", errors="replace")
    with_umlaut = text.replace("e", "é", 1)
    changed = (
        text.encode("utf-16"), b"\xfe\xff" + text.encode("utf-16-be"), text.encode("utf-16-le"), text.encode("utf-32"),
        with_umlaut.encode("latin-1", errors="replace"), with_umlaut.encode(), b"\xef\xbb\xbf" + content,
        text.encode("utf-7"), content.replace(b"\n", b"\r"), content.replace(b"\n", b"\r\n"), content.swapcase(),
    )  # fmt: skip
    return changed[rng.integers(len(changed))]


def overwrite(content: bytes, rng: np.random.Generator) -> bytes:
    """A block of zeros or of anything, as a failed copy leaves it."""
    start = int(rng.integers(len(content) + 1))
    length = int(rng.integers(1, 200))
    block = rng.integers(0, 256, length).astype(np.uint8).tobytes()
    return content[:start] + (block if rng.integers(2) else bytes(length)) + content[start + length :]  # fmt: skip


MUTATIONS = (
    flip,
    insert,
    change_field,
    change_lines,
    change_encoding,
    overwrite,
    lambda content, rng: content[: int(rng.integers(len(content) + 1))],
    lambda content, rng: content + content,
)


def mutate(content: bytes, rng: np.random.Generator) -> bytes:
    """One to three mutations."""
    for number in rng.integers(len(MUTATIONS), size=int(rng.integers(1, 4))):
        content = MUTATIONS[number](content, rng) if content else content
    return content


def test_the_files_are_valid_before_they_are_changed(tmp_path: Path):
    for name, (content, read) in VALID.items():
        path = tmp_path / name
        path.write_bytes(content)
        found = read(path)
        assert len(found) in (N_SUBJECTS, 2, 57)
        if isinstance(found, pd.DataFrame):
            assert found["subject_id"].tolist() == SUBJECTS["subject_id"].tolist()
            assert np.array_equal(found["age_years"], SUBJECTS["age"], equal_nan=True)


def test_mutated_lists_and_tables_are_read_or_named(tmp_path: Path, repetitions):
    """Each of 1,000 (10,000) damaged files: a table or one sentence, in bounded time and memory."""
    outcomes: Counter[str] = Counter()
    names = list(VALID)
    warm_up(tmp_path)
    tracemalloc.start()
    try:
        for number in range(repetitions(1000, 10_000)):
            rng = generator("fuzzed lists", number)
            content, read = VALID[names[number % len(names)]]
            path = tmp_path / names[number % len(names)]
            path.write_bytes(mutate(content, rng))
            outcomes[outcome(path, read, number)] += 1
    finally:
        tracemalloc.stop()
    print(dict(outcomes))
    total = sum(outcomes.values())
    assert outcomes["named"] > 0.4 * total and outcomes["read"] > 0.1 * total, outcomes


def warm_up(folder: Path) -> None:
    """Imports and caches are nobody's memory."""
    for name, (content, read) in VALID.items():
        (folder / name).write_bytes(content)
        read(folder / name)


def outcome(path: Path, read: Callable[[Path], object], number: int) -> str:
    """ "read" or "named"; anything else fails, with the content that caused it."""
    tracemalloc.reset_peak()
    before, started = tracemalloc.get_traced_memory()[0], time.monotonic()
    try:
        found = read(path)
    except UserError as error:
        said = str(error)
        assert "\n" not in said and said.startswith(str(path)), (number, said)
        assert said.endswith(".") and len(said) < LONGEST_MESSAGE and said.isprintable(), (number, said)  # fmt: skip
        result = "named"
    except Exception as error:
        pytest.fail(f"case {number}: {type(error).__name__}: {error}\n{path.read_bytes()!r}")
    else:
        check_table(found, number)
        result = "read"
    took, peak = time.monotonic() - started, tracemalloc.get_traced_memory()[1] - before
    assert took < LONGEST_S, (number, took)
    assert peak < MEGABYTE + MEMORY_FACTOR * path.stat().st_size, (number, peak)
    return result


def check_table(found: object, number: int) -> None:
    """What was read can be used: ids once, ages in range or with a reason, and it can be written."""
    if not isinstance(found, pd.DataFrame):
        return
    assert list(found.columns) == COLUMNS and found["subject_id"].is_unique, number
    ages, notes = found["age_years"].astype(float), found["note"]
    assert ages.dropna().between(0, 120).all() and (ages.isna() == (notes != "")).all(), number
    assert set(found["sex"]) <= {"", "female", "male"}, number
    assert all(map(str.isprintable, found["subject_id"])), number


@pytest.mark.parametrize("name", ["people.parquet", "ages.npy"])
def test_a_flipped_byte_is_named_or_harmless(tmp_path: Path, name: str, repetitions):
    """Parquet pages have checksums. An .npy has none: only its header's flips can be noticed."""
    content, read = VALID[name]
    path = tmp_path / name
    path.write_bytes(content)
    whole = read(path)
    named = 0
    for number in range(repetitions(200, 2000)):
        rng = generator("flipped byte", name, number)
        end = len(content) if name == "people.parquet" else 128
        changed = bytearray(content)
        changed[int(rng.integers(end))] ^= 1 << int(rng.integers(8))
        path.write_bytes(bytes(changed))
        try:
            found = read(path)
        except UserError:
            named += 1
            continue
        if isinstance(whole, pd.DataFrame):
            pd.testing.assert_frame_equal(found, whole)
    assert named > 0


def test_a_written_table_survives_its_own_copying(tmp_path: Path):
    """Whole copies are read the same; copies cut at any byte of the last row are read, warned of or named."""
    path = tmp_path / "people.csv"
    write_table(SUBJECTS, path)
    content, whole = path.read_bytes(), read_subject_table(path)
    last = content[:-1].rfind(b"\n") + 1
    for end in range(last + 1, len(content)):
        path.write_bytes(content[:end])
        fields = content[last:end].count(b",") + 1
        if fields < len(SUBJECTS.columns):
            with pytest.raises(UserError, match="the file may have been cut"):
                read_subject_table(path)
        else:
            assert len(read_subject_table(path)) == len(whole)
