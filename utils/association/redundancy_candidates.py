r"""Which pairs of nIDPs could be correlated beyond a limit: a search over some of the subjects that misses none.

If |r| > c over the subjects J that have both, the residual sum of squares of y on x over J is (1 - r^2) TSS_J(y), less
than (1 - c^2) TSS(y), TSS(y) being taken over all subjects that have y. The line fitted to any part T of J leaves no
more there than the line fitted to J does, and that leaves no more on T than on J. So RSS_T(y | x) <= (1 - c^2) TSS(y),
and the same with x and y exchanged: a pair that breaks one of the two on a tenth of the subjects needs no further look.
(Shown here; checked against all pairs in the tests.) What passes is judged exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

# Subjects of the search: so many, or a tenth of all.
SEARCHED_SUBJECTS, SEARCHED_SHARE = 2048, 0.1
# Columns of one matrix product.
COLUMNS_PER_PRODUCT = 1024
# Sums of a few thousand float32 products are right to about 1e-5 of their size; this is far more.
ROUNDING = 1e-3
# Where the mean makes up all but this of the squares (one gross outlier, which is elsewhere, set the scale), float32
# has lost what is left.
LEFT_OF_SQUARES = np.float32(1e-3)
# Pairs of masks compared at a time.
_MASKS_AT_ONCE = 20_000
# How many bits of a byte are set.
_BITS = np.array([bin(byte).count("1") for byte in range(256)], dtype=np.uint8)


def searched_subjects(n_subjects: int) -> NDArray[np.intp]:
    """The subjects of the search, always the same for a number of subjects."""
    n = min(n_subjects, max(SEARCHED_SUBJECTS, int(np.ceil(SEARCHED_SHARE * n_subjects))))
    return np.sort(np.random.default_rng(20190601).permutation(n_subjects)[:n])


@dataclass
class Sketches:
    """The columns of the search: standardised values (m,) of the searched subjects, and who has them at all."""

    n_subjects: int
    names: list[str] = field(default_factory=list)
    n_present: list[int] = field(default_factory=list)
    mask_of: list[int] = field(default_factory=list)
    _values: list[NDArray[np.float32]] = field(default_factory=list)
    _present: list[NDArray[np.bool_]] = field(default_factory=list)
    _masks: dict[bytes, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._rows = searched_subjects(self.n_subjects)

    def add(self, name: str, values: NDArray[np.float64]) -> bool:
        """Add a column (S,); whether another column has the same missing values."""
        present = np.isfinite(values)
        packed = np.packbits(np.pad(present, (0, -present.size % 64))).tobytes()  # whole words
        known = packed in self._masks
        self.names.append(name)
        self.n_present.append(int(present.sum()))
        self.mask_of.append(self._masks.setdefault(packed, len(self._masks)))
        x = values[present]
        here = present[self._rows]
        with np.errstate(over="ignore", invalid="ignore"):
            centre, sd = x.mean(), x.std()
            scaled = np.where(here, (values[self._rows] - centre) / sd, 0.0)
        self._values.append(scaled.astype(np.float32))
        self._present.append(here)
        return known

    def candidates(
        self,
        limit: float,
        minimum_shared: int,
        needed: Callable[[NDArray[np.int64]], NDArray[np.float64]] | None = None,
    ) -> Iterator[NDArray[np.int64]]:
        """Pairs (N, 3): first column, second column (later in the table), subjects with both.

        None with |r| > limit over at least `minimum_shared` subjects is left out. `needed` gives each pair the |r| that
        it needs, which may be more than `limit`.
        """
        edges = range(0, len(self.names), COLUMNS_PER_PRODUCT)
        n_present = np.array(self.n_present, dtype=np.float32)
        for i in edges:
            rows = slice(i, min(i + COLUMNS_PER_PRODUCT, len(self.names)))
            first = _Factors.of(self._values[rows], self._present[rows])
            for j in edges[i // COLUMNS_PER_PRODUCT :]:
                columns = slice(j, min(j + COLUMNS_PER_PRODUCT, len(self.names)))
                second = (
                    first if i == j else _Factors.of(self._values[columns], self._present[columns])
                )
                unexplained = _unexplained(first, second, n_present[rows], n_present[columns])
                possible = unexplained <= 1.0 - limit**2
                a, b = np.nonzero(np.triu(possible, 1) if i == j else possible)
                if not a.size:
                    continue
                pairs = self._sharing_enough(a + i, b + j, minimum_shared)
                if needed is not None:
                    left = unexplained[pairs[:, 0] - i, pairs[:, 1] - j]
                    pairs = pairs[left <= 1.0 - np.minimum(needed(pairs), 1.0) ** 2]
                if len(pairs):
                    yield pairs

    def _sharing_enough(
        self, a: NDArray[np.intp], b: NDArray[np.intp], minimum_shared: int
    ) -> NDArray[np.int64]:
        """The pairs whose columns have enough subjects in common, with their number."""
        masks = np.frombuffer(b"".join(self._masks), np.uint64).reshape(len(self._masks), -1)
        of = np.array(self.mask_of)
        low, high = np.minimum(of[a], of[b]), np.maximum(of[a], of[b])
        pairs, inverse = np.unique(low * len(masks) + high, return_inverse=True)
        shared = np.empty(len(pairs), dtype=np.int64)
        for start in range(0, len(pairs), _MASKS_AT_ONCE):
            some = slice(start, start + _MASKS_AT_ONCE)
            both = masks[pairs[some] // len(masks)] & masks[pairs[some] % len(masks)]
            shared[some] = _n_bits(both)
        shared = shared[inverse]
        kept = shared >= minimum_shared
        return np.column_stack([a[kept], b[kept], shared[kept]])


def _n_bits(words: NDArray[np.uint64]) -> NDArray[np.int64]:
    """How many bits are set in each row of words."""
    if hasattr(np, "bitwise_count"):  # NumPy 2
        return np.bitwise_count(words).sum(axis=1, dtype=np.int64)
    return _BITS[words.view(np.uint8)].sum(axis=1, dtype=np.int64)


@dataclass(frozen=True)
class _Factors:
    """What the products are made of: values x, their squares, and 1 where present; each (columns, m) float32."""

    x: NDArray[np.float32]
    squares: NDArray[np.float32]
    present: NDArray[np.float32]

    @staticmethod
    def of(values: list[NDArray[np.float32]], present: list[NDArray[np.bool_]]) -> _Factors:
        x, mask = np.stack(values), np.stack(present)
        return _Factors(x, x * x, mask.astype(np.float32))


def _unexplained(
    first: _Factors,
    second: _Factors,
    n_first: NDArray[np.float32],
    n_second: NDArray[np.float32],
) -> NDArray[np.float32]:
    """The larger share (I, J) of one's variance that the other leaves at least; 0 where a sum means nothing."""
    xy = first.x @ second.x.T
    n = first.present @ second.present.T
    sx, sy = first.x @ second.present.T, first.present @ second.x.T
    xx, yy = first.squares @ second.present.T, first.present @ second.squares.T
    with np.errstate(all="ignore"):
        slack_x, slack_y = np.float32(ROUNDING) * xx, np.float32(ROUNDING) * yy
        xy -= sx * sy / n
        of_mean_x, of_mean_y = sx * sx / n, sy * sy / n
        lost = (xx - of_mean_x < LEFT_OF_SQUARES * xx) | (yy - of_mean_y < LEFT_OF_SQUARES * yy)
        xx -= of_mean_x
        yy -= of_mean_y
        np.square(xy, out=xy)
        left_of_y = (yy - xy / xx - slack_y) / n_second[None, :]
        left_of_x = (xx - xy / yy - slack_x) / n_first[:, None]
    unexplained = np.fmax(np.fmax(left_of_x, left_of_y), np.float32(0.0))
    unexplained[lost] = 0.0
    return unexplained
