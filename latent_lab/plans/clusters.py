"""Steps by their cluster: k-means over their vectors, plain or with clusters of equal size. Imports no torch."""

from collections.abc import Sequence as Seq
from dataclasses import dataclass
from typing import TYPE_CHECKING

from latent_lab.plans.embedded import Embedded

if TYPE_CHECKING:
    import numpy as np


@dataclass
class KMeans(Embedded):
    """The nearest of ``clusters`` centroids to a step's vector."""

    balanced: bool = False
    """Make clusters equally large."""

    name = "kmeans"

    def divide(self, vectors: "Seq[np.ndarray]") -> "dict[str, np.ndarray]":
        """See :class:`Embedded`."""
        import numpy as np

        from latent_lab.plans.kmeans import cluster

        centroids, prices = cluster(np.concatenate(vectors), self.clusters, self.seed, balanced=self.balanced)
        return {"centroids": centroids, "prices": prices}

    def nearest(self, points: "np.ndarray") -> "np.ndarray":
        """See :class:`Embedded`."""
        from latent_lab.plans.kmeans import assigned

        return assigned(points, self.arrays["centroids"], self.arrays["prices"])
