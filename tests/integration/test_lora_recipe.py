"""The LoRA recipe in real runs: what learns, what is written, resumed runs, number formats."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import modules
from modules.adapters.eight_bit import EightBitLinear
from modules.adapters.four_bit import FourBitLinear
from modules.adapters.lora import LoRA
from modules.adapters.tokens import TrainedTokens
from modules.attention import Attention
from modules.conditions import stage_c_inputs
from modules.encoders import TextEncoder
from modules.weights import load_network, read_header, read_tensors
from modules.weights.lora_files import read_lora
from tests.integration.lora_cases import HALF, STEPS, TOKENS, Settings, lora_settings, trained, weights
from tests.integration.recipe_cases import TEXT_ENCODER
from tests.integration.test_distributed import rows
from tests.integration.test_experiments import composed
from train.config import config_from_plain
from train.recipes import make_recipe


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("lora")


@pytest.fixture(scope="module")
def settings(folder: Path, shards: Path) -> Settings:
    return lora_settings(folder, shards)


def outputs(network: Any, encoder: TextEncoder) -> Tensor:
    """What a Stage C makes of some noise and captions."""
    noise = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    text = encoder(["a red [mine]", "circle"])
    with torch.no_grad():
        return network(noise, torch.tensor([0.3, 0.8]), **stage_c_inputs(text, None, 16))


def test_the_written_file_on_the_base_is_the_trained_network(settings: Settings, folder: Path) -> None:
    recipe = trained(settings("written", recipe={"tokens": TOKENS}))
    assert {path.name for path in (folder / "written" / "weights").iterdir()} == {
        "lora.safetensors",
        "lora_ema.safetensors",
    }
    file = folder / "written" / "weights" / "lora.safetensors"
    tensors = read_tensors(file)
    assert all(key.startswith(("diffusion_model.", "bundle_emb.")) for key in tensors)
    assert tensors["bundle_emb.[mine].clip_g"].shape == (1, 16)
    header = read_header(file)
    assert header["base"]["network"] == "stage_c" and len(header["base"]["fingerprint"]) == 16
    assert header["tokens"] == TOKENS

    base = load_network(folder / "stage_c.safetensors", "stage_c").eval()
    encoder = TextEncoder(source=str(folder / "written" / "text_encoder"))
    before = outputs(base, encoder)
    state = read_lora(file)
    LoRA.from_state(state, base).attach(base)
    TrainedTokens.from_vectors(state.tokens).attach(encoder)
    recipe.lora.eval()
    found = outputs(recipe.base.network, recipe.base.encoders.encoders["text_encoder"])
    assert torch.equal(outputs(base, encoder), found)
    assert (found - before).abs().max() > 1e-3


def test_only_layers_and_tokens_learn(settings: Settings, folder: Path) -> None:
    recipe = trained(settings("learning", recipe={"tokens": TOKENS}))
    learning = {p for p in recipe.trainable()["model"].parameters() if p.requires_grad}
    assert learning == set(recipe.lora.parameters())
    base = read_tensors(folder / "stage_c.safetensors")
    now = recipe.base.network.state_dict()
    assert all(torch.equal(now[key], value) for key, value in base.items())
    encoder = TextEncoder(**TEXT_ENCODER)
    start = TrainedTokens.create(encoder, TOKENS)
    for text in TOKENS:
        assert not torch.equal(recipe.lora.bundle_emb.vector(text), start.vector(text))  # type: ignore[union-attr, operator]
    # Sheets put all into eval mode; afterwards only what learns drops inputs out again.
    assert all(layer.dropout.training for layer in recipe.lora.layers.values())
    assert not recipe.base.network.training


@pytest.mark.parametrize("base", ["stage_c", "stage_b"])
def test_a_resumed_run_equals_an_uninterrupted_one(
    base: str, settings: Settings, folder: Path, shards: Path
) -> None:
    recipe = {"tokens": TOKENS, "regularisation": {"shards": str(shards), "weight": 0.5}}
    trained(settings(f"{base}_whole", base, recipe))
    trained(settings(f"{base}_parts", base, recipe, run={"num_steps": HALF}))
    trained(settings(f"{base}_parts", base, recipe))
    whole, parts = weights(folder / f"{base}_whole"), weights(folder / f"{base}_parts")
    assert whole.keys() == parts.keys() == {"lora.safetensors", "lora_ema.safetensors"}
    for name, tensors in whole.items():
        assert all(torch.equal(parts[name][key], value) for key, value in tensors.items())
    told = [row["regularisation_loss"] for row in rows(folder / f"{base}_whole")]
    assert len(told) == STEPS and told == [
        row["regularisation_loss"] for row in rows(folder / f"{base}_parts")
    ]


def test_regularisation_pictures_count_by_their_weight(
    settings: Settings, folder: Path, shards: Path
) -> None:
    def first_row(name: str, **recipe: Any) -> dict[str, str]:
        trained(settings(name, recipe=recipe, run={"num_steps": HALF}))
        return rows(folder / name)[0]

    alone = first_row("alone")
    row = first_row("regularised", regularisation={"shards": str(shards), "weight": 0.5})
    expected = float(alone["loss"]) + 0.5 * float(row["regularisation_loss"])
    assert float(row["loss"]) == pytest.approx(expected, rel=1e-5)


def test_regularisation_beside_the_short_batches_of_exact_epochs(
    settings: Settings, folder: Path, shards: Path
) -> None:
    recipe = {"regularisation": {"shards": str(shards), "weight": 0.5}}
    trained(settings("exact", recipe=recipe, data={"epochs": 1, "batch_size": 5}, run={"num_steps": 100}))
    told = rows(folder / "exact")
    assert len({row["samples"] for row in told}) == len(told) < 100
    assert all(float(row["regularisation_loss"]) > 0 for row in told)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize(("chosen", "kind"), [("nf4", FourBitLinear), ("int8", EightBitLinear)])
def test_a_base_in_few_bits_trains(
    chosen: str, kind: type, precision: str, settings: Settings, folder: Path
) -> None:
    pytest.importorskip("bitsandbytes")
    name = f"{chosen}_{precision}"
    changes = {
        "num_steps": 30,
        "precision": precision,
        "repeat_batch": True,
        "sample_every": 0,
        "save_every": 30,
    }
    model = {"stage_c": {"frozen_weights": chosen}, "text_encoder": {"frozen_weights": chosen}}
    recipe = trained(settings(name, recipe={"tokens": TOKENS}, run=changes, model=model))
    layers = list(recipe.base.network.modules())
    assert any(isinstance(layer, kind) for layer in layers)
    assert any(isinstance(layer, kind) for layer in recipe.base.encoders.encoders["text_encoder"].modules())
    assert not any(type(layer) is torch.nn.Linear for layer in layers)
    losses = [float(row["loss_unweighted"]) for row in rows(folder / name)]
    assert sum(losses[-10:]) < 0.95 * sum(losses[:10])


@pytest.mark.parametrize(("chosen", "dtype"), [("bf16", torch.bfloat16), ("fp32", torch.float32)])
def test_the_base_has_the_number_format_that_is_chosen(
    chosen: str, dtype: torch.dtype, settings: Settings
) -> None:
    precision = "fp32" if chosen == "bf16" else "bf16"
    changes = {"run": {"precision": precision}, "model": {"stage_c": {"frozen_weights": chosen}}}
    recipe = trained(settings(f"base_{chosen}", **changes))
    assert {parameter.dtype for parameter in recipe.lora.parameters()} == {torch.float32}
    frozen = [p for p in recipe.base.network.parameters() if not p.requires_grad]
    assert {parameter.dtype for parameter in frozen} == {dtype}


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ({"layers": {"*.attn": 4}}, r"layers '\*.attn': matches no layer"),
        ({"layers": {"*": -1}}, "expected a rank of at least 0"),
        ({"tokens": {"[mine]": None}}, "is not one token .* give a pattern"),
        ({"dora": "rows"}, "recipe.dora: expected"),
        ({"regularisation": {"shards": "nowhere"}}, "nowhere"),
        ({"base": {"name": "previewer"}}, "recipe.base.name: found 'previewer'"),
        ({"base": {"name": "stage_c", "image_keep": 0}}, "recipe.base.image_keep: .*'image_kept'"),
    ],
)
def test_mistakes_are_told_in_one_line(settings: Settings, recipe: dict[str, Any], message: str) -> None:
    config = config_from_plain(settings("mistaken", recipe=recipe))
    with pytest.raises((ValueError, OSError), match=message) as error:
        make_recipe(config).build(torch.device("cpu"))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("experiment", "network"),
    [("lora_stage_c_1b", "stage_c"), ("lora_stage_c_3_6b", "stage_c"), ("lora_stage_b_700m", "stage_b")],
)
def test_the_released_sizes_learn_in_every_attention(experiment: str, network: str) -> None:
    plain = composed(f"finetune/{experiment}")
    with torch.device("meta"):
        base = modules.build(network, plain["model"][network]["config"])
    lora = LoRA.create(base, plain["recipe"]["layers"])
    attentions = [name for name, part in base.named_modules() if isinstance(part, Attention)]
    projections = ("to_q", "to_k", "to_v", "out_proj")
    assert list(lora.layers) == [f"{name}.{each}" for name in attentions for each in projections]
    assert {layer.rank for layer in lora.layers.values()} == {4}
