"""Control filters against the recorded pictures of the published ones."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import modules
from modules.adapters.faces import Faces
from modules.adapters.filters import build_filter
from modules.adapters.filters.identity import face_grid, face_preview
from modules.adapters.filters.inpainting import Inpainting, painted_over
from modules.weights import save_network
from tests.oracle.network_cases import Case, files, fill

pytestmark = pytest.mark.oracle


def is_filters(facts: dict[str, str]) -> bool:
    return '"canny"' in facts.get("spec", "")


CASES = [pytest.param(Case(path), id=path.stem) for path in files(is_filters)]
every_case = pytest.mark.parametrize("case", CASES)


def spec_of(case: Case, name: str) -> dict[str, Any]:
    return json.loads(case.facts["spec"])[name]


def control(spec: dict[str, Any], images: Tensor, **given: Any) -> Tensor:
    generators = [torch.Generator().manual_seed(i) for i in range(len(images))]
    return build_filter(spec, **given)(images, generators)


def size_of(run: str) -> int | None:
    size = run.partition("resize_")[2].partition(".")[0]
    return None if size == "none" else int(size)


def filled(name: str, seed: int) -> modules.Network:
    network = modules.build(name, {}).eval()
    state = network.state_dict()
    network.load_state_dict({key: fill(key, tuple(t.shape), seed) for key, t in state.items()})
    return network


def close(found: Tensor, recorded: Tensor, atol: float = 1e-6) -> None:
    torch.testing.assert_close(found, recorded.to(found.dtype), atol=atol, rtol=1e-5)


def test_there_are_recorded_cases() -> None:
    assert CASES


@every_case
def test_canny(case: Case) -> None:
    for run, recorded in case.part("canny").items():
        spec = {"name": "canny", "size_px": size_of(run), "as_published": True}
        close(control(spec, case.tensors["in.image"]), recorded)


@every_case
def test_brightness(case: Case) -> None:
    """With the published extrema of a batch's first picture, and each picture by itself."""
    pictures = {"first_image_alone": slice(0, 1), "second_image_alone": slice(1, 2)}
    for run, recorded in case.part("qr").items():
        which = run.partition(".")[2]
        spec = {"name": "brightness", "size_px": size_of(run), "sigma_px": [1.0, 1.0], "as_published": True}
        spec["blobs"] = 0.0 if which == "no_blob" else 1.0
        close(control(spec, case.tensors["in.image"][pictures.get(which, slice(None))]), recorded)


@every_case
def test_brightness_of_a_picture_does_not_depend_on_its_batch(case: Case) -> None:
    spec = {"name": "brightness", "size_px": None, "sigma_px": [1.0, 1.0]}
    found = control(spec, case.tensors["in.image"])
    for i, which in enumerate(("first", "second")):
        close(found[i : i + 1], case.tensors[f"qr.resize_none.{which}_image_alone"])


@every_case
def test_lower_resolutions(case: Case) -> None:
    for run, recorded in case.part("sr").items():
        spec = {"name": "pixelated", "scale": {"half": 0.5, "quarter": 0.25}[run], "as_published": True}
        close(control(spec, case.tensors["in.image"]), recorded)


@every_case
def test_super_resolution(case: Case) -> None:
    compressor = filled("semantic_compressor", spec_of(case, "sr_effnet")["effnet_fill_seed"])
    spec = {"name": "super_resolution", "as_published": True}
    images = case.tensors["sr_effnet.in.image"] / 255
    found = control(spec, images, compressor=compressor)
    close(found, case.tensors["sr_effnet.embedding"], atol=7e-4)


@every_case
def test_a_given_mask_is_painted_white(case: Case) -> None:
    found = painted_over(case.tensors["in.image"], case.tensors["inpaint.in.mask"])
    assert torch.equal(found, case.tensors["inpaint.with_mask"])


@every_case
def test_masks_by_saliency(case: Case, tmp_path: Path) -> None:
    spec = spec_of(case, "inpaint")
    weights = tmp_path / "saliency.safetensors"
    save_network(weights, filled("saliency", spec["saliency_fill_seed"]), "saliency", {})
    paint = Inpainting(saliency=str(weights), blur_px=141)
    images = case.tensors["inpaint.in.image_big"] / 255
    for outside, run in ((False, "inside"), (True, "outside")):
        found = paint.salient(images, [spec["threshold"]], [outside])
        mismatches = (found != case.tensors[f"inpaint.saliency_{run}.mask"]).sum()
        assert mismatches <= spec["pixels_within_1e3_of_half"]


@every_case
def test_faces_on_a_grid(case: Case) -> None:
    given, recorded = case.part("identity.in"), case.tensors["identity.face_mtx"]
    faces = [Faces(given[f"boxes{i}"], given[f"ids{i}"]) for i in range(len(recorded))]
    height, width = (32 * side for side in recorded.shape[2:])
    assert torch.equal(face_grid(faces, (height, width)), recorded)
    shown = face_preview(torch.full((len(faces), 3, height, width), 0.25), faces)
    close(shown[..., ::32, ::32], case.tensors["identity.visual_aid_every_32px"])
