"""Finding the stimulus that a decoded embedding belongs to, in a gallery of pictures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from calcarine.decoding.gallery import Gallery
from calcarine.display import html_table
from calcarine.errors import SettingError, ShapeError, did_you_mean

__all__ = ["Retrieval", "retrieve"]

FloatArray = NDArray[np.floating[Any]]

_BLOCK_VALUES = 32_000_000
_NEIGHBOURS = 10
_ROUNDING = 1e-12  # similarities that differ by less are equal


@dataclass(frozen=True, eq=False, repr=False)
class Retrieval:
    """How well decoded embeddings find their stimuli, and the stimuli themselves.

    Attributes
    ----------
    places : float array of shape (n, n), or None
        Row i, column j: place in the gallery of the right picture of stimulus i, by its similarity
        to what is decoded for stimulus j; 1 is best. Pictures of equal similarity share the mean
        of their places. The diagonal is `rank`; the other entries show what other responses find.
        None for a gallery without the pictures that were seen: no rank exists there.
    backward_rank : float array of shape (n,), or None
        Backward retrieval: place of the right decoded embedding among all of them, by similarity
        to the picture. None where `places` is.
    nearest : tuple of tuple of str
        For each decoded embedding, the ids of the most similar pictures, best first.
    similarity : float32 array of shape (n, k)
        Their similarities.
    gallery_size : int
        Number of pictures in the gallery.
    hubness : float
        Skewness of the number of decoded embeddings among whose nearest ten a picture is: near 0
        without hubs, pictures that are similar to almost everything; large with them.
    """

    places: NDArray[np.float64] | None
    backward_rank: NDArray[np.float64] | None
    nearest: tuple[tuple[str, ...], ...]
    similarity: NDArray[np.float32]
    gallery_size: int
    hubness: float

    @property
    def has_ranks(self) -> bool:
        """Whether the gallery holds the pictures that were seen, so that ranks exist."""
        return self.places is not None

    @property
    def rank(self) -> NDArray[np.float64]:
        """Forward retrieval: place of each right picture by its own decoded embedding."""
        return np.asarray(np.diag(self._ranked(self.places)))

    def top(self, k: int = 1, *, backward: bool = False) -> float:
        """Return the share of stimuli whose rank is at most k.

        Parameters
        ----------
        k : int
        backward : bool
            Of `backward_rank` instead of `rank`.

        Returns
        -------
        float
            By chance, k / `gallery_size`; backward, k / n.
        """
        ranks = self._ranked(self.backward_rank) if backward else self.rank
        return float(np.mean(ranks <= k))

    @property
    def median_rank(self) -> float:
        """Median of the forward ranks; by chance (gallery_size + 1) / 2."""
        return float(np.median(self.rank))

    @property
    def percentiles(self) -> NDArray[np.float64]:
        """Share of the other pictures that are less similar, for all entries of `places`."""
        places = self._ranked(self.places)
        return np.asarray((self.gallery_size - places) / (self.gallery_size - 1))

    @property
    def rank_percentile(self) -> float:
        """Mean share of the other pictures that are less similar than the right one.

        By chance 0.5; in a gallery of the test pictures it is two-way identification.
        """
        return float(np.diag(self.percentiles).mean())

    @staticmethod
    def _ranked(values: NDArray[np.float64] | None) -> NDArray[np.float64]:
        if values is None:
            raise SettingError(
                "This gallery lacks the pictures that were seen, so no rank exists; see nearest, "
                "or search a gallery that holds them (Gallery.joined)."
            )
        return values

    def _facts(self) -> dict[str, object]:
        facts: dict[str, object] = {"gallery": f"{self.gallery_size} pictures"}
        if self.has_ranks:
            facts |= {
                "top-1": f"{self.top(1):.3f} (chance {1 / self.gallery_size:.3g})",
                "top-5": f"{self.top(5):.3f} (chance {min(1.0, 5 / self.gallery_size):.3g})",
                "median rank": f"{self.median_rank:g}",
                "rank percentile": f"{self.rank_percentile:.3f}",
                "backward top-1": f"{self.top(1, backward=True):.3f}",
            }
        else:
            facts["ranks"] = "none, because it lacks the pictures that were seen"
        return facts | {"hubness": f"{self.hubness:.2f}"}

    def __repr__(self) -> str:
        facts = ", ".join(f"{name} {value}" for name, value in self._facts().items())
        return f"Retrieval(of {len(self.nearest)}: {facts})"

    def _repr_html_(self) -> str:
        return html_table("Retrieval", self._facts())


def retrieve(
    decoded: NDArray[Any],
    gallery: Any,
    right: Sequence[str] | None,
    ids: Sequence[str] | None = None,
    *,
    mean: NDArray[Any] | None = None,
    metric: Literal["cosine", "correlation"] = "cosine",
    hubs: Literal["keep", "csls"] = "keep",
    k: int = 5,
) -> Retrieval:
    """Retrieve stimuli from a gallery by the similarity of their embeddings.

    Parameters
    ----------
    decoded : array of shape (n, ...)
        Embeddings that are decoded from the brain.
    gallery : Gallery, or array of shape (m, ...)
        Embeddings of the pictures of the gallery, in memory or on disk, where they are read in
        blocks.
    right : sequence of n str, or None
        Id of the picture that belongs to each decoded embedding. Each must be in the gallery. None
        finds the nearest pictures in a gallery without those that were seen: no ranks exist then.
    ids : sequence of m str, optional
        Ids of a gallery that is an array; by default ``right``, for a gallery of exactly those
        pictures.
    mean : array of shape (...), optional
        Mean embedding of training stimuli, from which directions are measured. Without it they are
        measured from zero, and decoded embeddings, which ridge regression shrinks towards that
        mean, are all similar to pictures near the mean.
    metric : {"cosine", "correlation"}
        Cosine of the angle between two embeddings, or Pearson's correlation of their values.
    hubs : {"keep", "csls"}
        "csls" subtracts from each similarity half the mean similarity of the picture to its ten
        most similar decoded embeddings (cross-domain similarity local scaling), so that hubs come
        first less often. It compares the decoded embeddings with one another, so the
        result for one then depends on which others there are.
    k : int
        Number of nearest pictures to return; fewer in a smaller gallery.

    Returns
    -------
    Retrieval

    Raises
    ------
    ShapeError
        If embeddings do not fit together, a value is not finite, or a picture is missing in the
        gallery or in it twice.
    SettingError
        If a setting is unknown.

    Notes
    -----
    A gallery that holds the test pictures makes retrieval no reconstruction: the answer is among
    what is searched. Report the size of the gallery with every score.

    Source: ranks and rank percentile as in the retrieval of Kay et al. (2008) and MindEye (Scotti
    et al. 2023), there with softmax similarities; CSLS by Conneau et al. (2018).

    Examples
    --------
    >>> import numpy as np
    >>> from calcarine.decoding import retrieve
    >>> rng = np.random.default_rng(0)
    >>> pictures = rng.normal(size=(50, 16))
    >>> decoded = 0.3 * pictures[:20] + 0.1 * rng.normal(size=(20, 16))
    >>> names = [f"picture {i}" for i in range(50)]
    >>> found = retrieve(decoded, pictures, names[:20], names)
    >>> found.top(1), found.median_rank, found.gallery_size
    (1.0, 1.0, 50)
    """
    for name, value, known in (
        ("metric", metric, ("cosine", "correlation")),
        ("hubs", hubs, ("keep", "csls")),
    ):
        if value not in known:
            raise SettingError(
                f"{name} is '{value}'; choose {' or '.join(known)}.{did_you_mean(value, known)}"
            )
    if not isinstance(gallery, Gallery):
        names = right if ids is None else ids
        if names is None:
            raise SettingError("The pictures of the gallery have no ids; give them as ids.")
        gallery = Gallery(gallery, names)
    pictures = _Directions(gallery, mean, metric)
    queries = pictures.directions(np.asarray(decoded), "decoded")
    places = pictures.places(right, len(queries))
    if k < 1:
        raise SettingError(f"k is {k}; it must be 1 or more.")
    # First the similarity of each right picture, then how many others are more similar.
    own = np.empty((len(queries), len(places)))
    offset = np.zeros(len(gallery))
    for rows in pictures.blocks(len(queries)):
        inside = np.flatnonzero((places >= rows.start) & (places < rows.stop))
        if hubs == "keep" and not inside.size:
            continue
        similar = queries @ pictures.read(rows).T
        own[:, inside] = similar[:, places[inside] - rows.start]
        if hubs == "keep":
            continue
        count = min(_NEIGHBOURS, len(queries))
        offset[rows] = np.partition(similar, -count, axis=0)[-count:].mean(0) / 2
    own -= offset[places]
    rank = _Ranks(own, k)
    for rows in pictures.blocks(len(queries)):
        rank.add(queries @ pictures.read(rows).T - offset[rows], rows.start)
    hits = np.bincount(rank.among_nearest(_NEIGHBOURS), minlength=len(gallery))
    return Retrieval(
        places=None if right is None else rank.places().T,
        backward_rank=None if right is None else _own_ranks(own),
        nearest=tuple(tuple(gallery.ids[at] for at in row) for row in rank.best[:, :k]),
        similarity=(rank.similar[:, :k]).astype(np.float32),
        gallery_size=len(gallery),
        hubness=_skewness(hits),
    )


class _Directions:
    """Embeddings of a gallery as directions of length 1, read in blocks."""

    def __init__(self, gallery: Gallery, mean: NDArray[Any] | None, metric: str) -> None:
        self.gallery, self.metric, self.shape = gallery, metric, gallery.shape
        if len(gallery) < 2:
            raise ShapeError("A gallery needs at least two pictures.")
        self.mean = None if mean is None else np.asarray(mean, np.float64)
        if self.mean is not None and self.mean.shape != self.shape:
            raise ShapeError(
                f"The mean has the shape {self.mean.shape} and embeddings {self.shape}; give the "
                "mean of embeddings of the same kind."
            )

    def places(self, right: Sequence[str] | None, count: int) -> NDArray[np.int64]:
        """Return the rows of the right pictures; none where no picture is right."""
        if right is None:
            return np.zeros(0, np.int64)
        if len(right) != count:
            raise ShapeError(
                f"There are {count} decoded embeddings and {len(right)} ids; give one for each."
            )
        missing = [name for name in right if name not in self.gallery.place]
        if missing:
            raise ShapeError(
                f"The gallery lacks {len(missing)} of the pictures to be retrieved, the first "
                f"'{missing[0]}'; add their embeddings, or give None as right for the nearest "
                "pictures alone."
            )
        return np.asarray([self.gallery.place[name] for name in right], np.int64)

    def blocks(self, queries: int) -> Iterator[slice]:
        """Iterate over rows of the gallery, as many as fit with similarities to all queries."""
        width = max(1, 4 * queries, int(np.prod(self.shape, dtype=np.int64)))
        step = max(1, _BLOCK_VALUES // width)
        for start in range(0, len(self.gallery), step):
            yield slice(start, min(start + step, len(self.gallery)))

    def read(self, rows: slice) -> FloatArray:
        """Return the directions of some pictures of the gallery."""
        return self.directions(self.gallery.rows(rows), "gallery")

    def directions(self, values: NDArray[Any], what: str) -> FloatArray:
        """Return embeddings about the mean, as rows of length 1."""
        if tuple(values.shape[1:]) != self.shape:
            raise ShapeError(
                f"Decoded embeddings have the shape {tuple(values.shape[1:])} and those of the "
                f"gallery {self.shape}; compare embeddings of one kind."
            )
        x = values.astype(np.float64)
        if not np.isfinite(x).all():
            row = int(np.flatnonzero(~np.isfinite(x.reshape(len(x), -1)).all(1))[0])
            raise ShapeError(f"Row {row} of the {what} embeddings holds NaN or infinity.")
        if self.mean is not None:
            x = x - self.mean
        x = x.reshape(len(x), -1)
        if self.metric == "correlation":
            x = x - x.mean(1, keepdims=True)
        length = np.linalg.norm(x, axis=1, keepdims=True)
        # An embedding that is the mean itself has no direction: it is equally similar to all.
        return x / np.where(length > 0, length, 1.0)


class _Ranks:
    """Places of the right pictures and the nearest ones, over blocks of the gallery.

    Rows are decoded embeddings, columns right pictures; there may be none.
    """

    def __init__(self, right: NDArray[np.float64], k: int) -> None:
        self.right = right
        self.above = np.zeros(right.shape)
        self.equal = np.zeros(right.shape)
        self.keep = max(k, _NEIGHBOURS)
        self.best = np.zeros((len(right), 0), np.int64)
        self.similar = np.zeros((len(right), 0))

    def add(self, similar: NDArray[np.float64], start: int) -> None:
        for row, values in enumerate(np.sort(similar, axis=1) if self.right.size else ()):
            right = self.right[row]
            not_above = np.searchsorted(values, right + _ROUNDING, side="right")
            self.above[row] += len(values) - not_above
            self.equal[row] += not_above - np.searchsorted(values, right - _ROUNDING)
        some = np.broadcast_to(np.arange(similar.shape[1]), similar.shape)
        if similar.shape[1] > self.keep:
            some = np.argpartition(-similar, self.keep - 1, axis=1)[:, : self.keep]
        found = np.take_along_axis(similar, some, axis=1)
        together = np.concatenate([self.similar, found], axis=1)
        places = np.concatenate([self.best, some + start], axis=1)
        order = np.lexsort((places, -together), axis=1)[:, : self.keep]
        self.similar = np.take_along_axis(together, order, axis=1)
        self.best = np.take_along_axis(places, order, axis=1)

    def places(self) -> NDArray[np.float64]:
        return 1 + self.above + (self.equal - 1) / 2

    def among_nearest(self, count: int) -> NDArray[np.int64]:
        return self.best[:, :count].ravel()


def _own_ranks(similar: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the rank of the diagonal of each column; equal values share their mean rank."""
    right = np.diag(similar)
    above = (similar > right + _ROUNDING).sum(0)
    equal = (np.abs(similar - right) <= _ROUNDING).sum(0)
    return np.asarray(1 + above + (equal - 1) / 2)


def _skewness(counts: NDArray[np.int64]) -> float:
    """Return the skewness of some counts; 0 if all are equal."""
    about = counts - counts.mean()
    spread = np.sqrt(np.mean(about**2))
    return float(np.mean(about**3) / spread**3) if spread > 0 else 0.0
