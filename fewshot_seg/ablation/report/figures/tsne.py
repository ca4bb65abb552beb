"""Features of test pixels in the plane: does the method tell the class from its surroundings?"""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes

from fewshot_seg.ablation.artefacts import FeatureSample, read_features
from fewshot_seg.ablation.folder import DONE
from fewshot_seg.ablation.report.figures.picture import (
    COLOURS,
    GREY,
    MARKERS,
    Picture,
    caption,
    entitle,
    legend,
    new_figure,
    short,
)
from fewshot_seg.ablation.report.groups import Group
from fewshot_seg.ablation.report.kept import features_file
from fewshot_seg.errors import DataError, OptionError

MOST_VARIANTS = 4
MOST_POINTS = 2000
"""Of all variants together; the time grows a little faster than their number."""
LEAST_POINTS = 20
"""Of a variant; fewer make no picture."""
BACKGROUND = "background"


def tsne_picture(group: Group, *, seed: int = 0) -> Picture | None:
    """A panel for each of the best variants whose features were kept; None without any.

    All panels show test pixels of one fold, seed and held-out class: the one that most variants
    have. seed: of the choice of points and of the embedding.
    Raises OptionError when scikit-learn is not installed.
    """
    samples, which, problems = _samples(group)
    if not samples:
        return None
    each = MOST_POINTS // len(samples)
    thinned = {name: thin(sample, each, seed) for name, sample in samples.items()}
    columns = min(2, len(thinned))
    rows = -(-len(thinned) // columns)
    figure, panels = new_figure(rows=rows, columns=columns, height=0.5 + 2.4 * rows)
    pure = {name: neighbours_agree(sample) for name, sample in thinned.items()}
    for axes, (name, sample) in zip(panels, thinned.items()):
        _panel(axes, sample, embed(sample.features, seed))
        entitle(axes, title=short(name, 24))
    for axes in panels[len(thinned) :]:
        axes.set_visible(False)
    legend(figure, panels[0], columns=3, enlarge=3.0)
    told = "; ".join(f"{name} {100 * share:.0f} %" for name, share in pure.items())
    counts = ", ".join(str(count) for count in {len(one.labels) for one in thinned.values()})
    return Picture(
        name="tsne",
        figure=figure,
        alt=f"Features of {counts} test pixels a variant, embedded in the plane. Pixels whose "
        f"nearest neighbour among the features is of their own class: {told}.",
        caption=caption(
            f"t-SNE of features of test pixels ({which}), as the decoder compares them (cosine "
            "distance). Only who is beside whom means something, not how far groups lie apart.",
            f"Nearest neighbour of the own class: {told}.",
            *problems,
            group.note,
        ),
    )


def thin(sample: FeatureSample, most: int, seed: int) -> FeatureSample:
    """At most `most` points, an even choice."""
    if len(sample.labels) <= most:
        return sample
    chosen = np.sort(np.random.default_rng(seed).permutation(len(sample.labels))[:most])
    return FeatureSample(
        sample.features[chosen], sample.labels[chosen], sample.classes, sample.note
    )


def embed(features: Float[np.ndarray, "point dim"], seed: int) -> Float[np.ndarray, "point 2"]:
    """t-SNE under the cosine distance; the same seed gives the same plane."""
    _check_installed()
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    perplexity = min(30.0, (len(features) - 1) / 3)
    # A random start: of features that hardly differ, PCA would divide by zero.
    model = TSNE(metric="cosine", perplexity=perplexity, init="random", random_state=seed)
    with threadpool_limits(1):  # for so few points, threads wait for each other
        return model.fit_transform(features)


def neighbours_agree(sample: FeatureSample) -> float:
    """Share of points whose nearest neighbour, by cosine, is of their own class."""
    _check_installed()
    from sklearn.neighbors import NearestNeighbors

    search = NearestNeighbors(n_neighbors=1, metric="cosine").fit(sample.features)
    nearest = search.kneighbors(return_distance=False)[:, 0]  # without the point itself
    return float((sample.labels[nearest] == sample.labels).mean())


def _panel(axes: Axes, sample: FeatureSample, plane: Float[np.ndarray, "point 2"]) -> None:
    for label, name in enumerate((BACKGROUND, *sample.classes)):
        own = plane[sample.labels == label]
        colour = GREY if label == 0 else COLOURS[(label - 1) % len(COLOURS)]
        axes.plot(
            own[:, 0], own[:, 1], MARKERS[label % len(MARKERS)], color=colour, markersize=2.5,
            alpha=0.7, markeredgewidth=0, label=name, rasterized=True,
        )  # fmt: skip
    axes.set_xticks([])
    axes.set_yticks([])


def _samples(group: Group) -> tuple[Mapping[str, FeatureSample], str, list[str]]:
    """variant -> its features, whose they are in words, and why others are not shown."""
    done = group.cells[group.cells["state"] == DONE]
    there = done[[features_file(group, cell).exists() for cell in done["cell"]]]
    if there.empty:
        return {}, "", []
    sizes = there.groupby(["fold", "seed", "novel"], sort=False)["variant"].nunique()
    fold, seed, novel = sizes.idxmax()
    same = (there["fold"] == fold) & (there["seed"] == seed) & (there["novel"] == novel)
    cells = there[same].drop_duplicates("variant").set_index("variant")["cell"]
    best = group.means["mean"].reindex(cells.index).nlargest(MOST_VARIANTS).index
    samples: dict[str, FeatureSample] = {}
    problems = []
    for variant in (name for name in group.variants if name in best):
        try:
            sample = read_features(features_file(group, cells[variant]))
        except DataError as error:
            problems.append(f"Not shown: {error}.")
            continue
        if len(sample.labels) >= LEAST_POINTS:
            samples[variant] = sample
        else:
            problems.append(f"Not shown: {variant} ({sample.note or 'too few points'}).")
    return samples, f"{novel}, fold {fold}, seed {seed}", problems


def _check_installed() -> None:
    try:
        import sklearn  # noqa: F401
    except ImportError as error:
        raise OptionError(
            't-SNE needs scikit-learn: pip install "fewshot-seg[ablation]"'
        ) from error
