"""Print the oldest supported version of every direct dependency, as constraints for pip.

python .ci/oldest_versions.py > oldest.txt && pip install -e ".[dev]" -c oldest.txt && pytest
"""

import re
import tomllib
from pathlib import Path

PYPROJECT = Path(__file__).resolve().parents[1] / "pyproject.toml"
REQUIREMENT = re.compile(r"(?P<name>[A-Za-z0-9._-]+)(\[[^]]*\])?\s*>=\s*(?P<version>[0-9][0-9.]*)")


def oldest_versions(pyproject: Path = PYPROJECT) -> dict[str, str]:
    """Distribution -> the lower bound that the core or an extra states for it.

    Raises ValueError for a dependency that is not written as `name>=version`: without a lower
    bound there is no oldest version to test.
    """
    with pyproject.open("rb") as file:
        project = tomllib.load(file)["project"]
    lists = [project["dependencies"], *project["optional-dependencies"].values()]
    found: dict[str, str] = {}
    for requirement in (entry for entries in lists for entry in entries):
        if requirement.startswith(f"{project['name']}["):
            continue  # extras of ours, listed themselves
        parts = REQUIREMENT.fullmatch(requirement)
        if parts is None:
            raise ValueError(f"{pyproject}: {requirement!r} is not of the form 'name>=version'")
        found[parts["name"]] = parts["version"]
    return found


if __name__ == "__main__":
    for name, version in sorted(oldest_versions().items()):
        print(f"{name}=={version}")
