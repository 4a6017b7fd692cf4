"""predict.py behind Cog's own server, as a real process with a small cascade; and cog.yaml."""

import base64
import io
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import numpy as np
import pytest
import yaml
from PIL import Image

pytest.importorskip("cog")
from cog._inspector import create_predictor

ROOT = Path(__file__).parents[2]
LONG_S = 600  # on a machine that is busy
# Of Cog's public reference of cog.yaml.
KEYS = {"build", "image", "predict", "train", "concurrency", "environment", "weights", "model"}
BUILD_KEYS = {
    "cuda",
    "gpu",
    "python_version",
    "python_requirements",
    "python_packages",
    "system_packages",
    "run",
}
SMALL = {
    "prompt": "a red circle",
    "width": 32,
    "height": 48,
    "prior_num_inference_steps": 2,
    "decoder_num_inference_steps": 2,
}


@pytest.fixture(scope="module")
def server(tiny_runs: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of Cog's server, ready."""
    folder = tmp_path_factory.mktemp("cog")
    shutil.copy(ROOT / "predict.py", folder)
    write_schema(folder)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    around = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",  # its worker is `python`
        "KASKADE_RUN": str(tiny_runs),
        "COG_PREDICT_TYPE_STUB": yaml.safe_load((ROOT / "cog.yaml").read_text())["predict"],
        "PORT": str(port),
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
    }
    log = folder / "log"
    with log.open("w") as file:
        command = [sys.executable, "-m", "cog.server.http", "--host", "127.0.0.1"]
        process = subprocess.Popen(command, cwd=folder, env=around, stdout=file, stderr=file)
        try:
            address = f"http://127.0.0.1:{port}"
            wait_until_ready(address, process, log)
            yield address
        finally:
            process.terminate()
            process.wait(60)


def write_schema(folder: Path) -> None:
    """What `cog build` leaves for the server, made of the inputs that Cog's Python finds in the predictor."""
    inputs = create_predictor("predict", "Predictor").inputs.values()
    kinds = {"STRING": "string", "INTEGER": "integer", "FLOAT": "number"}
    names = {"description": "description", "default": "default", "ge": "minimum", "le": "maximum"}
    names |= {"min_length": "minLength", "max_length": "maxLength"}
    properties = {}
    for each in inputs:
        facts = {key: getattr(each, name) for name, key in names.items() if getattr(each, name) is not None}
        kind = {"type": kinds[each.type.primitive.name], "title": each.name, "x-order": each.order}
        properties[each.name] = kind | facts
    required = [
        each.name for each in inputs if each.default is None and each.type.repetition.name == "REQUIRED"
    ]
    schemas = {
        "Input": {"type": "object", "title": "Input", "properties": properties, "required": required},
        "Output": {"type": "array", "title": "Output", "items": {"type": "string", "format": "uri"}},
    }
    schema = {"openapi": "3.0.2", "info": {"title": "Cog", "version": "0.1.0"}, "paths": {}}
    (folder / ".cog").mkdir()
    schema["components"] = {"schemas": schemas}
    (folder / ".cog/openapi_schema.json").write_text(json.dumps(schema))


