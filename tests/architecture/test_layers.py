"""Nothing imports upwards, and a library that belongs to one file is imported there only."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOMS = {
    "gdf": set(),
    "modules": set(),
    "dataset_tools": {"modules"},
    "train": {"modules", "gdf", "dataset_tools"},
    "inference": {"modules", "gdf"},
    "scripts": {"modules", "gdf", "dataset_tools", "train", "inference", "scripts"},
    "benchmarks": {"modules", "gdf", "dataset_tools", "train", "inference", "benchmarks"},
}
# library -> the files (or folders, with a slash at the end) that may import it; rooms not named here may not
OWNERS = {
    "torchvision": ("modules/semantic_compressor.py",),
    "transformers": ("modules/encoders.py", "modules/tokenizer.py"),
    "tokenizers": ("modules/tokenizer.py",),
    "safetensors": ("modules/weights/",),
    "webdataset": (),  # a peer of the tests; shards are read and written by dataset_tools itself
    "hydra": ("train/__main__.py", "inference/__main__.py"),
    "cv2": ("modules/adapters/filters/canny.py", "dataset_tools/arrays.py"),
    "simplejpeg": ("dataset_tools/jpeg.py",),
    "insightface": ("modules/adapters/faces.py",),
    "wandb": ("train/reports/trackers/wandb.py",),
    "gradio": ("modules/web/", "inference/app/", "inference/compare/", "train/monitor/"),
    "bitsandbytes": ("train/optim/eight_bit.py", "modules/adapters/four_bit.py"),
}
# what modules may import beyond torch and the owned libraries
MODULES_ALLOW = {"PIL": "modules/pictures.py", "numpy": "modules/dropout.py", "yaml": "modules/key_values.py"}
OWNED_ROOMS = ("gdf", "modules", "dataset_tools", "train", "inference")
LONGER_FUNCTIONS = {
    "gdf/diffusion.py:sample": 60
}  # the published keywords and what they mean; 20 lines of code
GDF_ALLOWS = {"torch", "gdf"}


def imports(path: Path) -> set[str]:
    """Full names of all modules that a file imports, inside functions too."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            names.add("." * node.level + (node.module or ""))
    return names


def sources() -> list[Path]:
    return [path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py"))]


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_only_what_its_room_may(path: Path) -> None:
    place = path.relative_to(ROOT)
    room = place.parts[0]
    for name in imports(path):
        top = name.split(".")[0]
        assert not name.startswith("."), f"{place}: relative import of '{name}'"
        if top in ROOMS and top != room:
            assert top in ROOMS[room], f"{place} imports {name}: upwards"
        if top in OWNERS and room in OWNED_ROOMS:
            allowed = any(
                str(place).startswith(owner) if owner.endswith("/") else str(place) == owner
                for owner in OWNERS[top]
            )
            assert allowed, f"{place} imports {name}: belongs to {', '.join(OWNERS[top])}"


def test_only_the_parallel_part_and_checkpoints_talk_to_other_ranks() -> None:
    allowed = ("train/parallel/", "train/checkpoint")
    for path in sources():
        place = str(path.relative_to(ROOT))
        talks = any(name.startswith("torch.distributed") for name in imported(path))
        assert not talks or place.startswith(allowed), f"{place} imports torch.distributed"


def imported(path: Path) -> set[str]:
    """As `imports`, and the full names of what is imported from modules."""
    nodes = ast.walk(ast.parse(path.read_text()))
    froms = [node for node in nodes if isinstance(node, ast.ImportFrom)]
    return imports(path) | {f"{node.module}.{alias.name}" for node in froms for alias in node.names}


def test_gdf_needs_only_torch() -> None:
    import sys

    for path in sorted((ROOT / "gdf").rglob("*.py")):
        foreign = {name.split(".")[0] for name in imports(path)} - GDF_ALLOWS - set(sys.stdlib_module_names)
        assert not foreign, f"{path.name} imports {foreign}"


def test_modules_need_torch_and_little_else() -> None:
    import sys

    known = {"torch", "modules", *OWNERS, *sys.stdlib_module_names}
    for path in sorted((ROOT / "modules").rglob("*.py")):
        place = str(path.relative_to(ROOT))
        foreign = {name.split(".")[0] for name in imports(path)} - known
        foreign -= {name for name, owner in MODULES_ALLOW.items() if owner == place}
        assert not foreign, f"{place} imports {foreign}"


def test_files_and_functions_stay_small() -> None:
    for path in sources():
        text = path.read_text()
        assert text.count("\n") <= 300, f"{path.relative_to(ROOT)}: {text.count(chr(10))} lines, at most 300"
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.end_lineno:
                lines = node.end_lineno - node.lineno + 1
                most = LONGER_FUNCTIONS.get(f"{path.relative_to(ROOT)}:{node.name}", 50)
                assert lines <= most, (
                    f"{path.relative_to(ROOT)}: {node.name} has {lines} lines, at most {most}"
                )


def test_names_of_test_files_are_unique() -> None:
    """pytest imports them by their bare names."""
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert sorted(names) == sorted(set(names))
