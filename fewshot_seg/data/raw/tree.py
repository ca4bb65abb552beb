"""A download as one read-only tree of files, whether it was unpacked or is still a zip."""

import os
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import final

from fewshot_seg.data.layouts import natural_key
from fewshot_seg.data.raw.archive import check_archive
from fewshot_seg.errors import DataError


def open_tree(path: str | Path, files: Iterable[PurePosixPath] | None = None) -> "RawTree":
    """A folder, with all folders in it, or a .zip.

    files: of a folder, where they are known already and need no search.
    Raises DataError, naming the remedy, when it is neither, is damaged or encrypted, or when the
    zip holds a name that leads out of it, a link, or more than a scan archive can (`archive.py`).
    """
    path = Path(path)
    if path.is_dir():
        return RawTree(path, dict.fromkeys(_walk(path) if files is None else files), None)
    if not path.exists():
        raise DataError(f"{path} does not exist")
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError, NotImplementedError) as error:
        raise DataError(
            f"{path} is neither a folder nor a zip that can be read ({error}); unpack it, or "
            "download it again if it was cut off"
        ) from error
    try:
        return RawTree(path, _shown_entries(check_archive(path, archive)), archive)
    except BaseException:
        archive.close()
        raise


@final
class RawTree:
    """Made by `open_tree`; use it in a `with`, after which extracted files are gone.

    path: the folder or zip.   files: relative to it, numbers sorted by value; no hidden ones and
    none of those that macOS puts into archives.
    """

    def __init__(
        self,
        path: Path,
        entries: Mapping[PurePosixPath, zipfile.ZipInfo | None],
        archive: zipfile.ZipFile | None,
    ) -> None:
        self.path = path
        self.files = tuple(sorted(entries, key=lambda file: natural_key(str(file))))
        self._entries = entries
        self._archive = archive
        self._extracted: tempfile.TemporaryDirectory[str] | None = None

    def __enter__(self) -> "RawTree":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the zip and remove what was extracted from it."""
        if self._archive is not None:
            self._archive.close()
        if self._extracted is not None:
            self._extracted.cleanup()
            self._extracted = None

    def place(self, file: PurePosixPath) -> PurePosixPath:
        """The file with the folders above the tree, for names that only those hold."""
        above = self.path.resolve() if self._archive is None else Path(self.path.stem)
        return PurePosixPath(above.as_posix()) / file

    def local(self, file: PurePosixPath) -> Path:
        """Where the file lies on disk; from a zip it is extracted to a private folder first.

        Raises DataError when it is damaged or the disk is full.
        """
        entry = self._known(file)
        if self._archive is None or entry is None:
            return self.path / file
        if self._extracted is None:
            self._extracted = tempfile.TemporaryDirectory(prefix="fewshot-seg-raw-")
        target = Path(self._extracted.name) / file
        if not target.exists():
            draft = target.with_name(target.name + ".part")
            with self._reading(file):
                target.parent.mkdir(parents=True, exist_ok=True)
                with self._archive.open(entry) as source, draft.open("wb") as sink:
                    shutil.copyfileobj(source, sink, 1 << 20)
                draft.rename(target)
        return target

    def read(self, file: PurePosixPath) -> bytes:
        """What the file holds, without extracting it. Raises DataError when it is damaged."""
        entry = self._known(file)
        with self._reading(file):
            if self._archive is None or entry is None:
                return (self.path / file).read_bytes()
            return self._archive.read(entry)

    def digest(self, files: Iterable[PurePosixPath]) -> str:
        """SHA-256 over the names (without folders) and contents of `files`, in their order."""
        total = sha256()
        for file in files:
            content = self.read(file)
            total.update(f"{file.name}\0{len(content)}\0".encode())
            total.update(content)
        return total.hexdigest()

    @contextmanager
    def _reading(self, file: PurePosixPath) -> Iterator[None]:
        try:
            yield
        except (OSError, EOFError, zlib.error, zipfile.BadZipFile, NotImplementedError) as error:
            raise DataError(
                f"{self.path}: {file} cannot be read ({error}); download it again, or make room "
                "where temporary files go if the disk is full"
            ) from error

    def _known(self, file: PurePosixPath) -> zipfile.ZipInfo | None:
        if file not in self._entries:
            raise DataError(f"{self.path} has no file {file}")
        return self._entries[file]


def _walk(root: Path) -> Iterator[PurePosixPath]:
    """Files below `root`, through linked folders too, but into none twice."""
    seen = set()
    for folder, inner, names in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:
            inner.clear()
            continue
        seen.add(real)
        inner[:] = sorted(name for name in inner if _shown(name))
        for name in names:
            path = Path(folder, name)
            if _shown(name) and path.is_file():
                yield PurePosixPath(path.relative_to(root).as_posix())


def _shown_entries(
    entries: Mapping[PurePosixPath, zipfile.ZipInfo],
) -> dict[PurePosixPath, zipfile.ZipInfo | None]:
    return {file: entry for file, entry in entries.items() if all(map(_shown, file.parts))}


def _shown(name: str) -> bool:
    return not name.startswith(".") and name != "__MACOSX"
