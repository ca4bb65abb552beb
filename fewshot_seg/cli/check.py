"""`data check`."""

from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from fewshot_seg.cli.console import BAD_REQUEST, counting, guarded, out


@guarded("nothing was changed")
def check_data(
    source: Annotated[
        str,
        typer.Argument(
            help="A folder of scans, one scan, or a data set by name (see `fewshot-seg list`)."
        ),
    ],
    label: Annotated[
        Path | None, typer.Option(help="The labels of a single scan.", show_default=False)
    ] = None,
    sheet: Annotated[
        Path | None,
        typer.Option(
            help="Write a contact sheet: slices of every scan with their labels, a .png file.",
            show_default=False,
        ),
    ] = None,
    as_json: Annotated[
        Path | None,
        typer.Option("--json", help="Write everything that was found.", show_default=False),
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option("--data-option", help="Of the data set, as key=value; may be repeated."),
    ] = None,
) -> None:
    """Load every scan; say what is there, what is wrong with it and what it can be used for.

    Exit code 2 when something must be put right.

    [bold]Example[/]  fewshot-seg data check my-scans --sheet my-scans.png
    """
    from fewshot_seg.cli.values import parse_settings
    from fewshot_seg.data.check import check
    from fewshot_seg.data.folder import open_scan
    from fewshot_seg.errors import OptionError
    from fewshot_seg.experiment import open_dataset

    options = parse_settings(option or [])
    if label is None and not Path(source).is_file():
        dataset = open_dataset(source, **options)
    elif options.keys() <= {"modality", "slice_axis", "name"}:
        dataset = open_scan(image=source, labels=label, **options)
    else:
        raise OptionError("a single scan takes --data-option modality, slice_axis and name")
    drawn = None
    if sheet is not None:
        from fewshot_seg.data.sheet import Sheet

        drawn = Sheet(sheet, dataset.classes)
    with counting("checking", len(dataset.ids)) as advance:
        report = check(dataset, on_scan=advance, on_load=None if drawn is None else drawn.add)
    out().print(report.table())
    if report.next_step:
        out().print(Text(report.next_step), soft_wrap=True)  # whole, to be copied
    if as_json is not None:
        report.to_json(as_json)
    if drawn is not None:
        drawn.save(report)
        out().print(Text(f"contact sheet: {sheet}"), soft_wrap=True)
    if not report.ok:
        raise typer.Exit(BAD_REQUEST)
