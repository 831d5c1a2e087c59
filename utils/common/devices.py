"""Names of what computes, as the command line and the ini file write them."""

from __future__ import annotations

import re


def is_device_name(text: str) -> bool:
    """Whether `text` is auto, cpu, cuda or cuda:N."""
    return re.fullmatch(r"auto|cpu|cuda(:[0-9]{1,3})?", text) is not None
