"""What torchrun tells the processes that it starts, read without torch."""

from __future__ import annotations

import os
from dataclasses import dataclass


@dataclass(frozen=True)
class Launch:
    """This process among all that were started together, and among those of its machine."""

    index: int = 0
    n: int = 1
    local_index: int = 0
    n_local: int = 1

    @property
    def is_first(self) -> bool:
        """Whether it is the one that writes files and speaks."""
        return self.index == 0

    @property
    def name(self) -> str:
        """What messages call it."""
        return f"process {self.index + 1} of {self.n}"


def launch() -> Launch:
    """One process that was started by nobody, or what torchrun's variables say."""
    words = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
    numbers = [os.environ.get(word, "") for word in words]
    if not all(number.isdigit() for number in numbers[:3]):
        return Launch()
    index, n, local_index = map(int, numbers[:3])
    return Launch(index, n, local_index, int(numbers[3]) if numbers[3].isdigit() else n)
