"""How bright each tissue is. MR in scanner units (about 0 to 1000), CT in Hounsfield units.

The figures are typical ones, read off public scans of the same kind by eye: T2 with fat suppression
for the abdomen, balanced steady state for the heart, contrast-enhanced CT in the portal phase.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from fewshot_seg.data.phantom.anatomy import Dice


@dataclass(frozen=True)
class Tissue:
    """mean over patients, spread between patients, grain within a patient, step of one shade."""

    mean: float
    spread: float
    grain: float
    shade: float = 0.0


ABDOMEN_MR = {
    "skin": Tissue(260.0, 40.0, 25.0),
    "subcutaneous fat": Tissue(135.0, 35.0, 14.0),
    "visceral fat": Tissue(120.0, 22.0, 18.0),
    "sinus fat": Tissue(190.0, 50.0, 40.0),
    "muscle": Tissue(225.0, 20.0, 16.0, 18.0),
    "cortical bone": Tissue(70.0, 12.0, 15.0),
    "marrow": Tissue(310.0, 40.0, 25.0),
    "disc": Tissue(300.0, 120.0, 40.0),
    "fluid": Tissue(930.0, 60.0, 30.0),
    "cord": Tissue(400.0, 50.0, 20.0),
    "lung": Tissue(45.0, 10.0, 10.0),
    "lung vessel": Tissue(190.0, 30.0, 20.0),
    "heart": Tissue(240.0, 30.0, 22.0),
    "heart blood": Tissue(110.0, 40.0, 50.0),
    "liver": Tissue(345.0, 45.0, 26.0),
    "hepatic vein": Tissue(570.0, 60.0, 30.0),
    "portal vein": Tissue(630.0, 80.0, 30.0),
    "bile": Tissue(900.0, 80.0, 15.0, 60.0),
    "renal cortex": Tissue(640.0, 55.0, 40.0),
    "medulla": Tissue(800.0, 60.0, 40.0),
    "renal vein": Tissue(150.0, 60.0, 30.0),
    "urine": Tissue(960.0, 60.0, 20.0),
    "spleen": Tissue(700.0, 70.0, 28.0),
    "gut wall": Tissue(290.0, 40.0, 40.0, 60.0),
    "chyme": Tissue(560.0, 60.0, 65.0, 210.0),
    "stool": Tissue(230.0, 60.0, 80.0, 90.0),
    "gas": Tissue(12.0, 4.0, 4.0),
    "pancreas": Tissue(330.0, 40.0, 60.0),
    "vessel wall": Tissue(210.0, 30.0, 20.0),
    "arterial blood": Tissue(55.0, 20.0, 20.0),
    "venous blood": Tissue(120.0, 60.0, 25.0),
    "air": Tissue(0.0, 0.0, 0.0),
}

HEART_MR = {
    "skin": Tissue(330.0, 40.0, 30.0),
    "subcutaneous fat": Tissue(680.0, 90.0, 40.0),
    "visceral fat": Tissue(470.0, 60.0, 45.0),
    "muscle": Tissue(150.0, 20.0, 25.0, 20.0),
    "cortical bone": Tissue(60.0, 10.0, 12.0),
    "marrow": Tissue(270.0, 40.0, 40.0),
    "disc": Tissue(180.0, 40.0, 30.0),
    "fluid": Tissue(760.0, 60.0, 30.0),
    "cord": Tissue(330.0, 40.0, 20.0),
    "lung": Tissue(28.0, 8.0, 12.0),
    "lung vessel": Tissue(250.0, 40.0, 30.0),
    "liver": Tissue(215.0, 30.0, 20.0),
    "hepatic vein": Tissue(400.0, 50.0, 25.0),
    "portal vein": Tissue(380.0, 50.0, 25.0),
    "spleen": Tissue(330.0, 40.0, 25.0),
    "gut wall": Tissue(190.0, 30.0, 30.0, 30.0),
    "chyme": Tissue(430.0, 60.0, 80.0, 150.0),
    "gas": Tissue(15.0, 5.0, 5.0),
    "vessel wall": Tissue(160.0, 20.0, 20.0),
    "arterial blood": Tissue(640.0, 60.0, 30.0),
    "venous blood": Tissue(560.0, 60.0, 35.0),
    "myocardium": Tissue(165.0, 20.0, 22.0),
    "left blood": Tissue(620.0, 55.0, 30.0),
    "right blood": Tissue(570.0, 55.0, 40.0),
    "air": Tissue(0.0, 0.0, 0.0),
}

CT = {
    "skin": Tissue(10.0, 8.0, 8.0),
    "subcutaneous fat": Tissue(-104.0, 5.0, 7.0),
    "visceral fat": Tissue(-98.0, 6.0, 10.0),
    "sinus fat": Tissue(-70.0, 15.0, 15.0),
    "muscle": Tissue(58.0, 6.0, 8.0, 8.0),
    "cortical bone": Tissue(520.0, 60.0, 60.0),
    "marrow": Tissue(210.0, 40.0, 40.0),
    "disc": Tissue(85.0, 10.0, 8.0),
    "fluid": Tissue(25.0, 5.0, 4.0),
    "cord": Tissue(40.0, 4.0, 4.0),
    "lung": Tissue(-840.0, 25.0, 25.0),
    "lung vessel": Tissue(0.0, 40.0, 20.0),
    "heart": Tissue(105.0, 10.0, 8.0),
    "heart blood": Tissue(165.0, 15.0, 8.0),
    "liver": Tissue(105.0, 12.0, 7.0),
    "hepatic vein": Tissue(150.0, 15.0, 6.0),
    "portal vein": Tissue(165.0, 15.0, 6.0),
    "bile": Tissue(12.0, 5.0, 4.0, 5.0),
    "renal cortex": Tissue(190.0, 18.0, 10.0),
    "medulla": Tissue(155.0, 20.0, 10.0),
    "renal vein": Tissue(165.0, 15.0, 8.0),
    "urine": Tissue(20.0, 12.0, 5.0),
    "spleen": Tissue(122.0, 11.0, 6.0),
    "gut wall": Tissue(75.0, 10.0, 10.0, 8.0),
    "chyme": Tissue(22.0, 8.0, 14.0, 16.0),
    "stool": Tissue(15.0, 20.0, 40.0, 25.0),
    "gas": Tissue(-970.0, 10.0, 10.0),
    "pancreas": Tissue(92.0, 8.0, 14.0),
    "vessel wall": Tissue(60.0, 8.0, 8.0),
    "arterial blood": Tissue(165.0, 15.0, 6.0),
    "venous blood": Tissue(150.0, 18.0, 10.0),
    "myocardium": Tissue(110.0, 10.0, 8.0),
    "left blood": Tissue(320.0, 35.0, 12.0),
    "right blood": Tissue(230.0, 45.0, 25.0),
    "air": Tissue(-1000.0, 0.0, 0.0),
}


def draw_tissues(dice: Dice, table: Mapping[str, Tissue]) -> dict[str, Tissue]:
    """One patient's tissues: every mean moved by its spread, all else as in the table."""
    return {
        name: Tissue(dice.normal(t.mean, t.spread), t.spread, t.grain, t.shade)
        for name, t in table.items()
    }
