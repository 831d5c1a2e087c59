"""Blocks, parts and what is kept: the same bits however the work is divided, and nothing of other inputs used."""

import errno
import os
import shutil
import signal
import time

import numpy as np
import pandas as pd
import pytest

from utils.association import blocks as blocks_module
from utils.association.analysis import conclude, scan_study
from utils.association.blocks import Block, BlockStore, Part, grid_of
from utils.association.deltas_table import recognise_deltas
from utils.association.phenotype_tables import table_in_memory
from utils.association.phenotypes import PhenotypeRules
from utils.association.rules import AssociationRules
from utils.association.study import plan_study
from utils.common.errors import UserError
from utils.common.files import clear_leftovers

RULES = AssociationRules(phenotypes=PhenotypeRules(headline_n=150), permutations=40, recheck_hits=5)


@pytest.fixture
def study(monkeypatch):
    """240 subjects, two contrasts, 30 nIDPs in four blocks, some values missing."""
    monkeypatch.setattr(blocks_module, "COLUMNS_PER_BLOCK", 8)
    rng = np.random.default_rng(5)
    ids, age = [f"S{k}" for k in range(240)], rng.uniform(45, 80, 240)
    true = rng.normal(size=240)
    deltas = pd.concat(
        pd.DataFrame(
            {"subject_id": ids, "sex": np.where(np.arange(240) % 2, "female", "male"), "contrast": contrast,
             "age_years": age, "delta_years": true + rng.normal(size=240)}
        )
        for contrast in ("T1", "T2")
    )  # fmt: skip
    nidps = pd.DataFrame({f"n{k}": rng.normal(size=240) + (k < 3) * true for k in range(30)})
    nidps = nidps.mask(rng.random(nidps.shape) < 0.1)
    nidps.insert(0, "subject_id", ids)
    return plan_study(recognise_deltas(deltas), table_in_memory(nidps), None, None, RULES)


def test_parts_one_run_and_a_run_that_goes_on_give_the_same_bits(study, tmp_path):
    whole = conclude(study, scan_study(study)).table
    assert len(study.blocks) == 4 and (whole["nlog10p_bonf"] > 1.3).any()
    for number in (3, 1, 2):  # in any order
        scan_study(study, BlockStore(tmp_path, "key"), Part(number, 3))
    store = BlockStore(tmp_path, "key")
    merged = conclude(study, scan_study(study, store)).table
    assert store.n_found == 8  # four blocks of two sexes: nothing was computed again
    pd.testing.assert_frame_equal(merged, whole, check_exact=True)
    (tmp_path / "key" / "scan_female_00002.npz").unlink()
    (tmp_path / "key" / "permuted_male_00001.npz").write_bytes(b"cut")
    again = conclude(study, scan_study(study, BlockStore(tmp_path, "key"))).table
    pd.testing.assert_frame_equal(again, whole, check_exact=True)


def test_another_key_finds_nothing(study, tmp_path):
    scan_study(study, BlockStore(tmp_path, "key"), Part(1, 4))
    other = BlockStore(tmp_path, "another")
    scan_study(study, other, Part(1, 4))
    assert other.n_found == 0


def test_every_block_is_in_one_part():
    blocks = [Block(number, (f"n{number}",)) for number in range(7)]
    for of in (1, 2, 3, 7, 9):
        shares = [Part(number, of).share(blocks) for number in range(1, of + 1)]
        assert [block for share in shares for block in share] == blocks
        assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_columns_of_one_group_stay_together(monkeypatch):
    monkeypatch.setattr(blocks_module, "COLUMNS_PER_BLOCK", 3)
    grid = grid_of([("a",), ("b", "c", "d", "e"), ("f",), ("g",)])
    assert [block.columns for block in grid] == [("a",), ("b", "c", "d", "e"), ("f", "g")]
    assert grid_of([]) == []


@pytest.mark.parametrize("text", ["0/3", "4/3", "3", "a/b", "1/0", "-1/2", "1/2/3"])
def test_a_part_that_does_not_exist_is_refused(text):
    with pytest.raises(UserError, match="write i/N with i from 1 to N"):
        Part.from_text(text)


def test_the_form_of_a_part():
    assert Part.from_text(" 3 / 20 ") == Part(3, 20)
    assert Part.from_text("") is None


def test_clearing_leaves_what_another_job_converts(tmp_path):
    store = BlockStore(tmp_path / "blocks", "key")
    store.clear()  # nothing there
    store.keep_maxima(Block(0, ("a",)), "male", np.ones(3))
    (tmp_path / "blocks" / "of another run").mkdir()
    (tmp_path / "blocks" / ".nidps.0-1.x").mkdir()
    store.clear()
    assert [path.name for path in (tmp_path / "blocks").iterdir()] == [".nidps.0-1.x"]
    (tmp_path / "blocks" / ".nidps.0-1.x").rmdir()
    store.clear()
    assert not (tmp_path / "blocks").exists()


@pytest.mark.parametrize("call", ["write", "fsync", "replace"])
def test_a_full_disk_is_a_sentence_and_what_was_kept_stays(call, tmp_path, monkeypatch):
    store, block = BlockStore(tmp_path, "key"), Block(0, ("a",))
    store.keep_maxima(block, "male", np.ones(3))

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(*((np, "savez") if call == "write" else (os, call)), full)
    with pytest.raises(UserError, match="the disk is full or the quota used up"):
        store.keep_maxima(block, "male", np.zeros(3))
    monkeypatch.undo()
    assert store.maxima(block, "male").tolist() == [1, 1, 1]
    assert len(list((tmp_path / "key").iterdir())) == 1


def test_damaged_blocks_are_never_used(tmp_path):
    store, block = BlockStore(tmp_path, "key"), Block(0, ("a",))
    maxima = np.random.default_rng(0).normal(size=200)
    store.keep_maxima(block, "male", maxima)
    (path,) = (tmp_path / "key").iterdir()
    whole, rng = path.read_bytes(), np.random.default_rng(1)
    for k in range(300):
        damaged = bytearray(whole)
        place = int(rng.integers(len(whole)))
        if k % 3:
            damaged[place] ^= 1 << int(rng.integers(8))
        else:
            del damaged[place:]
        path.write_bytes(bytes(damaged))
        found = store.maxima(block, "male")
        assert found is None or np.array_equal(found, maxima)  # a flip in a date harms nothing


def test_kills_leave_whole_blocks_and_the_next_run_goes_on(study, tmp_path):
    """A process that scans is killed at any moment; what it kept is used, and the result is the same bit for bit."""
    whole = conclude(study, scan_study(study)).table
    rng = np.random.default_rng(2)
    for number in range(12):
        child = os.fork()
        if child == 0:  # scans until it is killed
            while True:
                scan_study(study, BlockStore(tmp_path, f"key {number % 3}"))
                shutil.rmtree(tmp_path / f"key {number % 3}")
        time.sleep(float(rng.uniform(0.02, 0.25)))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        for path in tmp_path.glob("*/[!.]*.npz"):
            with np.load(path) as file:
                assert all(file[name].size for name in file.files)
    store = BlockStore(tmp_path, "key 1")
    again = conclude(study, scan_study(study, store)).table
    pd.testing.assert_frame_equal(again, whole, check_exact=True)
    clear_leftovers(tmp_path)
    assert not list(tmp_path.rglob("*.writing-*"))
