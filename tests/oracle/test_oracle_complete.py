"""No data file of the oracle goes unread: each must be of a kind that some test understands."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.oracle.network_cases import FOLDER, is_blocks, is_lora, is_network, metadata
from tests.oracle.test_oracle_controlnet import is_controlnet
from tests.oracle.test_oracle_filters import is_filters
from tests.oracle.test_oracle_manifests import is_summary
from tests.oracle.test_oracle_saliency import is_saliency
from tests.oracle.test_oracle_tokens import is_retoken

pytestmark = pytest.mark.oracle

FILES = [path for path in sorted(FOLDER.rglob("*")) if path.is_file() and path.suffix != ".md"]


def names_its_spec(facts: dict[str, str]) -> bool:
    return "spec_file" in facts


def has_noise_draws(facts: dict[str, str]) -> bool:
    spec = json.loads(facts.get("spec", "null"))
    return isinstance(spec, list) and all("draws" in case for case in spec)


# Which test reads tensors with such metadata, and which reads JSON with such a key.
BY_METADATA: list[tuple[Callable[[dict[str, str]], bool], str]] = [
    (is_lora, "test_oracle_lora"),
    (is_controlnet, "test_oracle_controlnet"),
    (is_saliency, "test_oracle_saliency"),
    (is_network, "test_oracle_networks"),
    (is_blocks, "test_oracle_networks"),
    (is_retoken, "test_oracle_tokens"),
    (is_filters, "test_oracle_filters"),
    (names_its_spec, "test_oracle_gdf"),
    (has_noise_draws, "test_oracle_noise"),
]
BY_KEY = {
    "trajectories": "test_oracle_gdf",
    "tables": "test_oracle_buckets",
    "latent_sizes": "test_oracle_utils",
    "state_dict": "test_oracle_manifests",
}


def reader(path: Path) -> str | None:
    """The name of the test that understands a data file, or None."""
    if path.suffix == ".json":
        content: Any = json.loads(path.read_text())
        if is_summary(content):
            return "test_oracle_manifests"
        return next((test for key, test in BY_KEY.items() if key in content), None)
    if path.suffix != ".safetensors":
        return None
    facts = metadata(path)
    found = next((test for understands, test in BY_METADATA if understands(facts)), None)
    # Tensors that say nothing of themselves belong to the JSON file of the same name.
    companion = path.with_suffix(".json")
    return found or (reader(companion) if companion.is_file() else None)


def test_there_are_data_files() -> None:
    assert FILES


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(FOLDER)))
def test_some_test_understands(path: Path) -> None:
    test = reader(path)
    assert test is not None, f"no test understands {path}"
    assert (Path(__file__).parent / f"{test}.py").is_file()


def test_a_file_that_no_test_understands_is_noticed(tmp_path: Path) -> None:
    strange = tmp_path / "strange.json"
    strange.write_text('{"what": "is this"}')
    (tmp_path / "strange.npy").write_bytes(b"")
    assert reader(strange) is None
    assert reader(tmp_path / "strange.npy") is None
