"""`train` and `evaluate`."""

from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from fewshot_seg.cli.console import INCOMPLETE, err, guarded, measuring, out
from fewshot_seg.cli.values import parse_numbers, parse_settings

Data = Annotated[
    str, typer.Option("--data", help="A folder of scans, or a data set by name, phantom_abdomen.")
]
DataOptions = Annotated[
    list[str] | None,
    typer.Option("--data-option", help="Of the data set: n_scans=6, layout=nnunet. Repeatable."),
]
Matching = Annotated[
    str,
    typer.Option(
        help="Which support slice serves which query slice. Told where the organ lies: parts-3, "
        "chunks-3, groups-10, middle-range. Not told, as for your own scans: aligned-10, middle, "
        "spread-3, similar-9."
    ),
]
FoldRule = Annotated[
    str,
    typer.Option(help="Which scan is the support: alpnet (the one after the queries) or adnet."),
]
Size = Annotated[int, typer.Option(help="Height and width of the images, in pixels.", min=8)]
Window = Annotated[
    tuple[float, float] | None,
    typer.Option(help="Clip intensities first; raw abdominal CT: -125 275."),
]


@guarded("start the same command again to go on where it stopped")
def train(
    method: Annotated[
        str, typer.Argument(help="A method by name (see `fewshot-seg list methods`), or a recipe.")
    ],
    data: Data,
    novel: Annotated[
        list[str],
        typer.Option(
            "--novel",
            "--organ",
            help="Class held out, a run each; 'left kidney,right kidney' holds out both at once.",
        ),
    ],
    folder: Annotated[Path, typer.Option("--out", help="A folder for the runs.")],
    folds: Annotated[str, typer.Option(help="Folds to train: 0,1 or 0-4.")] = "0",
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="Change the recipe: decoder.scale=10, encoder=resnet18, prior=none, "
            "training.lr=0.01, episodes.auxiliary=2. Repeatable.",
        ),
    ] = None,
    steps: Annotated[
        int | None, typer.Option(help="Training steps; the recipe's unless given.", min=1)
    ] = None,
    size: Size = 256,
    seed: Annotated[int, typer.Option(help="Of weights and episodes.", min=0)] = 0,
    setting: Annotated[
        str | None,
        typer.Option(
            help="leave_one_organ, setting1, setting2_any or setting2_all. Unless given "
            "leave_one_organ; setting1 for episodes without labels."
        ),
    ] = None,
    source: Annotated[
        str | None,
        typer.Option(
            help="Of training episodes: supervised, superpixel or supervoxel (without labels); "
            "the recipe's unless given."
        ),
    ] = None,
    augmentation: Annotated[str, typer.Option(help="field, strong or none.")] = "field",
    pairing: Annotated[
        str | None, typer.Option(help="Of training slices: matched or random.")
    ] = None,
    pseudo: Annotated[
        float | None,
        typer.Option(help="Share of episodes whose class is a superpixel, beside labelled ones."),
    ] = None,
    n_way: Annotated[int | None, typer.Option(help="Classes of an episode.", min=1)] = None,
    n_shot: Annotated[
        int | None, typer.Option(help="Labelled slices of each class.", min=1)
    ] = None,
    n_folds: Annotated[int, typer.Option(help="Folds the scans are cut in.", min=1)] = 5,
    n_support: Annotated[
        int, typer.Option(help="Labelled scans of a fold, which are not trained on.", min=1)
    ] = 1,
    fold_rule: FoldRule = "alpnet",
    window: Window = None,
    data_option: DataOptions = None,
) -> None:
    """Train a method with a class held out; one run for each fold and class.

    [bold]Example[/]  fewshot-seg train apscl --data my-scans --novel liver --out runs
    --set encoder=resnet18 --size 128 --steps 2500
    """
    from fewshot_seg.data.settings import class_ids
    from fewshot_seg.experiment import (
        augmentation_named,
        open_dataset,
        resolve_recipe,
        run_name,
        train_fold,
    )

    changes = parse_settings(settings or [])
    recipe = resolve_recipe(Path(method) if method.endswith(".toml") else method, changes)
    dataset = open_dataset(data, **parse_settings(data_option or []))
    groups = [[name.strip() for name in one.split(",")] for one in novel]
    for group in groups:
        class_ids(dataset.classes, group)  # a misspelt class shows before hours of training
    chosen = augmentation_named(augmentation)
    given = {"source": source, "pairing": pairing, "pseudo": pseudo, "n_way": n_way,
             "n_shot": n_shot}  # fmt: skip
    episodes = {name: value for name, value in given.items() if value is not None}
    for fold in parse_numbers(folds):
        for group in groups:
            run = folder / run_name(fold, group)
            err().print(Text(f"fold {fold}, held out: {', '.join(group)}", style="bold"))
            checkpoint = train_fold(
                dataset,
                recipe,
                novel=group,
                out=run,
                fold=fold,
                setting=setting,
                size=size,
                seed=seed,
                training={} if steps is None else {"steps": steps},
                augmentation=chosen,
                episodes=episodes,
                n_folds=n_folds,
                n_support=n_support,
                fold_rule=fold_rule,
                window=window,
            )
            out().print(Text(f"trained: {checkpoint}"), soft_wrap=True)
    out().print(Text(f"next: fewshot-seg evaluate {folder} --data {data}"), soft_wrap=True)


