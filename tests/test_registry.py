"""The registry against real installed metadata: strangers, broken plugins, names claimed twice."""

import subprocess
import sys
from pathlib import Path

import pytest

from fewshot_seg import build, names
from fewshot_seg.errors import OptionError, PluginError, UnknownNameError
from fewshot_seg.registry import KINDS, Registry


def install(folder: Path, distribution: str, group: str, entry: str, code: str = "") -> None:
    """What pip leaves behind for a small plugin: a module and a dist-info folder."""
    package = distribution.replace("-", "_")
    info = folder / f"{package}-0.2.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 0.2.0\n")
    (info / "entry_points.txt").write_text(f"[fewshot_seg.{group}]\n{entry}\n")
    (folder / f"{package}.py").write_text(code)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    return folder


DECODER = """
from torch import nn

class Constant(nn.Module):
    def __init__(self, *, value: float = 0.0) -> None:
        super().__init__()
        self.value = value

    def describe(self, maps, masks, backgrounds=None):
        return masks.shape[1]

    def forward(self, maps, state, size):
        shape = (maps.shape[0], maps.shape[1], 1 + state, *size)
        return maps.new_full(shape, self.value) + 0 * maps.mean()
"""


def test_a_stranger_is_found_and_built(site: Path) -> None:
    install(site, "seg-constant", "decoders", "constant = seg_constant:Constant", DECODER)
    assert "constant" in names("decoders")
    assert "seg_constant" not in sys.modules
    method = build("panet", encoder="resnet18", decoder={"name": "constant", "value": 2.0})
    assert method.decoder.value == 2.0  # type: ignore[union-attr]


def test_a_broken_plugin_is_named_and_leaves_the_rest_alone(site: Path) -> None:
    install(site, "seg-broken", "decoders", "broken = seg_broken:X", "raise OSError('no disk')")
    assert {"broken", "cosine"} <= set(names("decoders"))
    with pytest.raises(PluginError, match=r"'broken' from seg-broken 0\.2\.0 .* OSError: no disk"):
        Registry("decoder").get("broken")
    assert Registry("decoder").build("cosine") is not None


def test_a_missing_object_is_the_plugins_fault(site: Path) -> None:
    install(site, "seg-empty", "decoders", "empty = seg_empty:Nothing")
    with pytest.raises(PluginError, match="seg-empty 0.2.0 failed to load seg_empty:Nothing"):
        Registry("decoder").get("empty")


def test_a_name_claimed_twice_names_both(site: Path) -> None:
    install(site, "seg-rival", "decoders", "cosine = seg_rival:Constant", DECODER)
    with pytest.raises(PluginError, match=r"fewshot-seg .* and seg-rival|seg-rival .* and fewshot"):
        Registry("decoder").get("cosine")
    assert Registry("decoder").get("mutual_guidance") is not None


@pytest.mark.parametrize(
    ("package", "code", "message"),
    [
        ("three", "Thing = 3", "is a int; it must be a class or function"),
        ("hidden", "def Thing(**options): ...", "takes \\*options: its signature must spell out"),
        ("number", "def Thing(): return 3", "is a int, which lacks .*describe"),
        ("relu", "from torch.nn import ReLU as Thing", "is a ReLU, which lacks describe"),
    ],
)
def test_a_plugin_that_does_not_fit_is_refused(
    site: Path, package: str, code: str, message: str
) -> None:
    install(site, f"seg-{package}", "decoders", f"odd = seg_{package}:Thing", code)
    with pytest.raises(PluginError, match=message):
        build("panet", encoder="resnet18", decoder="odd")


def test_unknown_names_are_answered_with_the_known_ones() -> None:
    with pytest.raises(UnknownNameError, match=r"unknown method 'apslc'; did you mean 'apscl'\?"):
        build("apslc")
    with pytest.raises(UnknownNameError, match="Installed: .*cosine.*mutual_guidance"):
        Registry("decoder").get("zzz")
    with pytest.raises(UnknownNameError, match="unknown kind 'decoderz'; did you mean"):
        names("decoderz")


def test_unknown_options_are_answered_with_the_known_ones() -> None:
    with pytest.raises(OptionError, match=r"no option 'scal'; did you mean 'scale'\? It takes:"):
        Registry("decoder").build("cosine", scal=3.0)


def test_every_kind_lists_something_and_takes_its_plural() -> None:
    for singular, plural in KINDS.items():
        assert names(singular) == names(plural) == sorted(names(plural)) != []


def test_listing_names_imports_neither_torch_nor_plugins() -> None:
    script = (
        "import sys, fewshot_seg\n"
        "assert 'apscl' in fewshot_seg.names('methods')\n"
        "loaded = [m for m in sys.modules if m == 'torch' or m.startswith('fewshot_seg_')]\n"
        "assert not loaded, loaded"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_the_core_imports_no_plugin() -> None:
    core = Path(__file__).resolve().parent.parent / "fewshot_seg"
    guilty = [
        path
        for path in core.rglob("*.py")
        for line in path.read_text(encoding="utf-8").splitlines()
        if line.strip().startswith(("import fewshot_seg_", "from fewshot_seg_"))
    ]
    assert not guilty


def test_no_plugin_imports_a_sibling() -> None:
    plugins = Path(__file__).resolve().parent.parent / "plugins"
    for path in plugins.rglob("*.py"):
        own = path.relative_to(plugins).parts[0]
        for line in path.read_text(encoding="utf-8").splitlines():
            words = line.split()
            if len(words) > 1 and words[0] in ("import", "from"):
                module = words[1].split(".")[0]
                assert not (module.startswith("fewshot_seg_") and module != own), (path, line)
