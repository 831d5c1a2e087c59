"""Large pages are asked for on Linux, unless the user has decided."""

from __future__ import annotations

import os

import pytest

from utils.common.allocator import tune_allocator


@pytest.mark.parametrize(
    ("platform", "before", "after"),
    [("linux", None, "1"), ("linux", "0", "0"), ("darwin", None, None), ("win32", None, None)],
)
def test_the_variable_that_torch_reads(monkeypatch, platform, before, after):
    monkeypatch.setattr("sys.platform", platform)
    monkeypatch.setenv("THP_MEM_ALLOC_ENABLE", before or "")  # puts back what there was
    if before is None:
        monkeypatch.delenv("THP_MEM_ALLOC_ENABLE")
    tune_allocator()
    assert os.environ.get("THP_MEM_ALLOC_ENABLE") == after
