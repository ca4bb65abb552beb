"""A study on disk with everything the report's page can show, for the tests of that page."""

from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

from report_cases import keep_predictions, write_log
from study_cases import Row, write_study

from fewshot_seg.ablation.study import Study, read_study

DICE = {
    "none": 0.40, "FEM": 0.50, "SCL": 0.45, "MGD": 0.42, "FEM+SCL": 0.60, "FEM+MGD": 0.55,
    "all": 0.70,
}  # fmt: skip
SHIFTS = {"none": 4, "FEM+SCL": 1, "all": 0}
"""Variants whose predictions were kept, and how many pixels these are beside the truth."""


def rows() -> list[Row]:
    """A row for each variant of DICE."""
    modules = ("FEM", "SCL", "MGD")
    return [
        Row(name, {one: "on" if one in name or name == "all" else "off" for one in modules}, dice)
        for name, dice in DICE.items()
    ]


def page_study(root: Path) -> Study:
    """Two folds, all cells but two done; predictions of three variants, the logs of two."""
    write_study(
        root,
        rows(),
        title="Three modules",
        reference="none",
        paper={"none": {"mean": 50.0}, "all": {"mean": 80.0}},
        folds=(0, 1),
        failed=[("SCL", "liver")],
        missing=[("MGD", "liver")],
    )
    study = read_study(root)
    keep_predictions(study, shift=SHIFTS)
    trainings = study.cells.drop_duplicates("variant").set_index("variant")["training"]
    for variant in ("none", "all"):
        lines = [{"step": step, "total": 1 / step} for step in range(1, 30)]
        write_log(root, trainings[variant], lines)
    return study


def renamed(study: Study, scan_id: str) -> Study:
    """The same scores, of scans whose ids begin with `scan_id`."""
    return replace(study, scores=study.scores.assign(scan_id=scan_id + study.scores["scan_id"]))


class Page(HTMLParser):
    """What stands in a page.

    tags: (name, attributes) in order.   data: text inside of each tag name, joined.
    scripts: (attributes, content).   styles: contents.
    """

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.scripts: list[tuple[dict[str, str], str]] = []
        self.styles: list[str] = []
        self.text = ""
        self._within = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = {name: value or "" for name, value in attrs}
        self.tags.append((tag, attributes))
        self._within = tag

    def handle_endtag(self, tag: str) -> None:
        self._within = ""

    def handle_data(self, data: str) -> None:
        if self._within == "script":
            self.scripts.append((self.tags[-1][1], data))
        elif self._within == "style":
            self.styles.append(data)
        else:
            self.text += data

    def all(self, name: str) -> list[dict[str, str]]:
        """The attributes of every tag of one name."""
        return [attributes for tag, attributes in self.tags if tag == name]
