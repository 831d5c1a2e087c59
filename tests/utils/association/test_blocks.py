"""Blocks, parts and what is kept: the same bits however the work is divided, and nothing of other inputs used."""

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
