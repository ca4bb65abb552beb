"""`segment`."""

from pathlib import Path
from typing import Annotated

import typer

from fewshot_seg.cli.console import INCOMPLETE, counting, guarded, out


@guarded("label files written so far are complete; start the same command again for the rest")
def segment(
    scans: Annotated[
        list[Path], typer.Argument(help="Scans to segment: volumes, DICOM folders or pictures.")
    ],
    checkpoint: Annotated[
        Path, typer.Option(help="A trained method: a checkpoint file or a run folder.")
    ],
    support: Annotated[
        list[Path], typer.Option("--support", help="A labelled scan. Repeat for several shots.")
    ],
    label: Annotated[
        list[Path],
        typer.Option("--label", help="The labels of that scan, in the order of --support."),
    ],
    folder: Annotated[Path, typer.Option("--out", help="Where label files are written.")] = Path(
        "segmented"
    ),
    classes: Annotated[
        list[str] | None,
        typer.Option(
            "--class", help="Label id or name to look for; all in the labels unless given."
        ),
    ] = None,
    matching: Annotated[
        str, typer.Option(help="aligned-10, middle, spread-3 or similar-9.")
    ] = "aligned-10",
    size: Annotated[
        int | None, typer.Option(help="Image size; as trained unless given.", min=8)
    ] = None,
    batch: Annotated[
        int | None,
        typer.Option(help="Slices in one call; as many as memory holds unless given.", min=1),
    ] = None,
    precision: Annotated[
        str, typer.Option(help="32, bf16, or auto: bf16 where the hardware computes in it.")
    ] = "auto",
    device: Annotated[
        str | None, typer.Option(help="cpu or cuda; cuda where there is one unless given.")
    ] = None,
) -> None:
    """Segment scans by the example of a labelled one.

    Any axis order, spacing and size; answers lie on each scan's own grid, as <name>_seg.nii.gz.

    [bold]Example[/]  fewshot-seg segment --checkpoint runs/fold0_liver --support mine.nii.gz
    --label mine_labels.nii.gz --out segmented others/*.nii.gz
    """
    from fewshot_seg.errors import OptionError
    from fewshot_seg.experiment import segment_with_checkpoint

    if len(support) != len(label):
        raise OptionError(
            f"{len(support)} --support and {len(label)} --label were given; "
            "each labelled scan needs both"
        )
    with counting("segmenting", len(scans)) as advance:
        report = segment_with_checkpoint(
            checkpoint,
            list(zip(support, label)),
            scans,
            out=folder,
            classes=[int(one) if one.isdecimal() else one for one in classes] if classes else None,
            matching=matching,
            size=size,
            batch=batch,
            precision=precision,
            device=device,
            on_scan=advance,
        )
    out().print(report.table())
    if not report.ok:
        raise typer.Exit(INCOMPLETE)
