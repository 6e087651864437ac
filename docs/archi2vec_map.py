"""Draws ``docs/pictures/archi2vec.png``: the architectures of timm on a plane, by their vectors.

Run by hand after the vectors have changed (extra ``notebook``)::

    python docs/archi2vec_map.py
"""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.transforms import Bbox
from sklearn.manifold import TSNE

from recsys_ms.catalog.catalog import Catalog
from recsys_ms.history.embedded import embedded_folder

PICTURE = Path(__file__).with_name("pictures") / "archi2vec.png"
N_FAMILIES = 24
#: Shapes tell apart what twelve colours cannot.
MARKERS = ("o", "^")
STYLE = {
    "fontsize": 8.5,
    "weight": "bold",
    "bbox": {"boxstyle": "round,pad=0.1", "fc": "white", "ec": "none", "alpha": 0.7},
}


def main() -> None:
    """Lay out, colour the largest families, and write their names where most of them lie."""
    models = Catalog.read(embedded_folder("timm")).models
    models = models[models.index == models["architecture"]]
    vectors = np.array(models["embedding"].tolist())
    layout = TSNE(
        perplexity=30, metric="cosine", init="random", random_state=1, max_iter=2000
    ).fit_transform(vectors)
    families = models["family"].to_numpy()
    largest = models["family"].value_counts().index[:N_FAMILIES]
    figure, axes = plt.subplots(figsize=(12, 9), dpi=110)
    others = ~np.isin(families, largest)
    axes.scatter(*layout[others].T, s=9, color="0.75", linewidths=0)
    places: dict[str, np.ndarray] = {}
    colours = plt.get_cmap("Paired").colors
    for number, family in enumerate(largest):
        points = layout[families == family]
        axes.scatter(
            *points.T,
            s=22,
            color=colours[number % 12],
            marker=MARKERS[number // 12],
            edgecolors="0.2",
            linewidths=0.3,
        )
        # The point with most of its family around it.
        near = np.linalg.norm(points[:, None] - points[None], axis=2) < 6
        place = points[near.sum(axis=1).argmax()]
        places[family] = place
    figure.canvas.draw()
    taken: list[Bbox] = []
    for family, place in sorted(places.items(), key=lambda each: each[1][1]):
        # Above its points, and above the names that are there already.
        for lift in range(8, 120, 4):
            text = axes.annotate(
                family, place, (0, lift), textcoords="offset points", ha="center", **STYLE
            )
            box = text.get_window_extent()
            if not any(box.overlaps(other) for other in taken):
                taken.append(box)
                break
            text.remove()
    n_others = len(set(families[others]))
    axes.set_title(
        f"{len(models)} architectures of timm by archi2vec (t-SNE of cosine distances): "
        f"the {N_FAMILIES} largest families in colour, {n_others} others in grey",
        fontsize=11,
    )
    axes.set_axis_off()
    figure.tight_layout()
    figure.savefig(PICTURE, pil_kwargs={"optimize": True})


if __name__ == "__main__":
    main()
