"""`oneshot`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from fewshot_seg.cli.console import INCOMPLETE, err, guarded, out
from fewshot_seg.cli.values import parse_settings

if TYPE_CHECKING:
    from fewshot_seg.inference import Failed, Written


@guarded("start the same command again to go on where it stopped")
def oneshot(
    scans: Annotated[
        Path, typer.Argument(help="A folder of volumes, DICOM series or pictures, in any layout.")
    ],
    label: Annotated[
        list[Path],
        typer.Option("--label", help="The labels of one of the scans. Repeat for several shots."),
    ],
    scan: Annotated[
        list[str] | None,
        typer.Option(
            "--scan",
            help="Which scan they belong to, by its name or path, in the order of --label; found "
            "by the name of the label file unless given.",
        ),
    ] = None,
    folder: Annotated[Path, typer.Option("--out", help="Where everything is put.")] = Path(
        "oneshot"
    ),
    method: Annotated[
        str | None,
        typer.Option(
            help="One that learns without labels: adnet, alpnet, srnet or lvqm. Unless given "
            "adnet, and alpnet for pictures."
        ),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", help="Change the recipe: encoder=resnet50, training.lr=0.01. Repeatable."
        ),
    ] = None,
    steps: Annotated[
        int | None, typer.Option(help="Training steps; 600 unless given.", min=1)
    ] = None,
    size: Annotated[
        int | None,
        typer.Option(help="Image size; that of the labelled scan, 64 to 128, unless given.", min=8),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of weights and episodes.", min=0)] = 0,
    classes: Annotated[
        list[str] | None,
        typer.Option("--class", help="Label id or name to look for; all unless given."),
    ] = None,
    matching: Annotated[
        str | None,
        typer.Option(help="How slices are paired, see `fewshot-seg segment --help`."),
    ] = None,
    modality: Annotated[
        str | None, typer.Option(help="mr, ct or picture; found out unless given, CT excepted.")
    ] = None,
    window: Annotated[
        tuple[float, float] | None,
        typer.Option(help="Clip intensities first; raw abdominal CT: -125 275."),
    ] = None,
    batch: Annotated[
        int | None,
        typer.Option(help="Slices in one call; as many as memory holds unless given.", min=1),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(help="To segment on: cpu or cuda; cuda where there is one unless given."),
    ] = None,
) -> None:
    """Train on your scans without labels and segment them by the example of one labelled scan.

    Writes segmented/<scan>_seg.nii.gz on each scan's own grid, overlay.png and report.md.

    [bold]Example[/]  fewshot-seg oneshot my-scans --label patient7_label.nii.gz --scan patient7
    --out answers
    """
    from fewshot_seg.experiment.oneshot import STEPS
    from fewshot_seg.experiment.oneshot import oneshot as run

    report = run(
        scans,
        label,
        out=folder,
        which=scan,
        method=method,
        changes=parse_settings(settings or []),
        steps=STEPS if steps is None else steps,
        size=size,
        seed=seed,
        classes=[int(one) if one.isdecimal() else one for one in classes] if classes else None,
        matching=matching,
        modality=modality,
        window=window,
        batch=batch,
        device=device,
        on_scan=_say,
    )
    out().print(report.table())
    for name in ("overlay.png", "report.md"):
        if (folder / name).exists():
            out().print(Text(f"written: {folder / name}"), soft_wrap=True)
    if not report.ok:
        raise typer.Exit(INCOMPLETE)


def _say(outcome: "Written | Failed") -> None:
    answer = getattr(outcome, "labels", None)
    told = "failed" if answer is None else f"written: {answer}"
    err().print(Text(f"{outcome.scan.name}: {told}"), soft_wrap=True)
