"""Downloads as trees: a folder and a zip alike, and zips that no publisher made."""

import os
import stat
import zipfile
from pathlib import Path, PurePosixPath

import pytest
from raw_cases import zipped

from fewshot_seg.data.raw import archive
from fewshot_seg.data.raw.tree import open_tree
from fewshot_seg.errors import DataError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Spaces and Unicode in names, numbers of different length, and what macOS leaves."""
    root = tmp_path / "Träin set 训练"
    for name in (
        *("MR/10/a b.dcm", "MR/2/IMG-10.dcm", "MR/2/IMG-9.DCM", "MR/2/Größe.png", "top.txt"),
        *("MR/2/._IMG-9.DCM", ".DS_Store", "__MACOSX/MR/x.dcm", ".hidden/y.dcm"),
    ):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.encode())
    return root


SHOWN = ["MR/2/Größe.png", "MR/2/IMG-9.DCM", "MR/2/IMG-10.dcm", "MR/10/a b.dcm", "top.txt"]


def test_a_folder_is_sorted_by_number_and_hidden_files_are_left_out(folder: Path) -> None:
    with open_tree(folder) as tree:
        assert [str(file) for file in tree.files] == SHOWN
        assert all(tree.local(file) == folder / file for file in tree.files)


def test_a_zip_is_the_same_tree_one_folder_deeper(folder: Path, tmp_path: Path) -> None:
    packed = zipped(folder, tmp_path / "packed up.zip")
    with open_tree(folder) as tree, open_tree(packed) as other:
        assert [str(file) for file in other.files] == [f"{folder.name}/{name}" for name in SHOWN]
        assert tree.digest(tree.files) == other.digest(other.files)
        extracted = [other.local(file) for file in other.files]
        assert [path.read_bytes() for path in extracted] == [
            (folder / name).read_bytes() for name in SHOWN
        ]
        assert other.local(other.files[0]) == extracted[0]  # once
    assert not any(path.exists() for path in extracted)


def test_the_place_of_a_file_names_the_folders_above(folder: Path, tmp_path: Path) -> None:
    with open_tree(folder / "MR" / "2") as tree:
        assert tree.place(tree.files[0]).parts[-3:] == ("MR", "2", "Größe.png")
    with open_tree(zipped(folder / "MR", tmp_path / "Train.zip")) as tree:
        assert tree.place(tree.files[0]) == PurePosixPath("Train/MR/2/Größe.png")


def test_digests_know_names_contents_and_nothing_else(folder: Path, tmp_path: Path) -> None:
    with open_tree(folder) as tree:
        first, second, *_ = tree.files
        assert tree.digest([first, second]) != tree.digest([second, first])
        before = tree.digest([first])
        os.utime(folder / first, (0, 0))
        assert tree.digest([first]) == before
        (folder / first).write_bytes(b"other")
        assert tree.digest([first]) != before


def test_linked_folders_are_followed_once(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    (tmp_path / "far" / "z.dcm").write_bytes(b"z")
    (folder / "linked").symlink_to(tmp_path / "far")
    (folder / "MR" / "loop").symlink_to(folder)
    (folder / "broken.dcm").symlink_to(tmp_path / "nowhere")
    with open_tree(folder) as tree:
        assert [str(file) for file in tree.files] == ["linked/z.dcm", *SHOWN]


def _zip(path: Path, *entries: zipfile.ZipInfo | str, content: bytes = b"x") -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as sink:
        for entry in entries:
            sink.writestr(entry, content)
    return path


def _special(name: str, kind: int) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name)
    entry.external_attr = (kind | 0o644) << 16
    return entry


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        ("../evil.dcm", "leads out of the archive"),
        ("MR/../../evil.dcm", "leads out of the archive"),
        ("/etc/passwd", "leads out of the archive"),
        ("..\\evil.dcm", "leads out of the archive"),
        ("C:\\evil.dcm", "leads out of the archive"),
        (_special("MR/link", stat.S_IFLNK), "holds a link"),
        (_special("MR/device", stat.S_IFCHR), "holds a special file"),
    ],
)
def test_names_and_links_that_lead_elsewhere_are_refused(
    tmp_path: Path, entry: zipfile.ZipInfo | str, told: str
) -> None:
    packed = _zip(tmp_path / "evil.zip", "MR/good.dcm", entry)
    with pytest.raises(DataError, match=f"evil.zip .*{told}.*nothing was unpacked"):
        open_tree(packed)


def test_bombs_are_refused_before_they_are_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bomb = _zip(tmp_path / "bomb.zip", "a.nii", content=bytes(5_000_000))
    with pytest.raises(DataError, match=r"would unpack to 4.77 MiB, over 100 times .* publisher"):
        open_tree(bomb)
    monkeypatch.setattr(archive, "MAX_FILE", 1000)
    with pytest.raises(DataError, match=r"a.nii would unpack to .* more than any scan"):
        open_tree(bomb)


def test_other_archives_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="Duplicate"):
        twice = _zip(tmp_path / "twice.zip", "a.dcm", "a.dcm")
    with pytest.raises(DataError, match="holds a.dcm twice"):
        open_tree(twice)
    whole = _zip(tmp_path / "whole.zip", "a.dcm", content=os.urandom(5000))
    secret = bytearray(whole.read_bytes())
    for place in (6, secret.index(b"PK\1\2") + 8):
        secret[place] |= 1
    (tmp_path / "secret.zip").write_bytes(secret)
    with pytest.raises(DataError, match="is encrypted; unpack it with its password"):
        open_tree(tmp_path / "secret.zip")
    (tmp_path / "cut.zip").write_bytes(whole.read_bytes()[:2000])
    (tmp_path / "text.dcm").write_text("no archive")
    for name in ("cut.zip", "text.dcm"):
        with pytest.raises(DataError, match=f"{name} is neither a folder nor a zip"):
            open_tree(tmp_path / name)
    with pytest.raises(DataError, match="gone does not exist"):
        open_tree(tmp_path / "gone")


def test_a_damaged_entry_names_itself_when_it_is_read(tmp_path: Path) -> None:
    content = bytearray(_zip(tmp_path / "x.zip", "a.dcm", content=os.urandom(5000)).read_bytes())
    content[2500] ^= 255
    (tmp_path / "x.zip").write_bytes(content)
    with open_tree(tmp_path / "x.zip") as tree:
        for read in (tree.local, tree.read):
            with pytest.raises(DataError, match=r"x.zip: a.dcm cannot be read .*download it again"):
                read(tree.files[0])
        with pytest.raises(DataError, match="has no file b.dcm"):
            tree.local(PurePosixPath("b.dcm"))
