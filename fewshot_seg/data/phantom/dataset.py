"""The phantoms as data sets: `abdomen` and `heart`."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from jaxtyping import Float

from fewshot_seg._version import __version__
from fewshot_seg.data.phantom import anatomy_abdomen, anatomy_heart
from fewshot_seg.data.phantom.acquisition import CONTRASTS, Contrast, acquire
from fewshot_seg.data.phantom.anatomy import Anatomy, Dice
from fewshot_seg.data.phantom.appearance import ABDOMEN_MR, CT, HEART_MR, Tissue, draw_tissues
from fewshot_seg.data.phantom.fields import Pose, RandomField
from fewshot_seg.data.phantom.painting import Grid, Painter
from fewshot_seg.data.phantom.shapes import Vector, rotation
from fewshot_seg.data.phantom.torso import Torso
from fewshot_seg.data.scan import Geometry, Scan
from fewshot_seg.errors import DataError

SIZES = (32, 512)
SCANS = (1, 1000)
SLICES = (4, 128)
_FIELD_OF_VIEW = (320.0, 380.0)  # millimetres
_IN_PLANE_EXTENT = 400.0  # of the random fields; wider than any field of view
_SEEDS = (0, 2**63 - 1)


@dataclass(frozen=True, eq=False)
class Region:
    """A part of the body that can be scanned.

    depth: millimetres that all slices together cover.
    tilt: of the slices in the patient, degrees about x, y, z.
    move, bend: standard deviations of where the patient lies (x, y, z) and of how far soft tissue
        is pushed about, millimetres.
    """

    name: str
    classes: Mapping[int, str]
    draw: Callable[[Dice], tuple[Anatomy, Torso]]
    tissues: Mapping[Contrast, Mapping[str, Tissue]]
    depth: float
    tilt: Vector
    move: Vector
    bend: float


ABDOMEN = Region(
    "phantom_abdomen",
    anatomy_abdomen.CLASSES,
    anatomy_abdomen.draw_abdomen,
    {"mr": ABDOMEN_MR, "ct": CT},
    depth=184.8,
    tilt=(0.0, 0.0, 0.0),
    move=(5.0, 6.0, 5.0),
    bend=5.5,
)
HEART = Region(
    "phantom_heart",
    anatomy_heart.CLASSES,
    anatomy_heart.draw_heart,
    {"mr": HEART_MR, "ct": CT},
    depth=80.0,
    tilt=(28.0, -24.0, 0.0),
    move=(4.0, 4.0, 3.0),
    bend=3.2,
)


@final
@dataclass(frozen=True, eq=False)
class Phantom:
    """Synthetic scans that are made when loaded; a `Dataset`.

    Scan k depends on (seed, k) alone: not on which scans were loaded before, nor on how many there
    are. The patient is the same at every image size and in both contrasts; only the noise differs.
    """

    name: str
    modality: Contrast
    classes: Mapping[int, str]
    ids: tuple[str, ...]
    region: Region
    size: int
    n_slices: int
    seed: int

    @property
    def version(self) -> str:
        """All that decides the scans: nothing is read, so two of one version are equal."""
        asked = (self.name, self.modality, self.ids, self.size, self.n_slices, self.seed)
        return f"{__version__} {asked}"

    def load(self, scan_id: str) -> Scan:
        """The scan with its labels; takes about a second at 128x128x24.

        Intensities: MR 0 to about 1300, CT Hounsfield units. Raises DataError for an unknown id.
        """
        if scan_id not in self.ids:
            raise DataError(
                f"{self.name} has no scan {scan_id!r}; "
                f"its scans are {self.ids[0]!r} to {self.ids[-1]!r}"
            )
        patient = _draw_patient(self.region, self.modality, self.seed, int(scan_id))
        slab = self.region.depth / self.n_slices
        grid = Grid(self.size, self.n_slices, patient.field_of_view / self.size, slab)
        painted = [patient.painter.slice(grid, index) for index in range(self.n_slices)]
        clean = np.stack([image for image, _ in painted])
        image = acquire(patient.dice, clean, grid, patient.bias, self.modality)
        geometry = Geometry(_affine(grid, self.region.tilt), (self.size, self.size, self.n_slices))
        return Scan(
            scan_id,
            image[:, None],
            np.stack([labels for _, labels in painted]),
            geometry.spacing,
            geometry,
        )


@dataclass(frozen=True, eq=False)
class _Patient:
    """dice: left as it stands after the patient was drawn, for the noise."""

    painter: Painter
    bias: RandomField
    field_of_view: float
    dice: Dice


def _draw_patient(region: Region, contrast: Contrast, seed: int, index: int) -> _Patient:
    dice = Dice(np.random.default_rng([seed, index]))
    extent = (region.depth, _IN_PLANE_EXTENT, _IN_PLANE_EXTENT)
    anatomy, torso = region.draw(dice)
    pose = Pose.draw(
        dice.rng,
        extent=extent,
        stretch=0.05,
        shift=region.move,
        amplitude=region.bend,
        knot=(60.0, 65.0, 65.0),
    )
    grain = RandomField.draw(dice.rng, extent=extent, knot=(5.0, 3.4, 3.4))
    bias = RandomField.draw(dice.rng, extent=extent, knot=(150.0, 130.0, 130.0))
    width = 2 * torso.half_width * pose.stretch[0]
    view = float(np.clip(width * dice.uniform(1.06, 1.22), *_FIELD_OF_VIEW))
    tissues = draw_tissues(dice, region.tissues[contrast])
    painter = Painter(anatomy, pose, tissues, grain, len(region.classes))
    return _Patient(painter, bias, view, dice)


def _affine(grid: Grid, tilt: Vector) -> Float[np.ndarray, "4 4"]:
    """Axis codes L A S: columns run to the left, rows to the front, slices to the head."""
    turned = rotation(tilt) @ np.diag([-1.0, 1.0, 1.0])
    steps = np.array([grid.pixel, grid.pixel, grid.slab])
    middle = (np.array([grid.size, grid.size, grid.n_slices]) - 1) / 2
    affine = np.eye(4)
    affine[:3, :3] = turned * steps
    affine[:3, 3] = -affine[:3, :3] @ middle
    return affine


def _phantom(
    region: Region, *, n_scans: int, size: int, n_slices: int, contrast: str, seed: int
) -> Phantom:
    given: list[tuple[str, Any, tuple[int, int]]] = [
        ("n_scans", n_scans, SCANS),
        ("size", size, SIZES),
        ("n_slices", n_slices, SLICES),
        ("seed", seed, _SEEDS),
    ]
    for name, value, (least, most) in given:
        if not isinstance(value, int) or not least <= value <= most:
            raise ValueError(
                f"{region.name}: {name} must be a whole number from {least} to {most}, not {value}"
            )
    known = {name: name for name in CONTRASTS}
    if contrast not in known:
        raise ValueError(f"{region.name}: contrast must be 'mr' or 'ct', not {contrast!r}")
    ids = tuple(str(index + 1) for index in range(n_scans))
    return Phantom(region.name, known[contrast], region.classes, ids, region, size, n_slices, seed)


def abdomen(
    *,
    n_scans: int = 10,
    size: int = 128,
    n_slices: int = 24,
    contrast: str = "mr",
    seed: int = 0,
) -> Phantom:
    """Synthetic abdomens: liver, right kidney, left kidney and spleen among all that lies there.

    contrast: "mr", T2-weighted with suppressed fat, or "ct", with contrast agent. Slices cover
    184.8 mm (7.7 mm each by default), the square field of view is 320 to 380 mm.
    Raises ValueError for n_scans outside 1 to 1000, size outside 32 to 512, n_slices outside
    4 to 128, a negative seed or another contrast.
    """
    return _phantom(
        ABDOMEN, n_scans=n_scans, size=size, n_slices=n_slices, contrast=contrast, seed=seed
    )


def heart(
    *,
    n_scans: int = 10,
    size: int = 128,
    n_slices: int = 10,
    contrast: str = "mr",
    seed: int = 0,
) -> Phantom:
    """Synthetic hearts in the short axis at end diastole: myocardium, left pool, right ventricle.

    contrast: "mr", balanced steady state, or "ct", with contrast agent. Slices run from apex to
    base over 80 mm (8 mm each by default) and lie obliquely in the patient, as real ones do.
    Raises ValueError as `abdomen` does.
    """
    return _phantom(
        HEART, n_scans=n_scans, size=size, n_slices=n_slices, contrast=contrast, seed=seed
    )