def wait_until_ready(address: str, process: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + LONG_S
    status = "no answer"
    while status != "READY" and time.monotonic() < until and process.poll() is None:
        time.sleep(0.2)
        try:
            status = asked(f"{address}/health-check")[1]["status"]
        except OSError:
            continue
        assert status in ("STARTING", "READY"), log.read_text()
    assert status == "READY", log.read_text()


def asked(url: str, content: Any = None, method: str | None = None) -> tuple[int, Any]:
    """Status and answer of a request with JSON in it."""
    data = None if content is None else json.dumps(content).encode()
    request = Request(url, data, {"Content-Type": "application/json"}, method=method)
    try:
        with urlopen(request, timeout=LONG_S) as answer:
            return answer.status, json.load(answer)
    except HTTPError as error:
        return error.code, error.read().decode()


def predicted(server: str, **changes: Any) -> Any:
    until = time.monotonic() + LONG_S
    status, answer = asked(f"{server}/predictions", {"input": SMALL | changes})
    while status == 409 and time.monotonic() < until:  # the one before is being put away
        time.sleep(0.05)
        status, answer = asked(f"{server}/predictions", {"input": SMALL | changes})
    assert status == 200, answer
    assert answer["status"] == "succeeded", answer
    return answer


def pictures(answer: Any) -> list[Image.Image]:
    contents = [base64.b64decode(each.partition("base64,")[2]) for each in answer["output"]]
    return [Image.open(io.BytesIO(content)) for content in contents]


def test_pictures_come_as_png_with_their_settings(server: str) -> None:
    first = predicted(server, seed=7, num_images_per_prompt=2, prior_guidance_scale=3)
    two = pictures(first)
    assert [(each.format, each.size) for each in two] == [("PNG", (32, 48))] * 2
    facts = [json.loads(each.text["kaskade"]) for each in two]  # type: ignore[attr-defined]
    assert [each["seed"] for each in facts] == [7, 8]
    assert facts[0]["stage_c"]["guidance"] == 3
    assert facts[0]["stage_b"]["guidance"] == 1  # 0, as elsewhere, is none
    assert "seed 7" in first["logs"]
    [again] = pictures(predicted(server, seed=7, prior_guidance_scale=3))
    assert np.abs(np.asarray(again, int) - np.asarray(two[0], int)).max() <= 1  # a batch of its own


def test_a_seed_is_chosen_where_none_is_given(server: str) -> None:
    first, second = predicted(server), predicted(server)
    assert first["logs"] != second["logs"]


def test_the_schema_shows_every_input_and_its_bounds(server: str) -> None:
    status, schema = asked(f"{server}/openapi.json")
    assert status == 200
    inputs = schema["components"]["schemas"]["Input"]["properties"]
    assert inputs.keys() == SMALL.keys() | {
        "negative_prompt",
        "num_images_per_prompt",
        "prior_guidance_scale",
        "decoder_guidance_scale",
        "seed",
    }
    assert all(entry["description"] for entry in inputs.values())
    numbers = [entry for name, entry in inputs.items() if name not in ("prompt", "negative_prompt")]
    assert all({"minimum", "maximum"} <= entry.keys() for entry in numbers)
    assert schema["components"]["schemas"]["Input"]["required"] == ["prompt"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"width": 8},
        {"height": 4096},
        {"width": "wide"},
        {"num_images_per_prompt": 0},
        {"prior_num_inference_steps": 101},
        {"decoder_guidance_scale": -1},
        {"seed": -1},
        {"prompt": None},
        {"prompt": 5 * ["a"]},
    ],
)
def test_wrong_inputs_are_refused(server: str, wrong: dict[str, Any]) -> None:
    status, answer = asked(f"{server}/predictions", {"input": SMALL | wrong})
    assert status == 422
    assert next(iter(wrong)) in answer


def test_a_prediction_can_be_cancelled(server: str) -> None:
    """It ends long before its hundred steps, and the next one is answered."""
    answers: list[tuple[int, Any]] = []
    long = {"input": SMALL | {"width": 1024, "height": 1024, "prior_num_inference_steps": 100}}

    def predict() -> None:
        answers.append(asked(f"{server}/predictions/long", long, "PUT"))

    thread = threading.Thread(target=predict)
    thread.start()
    until = time.monotonic() + LONG_S
    while asked(f"{server}/health-check")[1]["status"] != "BUSY" and time.monotonic() < until:
        time.sleep(0.01)
    status, _ = asked(f"{server}/predictions/long/cancel", {}, "POST")
    assert status == 200
    thread.join(LONG_S)
    [(_, answer)] = answers
    assert answer["status"] == "canceled"
    assert predicted(server, seed=1)["output"]


def test_cog_yaml_has_keys_that_cog_knows() -> None:
    config = yaml.safe_load((ROOT / "cog.yaml").read_text())
    assert config.keys() <= KEYS
    assert config["build"].keys() <= BUILD_KEYS
    file, _, name = config["predict"].partition(":")
    assert f"class {name}(BasePredictor)" in (ROOT / file).read_text()
    requirements = (ROOT / config["build"]["python_requirements"]).read_text().splitlines()
    assert all("==" in line for line in requirements if line and not line.startswith("#"))
    assert all("=" in entry for entry in config["environment"])
    ignored = (ROOT / ".dockerignore").read_text().split("\n")
    assert not {"models", "outputs"} & set(ignored), "the weights would not be in Cog's image"
