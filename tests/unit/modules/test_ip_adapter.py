"""The IP-Adapter: a fresh, detached or unscaled one changes nothing; tokens reach every attention block."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import modules
from modules import StageC
from modules.adapters.ip_adapter import IPAdapter, attention_channels, join_tokens
from modules.encoders import ImageEncoder

STAGE_C = {
    "c_in": 4, "c_out": 4, "c_r": 8, "c_cond": 16, "c_hidden": [16, 24], "nhead": [2, 3], "dropout": 0.0,
    "blocks": [[1, 1], [2, 1]], "level_config": ["CTA", "CTA"],
    "c_clip_text": 16, "c_clip_text_pooled": 16, "c_clip_img": 16,
}  # fmt: skip
C_IMAGE, C_TOKENS, NUM_PATCHES = 12, 20, 9
PROJECTIONS = {
    "pooled": {"name": "pooled", "num_tokens": 3},
    "patches": {"name": "patches"},
    "resampler": {"name": "resampler", "num_tokens": 5, "c_hidden": 8, "depth": 2, "nhead": 2},
}
NUM_TOKENS = {"pooled": 3, "patches": NUM_PATCHES, "resampler": 5}


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


@pytest.fixture
def stage_c() -> StageC:
    network = StageC(**STAGE_C).eval()
    return randomised(network)


def randomised(network: nn.Module) -> nn.Module:
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.3)
    return network


def make(kind: str = "pooled") -> IPAdapter:
    config = {"channels": [16, 24, 24, 24, 16], "c_image": C_IMAGE, "c_tokens": C_TOKENS}
    return modules.build("ip_adapter", {**config, "image_proj": PROJECTIONS[kind]})


def features(kind: str, count: int = 2) -> Tensor:
    return torch.randn(count, 1 if kind == "pooled" else NUM_PATCHES, C_IMAGE)


def run(stage_c: StageC, image_tokens: Tensor | None = None) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    x, text, pooled = (torch.randn(2, *s, generator=generator) for s in ((4, 6, 6), (5, 16), (1, 16)))
    r, nothing = torch.tensor([0.2, 0.9]), torch.zeros(2, 1, 16)
    return stage_c(x, r, text, pooled, nothing, image_tokens=image_tokens)


@pytest.mark.parametrize("kind", PROJECTIONS)
def test_features_become_normalised_tokens(kind: str) -> None:
    tokens = make(kind)(features(kind))
    assert tokens.shape == (2, NUM_TOKENS[kind], C_TOKENS)
    torch.testing.assert_close(tokens.mean(-1), torch.zeros(tokens.shape[:2]), atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", PROJECTIONS)
def test_a_fresh_adapter_changes_nothing_but_can_learn_to(kind: str, stage_c: StageC) -> None:
    plain, adapter = run(stage_c), make(kind)
    adapter.attach(stage_c)
    found = run(stage_c, adapter(features(kind)))
    assert torch.equal(found, plain)
    found.square().mean().backward()
    for attention in adapter.ip_adapter:
        assert attention.to_v_ip.weight.grad.abs().max() > 0


@pytest.mark.parametrize("kind", PROJECTIONS)
def test_reading_as_text_begins_with_the_texts_projections_and_changes_nothing(kind: str) -> None:
    stage_c = randomised(StageC(**STAGE_C | {"c_cond": C_TOKENS})).eval()
    plain, adapter = run(stage_c), make(kind)
    adapter.read_as_text(stage_c)
    adapter.attach(stage_c)
    found = run(stage_c, adapter(features(kind)))
    assert torch.equal(found, plain)
    block, attention = stage_c.get_submodule("up_blocks.0.5"), adapter.ip_adapter[3]
    token = torch.randn(C_TOKENS)
    texts, before = block.attention["attn"], block.kv_mapper[-1](token) - block.kv_mapper[-1].bias
    torch.testing.assert_close(attention.to_k_ip(token), texts.to_k(before) - texts.to_k.bias)
    if kind == "pooled":  # several tokens of one vector, all 0, would learn alike: the values are 0 instead
        assert adapter(features(kind)).std() > 0.5 and not attention.to_v_ip.weight.any()
    else:
        torch.testing.assert_close(attention.to_v_ip(token), texts.to_v(before) - texts.to_v.bias)
    optimizer = torch.optim.AdamW(adapter.parameters(), 1e-3)
    (found - 1).square().mean().backward()
    optimizer.step()
    assert not torch.allclose(run(stage_c, adapter(features(kind))), plain, atol=1e-3)


def test_reading_as_text_needs_tokens_of_the_texts_width(stage_c: StageC) -> None:
    with pytest.raises(ValueError, match=r"mapper of the text's tokens: expected shape \[any, 20\], found"):
        make().read_as_text(stage_c)


@pytest.mark.parametrize("kind", PROJECTIONS)
def test_every_parameter_matters_once_values_are_not_zero(kind: str, stage_c: StageC) -> None:
    adapter = randomised(make(kind))
    adapter.attach(stage_c)
    run(stage_c, adapter(features(kind))).square().mean().backward()
    for name, parameter in adapter.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().max() > 0, name


def test_scale_0_and_no_tokens_and_detached_give_the_bits_of_the_base(stage_c: StageC) -> None:
    plain, adapter = run(stage_c), randomised(make())
    before = {key: value.clone() for key, value in stage_c.state_dict().items()}
    tokens = adapter(features("pooled"))
    adapter.attach(stage_c)
    assert not torch.allclose(run(stage_c, tokens), plain, atol=1e-2)
    assert torch.equal(run(stage_c), plain)
    adapter.scale = 0.0
    assert torch.equal(run(stage_c, tokens), plain)
    adapter.scale = 1.0
    adapter.detach()
    assert torch.equal(run(stage_c, tokens), plain)
    after = stage_c.state_dict()
    assert after.keys() == before.keys() and all(torch.equal(after[key], before[key]) for key in before)
    adapter.attach(stage_c)  # again, or another
    with pytest.raises(ValueError, match="has an image adapter already; detach"):
        make().attach(stage_c)
    with pytest.raises(ValueError, match="already attached to a network; detach it first"):
        adapter.attach(copy.deepcopy(stage_c))


def test_attention_to_image_tokens_is_added_before_the_output_projection(stage_c: StageC) -> None:
    """Ye et al. 2023, equation 5, written out for one head after the other."""
    adapter = randomised(make())
    adapter.scale = 0.6
    adapter.attach(stage_c)
    block = stage_c.get_submodule("down_blocks.0.2.attention.attn")
    queries, tokens, image = torch.randn(2, 7, 16), torch.randn(2, 4, 16), torch.randn(2, 3, C_TOKENS)
    heads = []
    for rows in (slice(0, 8), slice(8, 16)):
        q, k, v = (layer(y)[..., rows] for layer, y in zip(
            (block.to_q, block.to_k, block.to_v), (queries, tokens, tokens), strict=True))  # fmt: skip
        own = adapter.ip_adapter[0]
        k_image, v_image = (
            F.linear(image, own.to_k_ip.weight[rows]),
            F.linear(image, own.to_v_ip.weight[rows]),
        )
        text_part = (q @ k.mT / 8**0.5).softmax(-1) @ v
        heads.append(text_part + 0.6 * (q @ k_image.mT / 8**0.5).softmax(-1) @ v_image)
    expected = block.out_proj(torch.cat(heads, dim=-1))
    torch.testing.assert_close(block(queries, block.project(tokens), image_tokens=image), expected)


def test_each_block_has_its_own_projections_in_running_order(stage_c: StageC) -> None:
    adapter = make()
    adapter.attach(stage_c)
    paths = ["down_blocks.0.2", "down_blocks.1.2", "up_blocks.0.2", "up_blocks.0.5", "up_blocks.1.2"]
    for path, attention in zip(paths, adapter.ip_adapter, strict=True):
        assert stage_c.get_submodule(f"{path}.attention.attn").image_attention is attention


def test_names_are_those_of_the_field() -> None:
    state = make().state_dict()
    assert {key for key in state if key.startswith("ip_adapter.")} == {
        f"ip_adapter.{n}.to_{part}_ip.weight" for n in range(5) for part in "kv"
    }
    assert {key for key in state if not key.startswith("ip_adapter.")} == {
        f"image_proj.{layer}.{part}" for layer in ("proj", "norm") for part in ("weight", "bias")
    }
    plus = make("resampler").state_dict()
    assert plus["image_proj.latents"].shape == (1, 5, 8)
    assert plus["image_proj.layers.1.0.to_kv.weight"].shape == (16, 8)
    assert plus["image_proj.layers.1.1.3.weight"].shape == (8, 32)


def test_several_pictures_stand_side_by_side_or_are_summed() -> None:
    first, second = torch.randn(2, 3, 4), torch.randn(2, 3, 4)
    assert torch.equal(join_tokens([first, second]), torch.cat((first, second), dim=1))
    torch.testing.assert_close(join_tokens([first, second], [0.25, 0.75]), 0.25 * first + 0.75 * second)
    with pytest.raises(ValueError, match="weights: expected 2, one per picture, found 1"):
        join_tokens([first, second], [1.0])


def test_attention_chooses_among_all_tokens_whatever_their_order(stage_c: StageC) -> None:
    adapter = randomised(make())
    adapter.attach(stage_c)
    one, other = adapter(features("pooled")), adapter(features("pooled"))
    both = run(stage_c, join_tokens([one, other]))
    torch.testing.assert_close(run(stage_c, join_tokens([other, one])), both)
    torch.testing.assert_close(run(stage_c, join_tokens([one, one])), run(stage_c, one))
    assert not torch.allclose(both, run(stage_c, one))


def test_init_weights_gives_every_parameter_a_value() -> None:
    for kind in PROJECTIONS:
        with torch.device("meta"):
            adapter = make(kind)
        adapter.to_empty(device="cpu")
        for parameter in adapter.parameters():
            nn.init.constant_(parameter, float("nan"))
        adapter.init_weights()
        assert all(parameter.isfinite().all() for parameter in adapter.parameters())


def test_a_network_of_other_blocks_is_refused(stage_c: StageC) -> None:
    adapter = IPAdapter(channels=[16, 24], c_image=4, c_tokens=4)
    with pytest.raises(ValueError, match=r"made for 2 attention blocks of \[16, 24\].*has 5 of \[16, 24\]"):
        adapter.attach(stage_c)
    assert attention_channels(stage_c) == [16, 24, 24, 24, 16]


def test_wrong_settings_and_features_are_named() -> None:
    with pytest.raises(ValueError, match="image_proj.name: 'resampler2' is not known.*'resampler'"):
        IPAdapter(channels=[8], image_proj={"name": "resampler2"})
    with pytest.raises(
        ValueError, match="image_proj of pooled: keyword 'num_token' is not known.*num_tokens"
    ):
        IPAdapter(channels=[8], image_proj={"name": "pooled", "num_token": 3})
    with pytest.raises(
        ValueError, match="nhead: expected a divisor of the 8 channels of the resampler, found 3"
    ):
        make_resampler(nhead=3)
    with pytest.raises(ValueError, match=r"pooled image features: expected shape \[any, 1, 12\]"):
        make()(features("patches"))
    with pytest.raises(
        ValueError, match=r"image patches: expected shape \[any, any, 12\], found \[2, 9, 11\]"
    ):
        make("resampler")(features("patches")[..., :11])


def make_resampler(**changes: int) -> IPAdapter:
    return IPAdapter([8], C_IMAGE, C_TOKENS, {**PROJECTIONS["resampler"], **changes})


def test_an_encoder_gives_what_each_projection_reads() -> None:
    config = {"hidden_size": 16, "intermediate_size": 32, "projection_dim": 12, "num_hidden_layers": 2,
              "num_attention_heads": 2, "image_size": 16, "patch_size": 8}  # fmt: skip
    encoder = ImageEncoder(config=config)
    images = torch.rand(2, 3, 16, 16)
    with torch.no_grad():
        assert torch.equal(encoder.features(images, make().reads), encoder(images))
        patches = encoder.features(images, make("resampler").reads)
    assert patches.shape == (2, 1 + 4, 16)
    # The top left quarter changes its own patch more than any other, for little attention has mixed them yet.
    images[:, :, :8, :8] = 1 - images[:, :, :8, :8]
    with torch.no_grad():
        change = (encoder.patches(images) - patches).norm(dim=-1)
    assert (change.argmax(dim=1) == 1).all()


def test_a_random_encoders_patches_tell_where_they_are() -> None:
    config = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
              "image_size": 16, "patch_size": 4}  # fmt: skip
    with torch.no_grad():
        patches = ImageEncoder(config=config).patches(torch.rand(1, 3, 1, 1).expand(1, 3, 16, 16))[0, 1:]
    distances = torch.cdist(patches, patches) / patches.norm(dim=-1).mean()  # all of the same colour
    assert distances[~torch.eye(16, dtype=torch.bool)].min() > 0.5
