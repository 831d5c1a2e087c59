"""Device names of the command line and the ini file."""

from __future__ import annotations

import pytest

from utils.common.devices import is_device_name


@pytest.mark.parametrize("name", ["auto", "cpu", "cuda", "cuda:0", "cuda:12"])
def test_known_names(name):
    assert is_device_name(name)


@pytest.mark.parametrize(
    "name", ["", "gpu", "auto:", "cpu:0", "cuda:", "cuda:x", "cuda:-1", "cpu "]
)
def test_what_torch_would_end_in_a_traceback_for(name):
    assert not is_device_name(name)
