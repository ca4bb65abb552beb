"""From a download to a folder of prepared scans: in parallel, resumable, one scan at a time."""

import os
import signal
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager
from multiprocessing import get_context, parent_process
from pathlib import Path
from threading import Thread
from typing import NamedTuple

import SimpleITK as sitk

from fewshot_seg.data.raw.record import Case, read_cases, write_cases
from fewshot_seg.data.raw.report import Outcome, RawReport
from fewshot_seg.data.raw.sets import RawScan, RawSet, raw_set
from fewshot_seg.data.raw.tree import open_tree
from fewshot_seg.data.raw.write import write_scan
from fewshot_seg.errors import DataError, FewshotSegError, OptionError
from fewshot_seg.lock import locked

OnScan = Callable[[Outcome], None]


class Found(NamedTuple):
    """The scans of a download. missing: ids that the benchmark has and the download has not."""

    made: RawSet
    raw: Path
    scans: tuple[RawScan, ...]
    missing: tuple[str, ...]


def find_raw(name: str, raw: str | Path, *, strict: bool = False) -> Found:
    """Look through a download without preparing anything.

    name: of the benchmark, see RAW_SETS.   raw: the unpacked download, a folder above or inside
    it, or its zip.   strict: a missing scan is an error.
    Raises UnknownNameError for the name and DataError when this is no such download.
    """
    made = raw_set(name)
    with open_tree(raw) as tree:
        scans = tuple(made.find(tree))
    missing = tuple(one for one in made.expected if one not in {scan.id for scan in scans})
    if strict and missing:
        raise DataError(
            f"{raw} lacks {len(missing)} of the {len(made.expected)} scans of {made.title}: "
            f"{', '.join(missing)}. Download or unpack it again, or prepare without them"
        )
    return Found(made, Path(raw), scans, missing)


def prepare_raw(
    name: str,
    raw: str | Path,
    out: str | Path,
    *,
    workers: int = 1,
    strict: bool = False,
    on_scan: OnScan | None = None,
) -> RawReport:
    """Prepare a benchmark from its download; see `find_raw` and `prepare_found`."""
    found = find_raw(name, raw, strict=strict)
    return prepare_found(found, out, workers=workers, on_scan=on_scan)


def prepare_found(
    found: Found, out: str | Path, *, workers: int = 1, on_scan: OnScan | None = None
) -> RawReport:
    """Write `out/<the set's folder>`, which `open_folder` and `data check` read.

    Scans that an earlier run prepared from the same files are kept, those that it alone had too;
    equal downloads give equal bytes, whatever `workers`. A scan that cannot be used is reported
    among the outcomes, and no file of it is left.
    workers: processes; with more than one, a script needs the `if __name__ == "__main__"` guard.
    on_scan: called with each outcome as it comes.
    Raises DataError when the folder cannot be written, holds other scans or is being written by
    another process, OptionError for no workers.
    """
    if workers < 1:
        raise OptionError(f"workers must be at least 1; got {workers}")
    folder = Path(out) / found.made.folder
    with _alone(folder):
        cases = _start(folder, found.made)
        outcomes: dict[str, Outcome] = {}
        for outcome in _outcomes(_jobs(found, folder, cases), min(workers, len(found.scans))):
            outcomes[outcome.id] = outcome
            cases.pop(outcome.id, None)
            if outcome.case is not None:
                cases[outcome.id] = outcome.case
            write_cases(folder, found.made, cases.values())
            if on_scan is not None:
                on_scan(outcome)
    return RawReport(
        name=found.made.name,
        folder=folder,
        classes=found.made.classes,
        outcomes=tuple(outcomes[scan.id] for scan in found.scans),
        missing=tuple(one for one in found.missing if one not in cases),
    )


class Job(NamedTuple):
    """One scan to prepare; `known` is what an earlier run says of it."""

    name: str
    raw: Path
    folder: Path
    scan: RawScan
    known: Case | None


def prepare_scan(job: Job) -> Outcome:
    """Prepare one scan, or find that it is prepared. Needs nothing but its job."""
    scan = job.scan
    files = (*scan.image, *scan.labels)
    try:
        with open_tree(job.raw, files) as tree:
            source = tree.digest(files)
            if job.known is not None and job.known.is_whole(job.folder, source):
                return Outcome(scan.id, "unchanged", job.known, None)
            made = raw_set(job.name)
            case = write_scan(job.folder, made, scan.id, made.convert(tree, scan), source)
            return Outcome(scan.id, "prepared", case, None)
    # What files, disks and memory can cause (SimpleITK knows only RuntimeError); not our faults.
    except (FewshotSegError, OSError, ValueError, RuntimeError, MemoryError) as error:
        for name in (f"image_{scan.id}.nii.gz", f"label_{scan.id}.nii.gz"):
            (job.folder / name).unlink(missing_ok=True)
        return Outcome(scan.id, "failed", None, str(error) or type(error).__name__)


def _jobs(found: Found, folder: Path, cases: Mapping[str, Case]) -> list[Job]:
    return [
        Job(found.made.name, found.raw, folder, scan, cases.get(scan.id)) for scan in found.scans
    ]


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Two processes would clear away each other's drafts. Raises DataError for a second one."""
    lock = folder.with_name(f".{folder.name}.lock")  # beside it: in it are scans only
    with ExitStack() as held:
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            doing = f"preparing scans in {folder}"
            held.enter_context(locked(lock, doing=doing, refusal=DataError))
        except OSError as error:
            raise DataError(f"{folder} cannot be written: {error.strerror or error}") from error
        yield


def _start(folder: Path, made: RawSet) -> dict[str, Case]:
    """What is there already, in a folder that can be written."""
    cases = read_cases(folder, made)
    write_cases(folder, made, cases.values())
    for draft in folder.glob(".*.part"):  # of a run that was killed
        draft.unlink(missing_ok=True)
    return cases


def _outcomes(jobs: list[Job], workers: int) -> Iterator[Outcome]:
    """The outcomes as they come."""
    if workers <= 1:
        yield from map(prepare_scan, jobs)
        return
    # Spawned, because a forked child may hang on a lock that a thread of its parent held.
    pool = ProcessPoolExecutor(workers, get_context("spawn"), initializer=_in_worker)
    try:
        waiting: set[Future[Outcome]] = {pool.submit(prepare_scan, job) for job in jobs}
        while waiting:
            done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            for future in done:
                yield future.result()
    except BrokenProcessPool as error:
        raise DataError(
            "a worker process was killed, most likely because memory ran out; start again with "
            "fewer workers. Scans prepared so far are kept"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _in_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent stops the work
    Thread(target=_end_with_parent, daemon=True).start()
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)


def _end_with_parent() -> None:
    """A worker whose parent was killed would wait for work for ever."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