@guarded("nothing was written; start the same command again")
def evaluate(
    data: Data,
    runs: Annotated[
        list[Path] | None,
        typer.Argument(help="Checkpoints, run folders, or a folder of run folders."),
    ] = None,
    method: Annotated[
        str | None, typer.Option(help="Instead of runs: a method that does not learn, copy.")
    ] = None,
    folds: Annotated[
        str | None, typer.Option(help="Only these folds: 0,1 or 0-4. All unless given.")
    ] = None,
    novel: Annotated[
        list[str] | None,
        typer.Option("--novel", "--organ", help="Only this class. Repeatable."),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="Change --method: registration=true. Repeatable."),
    ] = None,
    matching: Matching = "parts-3",
    folder: Annotated[
        Path, typer.Option("--out", help="Where results.json and results.csv are written.")
    ] = Path("results"),
    surface: Annotated[
        bool, typer.Option(help="Also measure HD95 and ASSD, which takes longer.")
    ] = True,
    unlabelled: Annotated[
        str,
        typer.Option(
            help="For methods that use unlabelled images at test: slices of the train scans, or "
            "of the query scan."
        ),
    ] = "train",
    precision: Annotated[
        str,
        typer.Option(
            help="32, bf16 (faster where the hardware computes in it), or auto for bf16 there."
        ),
    ] = "32",
    size: Size = 256,
    n_folds: Annotated[int, typer.Option(help="Folds the scans are cut in.", min=1)] = 5,
    n_support: Annotated[int, typer.Option(help="Labelled scans of a fold (shots).", min=1)] = 1,
    fold_rule: FoldRule = "alpnet",
    window: Window = None,
    data_option: DataOptions = None,
) -> None:
    """Test runs on the scans and classes that they did not see.

    --set, --size, --n-folds, --n-support, --fold-rule and --window are for --method; runs know
    their own.

    [bold]Example[/]  fewshot-seg evaluate runs --data my-scans --novel liver
    """
    from fewshot_seg.errors import OptionError
    from fewshot_seg.experiment import (
        evaluate_runs,
        evaluate_unlearned,
        open_dataset,
        resolve_recipe,
    )

    if (method is None) == (not runs):
        raise OptionError("give either runs to test, or --method with one that does not learn")
    if settings and method is None:
        raise OptionError("--set changes --method; a trained run is tested as it was trained")
    dataset = open_dataset(data, **parse_settings(data_option or []))
    numbers = None if folds is None else parse_numbers(folds)
    with measuring("testing") as show:
        if method is None:
            results = evaluate_runs(
                runs or [],
                dataset,
                matching=matching,
                folds=numbers,
                novel=novel,
                surface=surface,
                unlabelled=unlabelled,
                precision=precision,
                on_progress=show,
            )
        else:
            results = evaluate_unlearned(
                resolve_recipe(method, parse_settings(settings or [])),
                dataset,
                matching=matching,
                folds=numbers,
                novel=novel,
                surface=surface,
                unlabelled=unlabelled,
                precision=precision,
                size=size,
                n_folds=n_folds,
                n_support=n_support,
                fold_rule=fold_rule,
                window=window,
                name=f"{method} ({', '.join(settings)})" if settings else None,
                on_progress=show,
            )
    results.to_json(folder / "results.json")
    results.to_csv(folder / "results.csv")
    out().print(results.table())
    out().print(Text(f"written: {folder / 'results.json'}, {folder / 'results.csv'}"))
    for failure in results.failures:
        told = f"failed: {failure.class_name} in scan {failure.scan_id}: {failure.reason}"
        err().print(Text(told, style="red"), soft_wrap=True)
    if results.failures:
        raise typer.Exit(INCOMPLETE)
