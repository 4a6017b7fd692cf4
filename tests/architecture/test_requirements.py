"""What `pip install -e .` allows, and what `make setup` installs, are of the same packages, and agree."""

import tomllib
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]


def test_installing_for_another_torch_is_allowed_and_what_is_pinned_is_within_it() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    allowed = {each.name: each for each in map(Requirement, project["dependencies"])}
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    pinned = [Requirement(line) for line in lines if line and not line.startswith("#")]
    assert [each.name for each in pinned] == list(allowed)
    for each in pinned:
        (pin,) = each.specifier
        assert pin.operator == "==" and pin.version in allowed[each.name].specifier
        assert each.extras == allowed[each.name].extras
    assert "2.11.0" in allowed["torch"].specifier and "2.10.1" not in allowed["torch"].specifier
