"""Where a process stands, and what must not change; tests/integration has several real processes."""

import os
from typing import Any

import pytest
import torch
from torch import nn

import modules
from modules.adapters.lora import LoRA
from modules.processes import Place, first_node, place
from modules.schema import ConfigError
from tests.integration.recipe_cases import STAGE_C
from train.config import ParallelConfig
from train.parallel.averaging import split
from train.parallel.batchnorm import SynchronisedBatchNorm2d, synchronise_batchnorm
from train.parallel.fsdp import product_weights
from train.parallel.mesh import shard_size
from train.parallel.preparation import prepare
from train.parallel.ranks import gather
from train.parallel.shards import assign, full, gradient_norm, local
from train.parallel.world import World, fail, join

SLURM = {
    "SLURM_PROCID": "3",
    "SLURM_STEP_NUM_TASKS": "8",
    "SLURM_LOCALID": "1",
    "SLURM_STEP_NODELIST": "node[07-09,12]",
    "SLURM_JOB_ID": "123456",
}


@pytest.fixture(autouse=True)
def no_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT", *SLURM):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


def test_alone_without_a_launcher() -> None:
    assert place() == Place(0, 1, 0)


def test_torchrun_says_where(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1"}.items():
        monkeypatch.setenv(name, value)
    assert place() == Place(5, 8, 1)


def test_srun_says_where_and_the_first_node_is_the_meeting_point(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SLURM.items():
        monkeypatch.setenv(name, value)
    assert place() == Place(3, 8, 1)
    assert os.environ["MASTER_ADDR"] == "node07" and 20000 <= int(os.environ["MASTER_PORT"]) < 40000


@pytest.mark.parametrize(
    ("nodes", "first"),
    [
        ("node07", "node07"),
        ("gpu[07-09,12],big1", "gpu07"),
        ("big1,gpu[07-09]", "big1"),
        ("rack[2-3]n[01-04]-ib", "rack2n01-ib"),
    ],
)
def test_the_first_of_the_nodes(nodes: str, first: str) -> None:
    assert first_node(nodes) == first


def test_two_steps_of_a_job_meet_at_different_ports(monkeypatch: pytest.MonkeyPatch) -> None:
    ports = set()
    for step in ("0", "1"):
        for name, value in {**SLURM, "SLURM_STEP_ID": step}.items():
            monkeypatch.setenv(name, value)
        monkeypatch.delenv("MASTER_PORT", raising=False)
        place()
        ports.add(os.environ["MASTER_PORT"])
    assert len(ports) == 2


def test_a_batch_script_without_srun_is_a_single_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_PROCID", "0")
    monkeypatch.setenv("SLURM_NTASKS", "8")
    assert place() == Place(0, 1, 0)


def test_a_gpu_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(ConfigError, match=r"run\.device"):
        join("cuda")
    assert join("auto") == World(0, 1, torch.device("cpu"))


def test_ranks_without_a_place_to_meet_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"RANK": "1", "WORLD_SIZE": "2", "GLOO_SOCKET_IFNAME": "lo"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match="MASTER_ADDR"):
        join("cpu")


@pytest.mark.parametrize(("local_rank", "speaks"), [("0", True), ("1", False)])
def test_what_goes_wrong_before_ranks_have_met_is_said_once_per_machine(
    monkeypatch: pytest.MonkeyPatch, local_rank: str, speaks: bool
) -> None:
    """On all machines: the first one may be the one that is not there."""
    for name, value in {"RANK": "9", "WORLD_SIZE": "16", "LOCAL_RANK": local_rank}.items():
        monkeypatch.setenv(name, value)
    assert fail("rank 0 was not there") == speaks


class Blocks(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(4, 4), nn.GELU()) for _ in range(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            x = block(x)
        return x

    def shard_units(self) -> list[nn.Module]:
        return list(self.blocks)


def test_recomputation_keeps_names_outputs_and_gradients() -> None:
    network = Blocks()
    names = list(network.state_dict())
    x = torch.randn(3, 4)
    expected = network(x)
    expected.square().sum().backward()
    gradients = [p.grad.clone() for p in network.parameters()]
    network.zero_grad()
    calls = []
    network.blocks[0][0].register_forward_hook(lambda *_: calls.append(1))
    prepare([network], ParallelConfig(activation_checkpointing=True), World(0, 1, torch.device("cpu")))
    found = network(x)
    found.square().sum().backward()
    assert torch.equal(found, expected) and list(network.state_dict()) == names
    assert all(torch.equal(p.grad, g) for p, g in zip(network.parameters(), gradients, strict=True))
    assert len(calls) == 2, "once forward, once again for the backward pass"


@pytest.mark.parametrize("synchronised", [False, True])
@pytest.mark.parametrize("mode", [True, "selective"])
def test_a_batch_that_is_seen_again_in_the_backward_pass_moves_batchnorm_once(
    mode: Any, synchronised: bool
) -> None:
    torch.manual_seed(0)
    networks = [Norms(), Norms()]
    networks[1].load_state_dict(networks[0].state_dict())
    if synchronised:
        for network in networks:
            synchronise_batchnorm(network)
    prepare([networks[1]], ParallelConfig(activation_checkpointing=mode), World(0, 1, torch.device("cpu")))
    for step in range(2):
        x = torch.randn(4, 3, 5, 5, generator=torch.Generator().manual_seed(step))
        for network in networks:
            network(x).square().sum().backward()
    torch.testing.assert_close(networks[1].state_dict(), networks[0].state_dict(), rtol=0, atol=0)
    assert networks[1].block[1].num_batches_tracked == 2 and networks[1].block[1].momentum == 0.1


class Norms(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.block = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.GELU(), nn.Conv2d(4, 2, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.block(x)

    def shard_units(self) -> list[nn.Module]:
        return [self.block]


@pytest.mark.parametrize("recompute", [False, True])
def test_every_block_is_compiled_and_may_be_recomputed(monkeypatch, recompute) -> None:
    calls = []

    def compiled(function):
        def call(*arguments):
            calls.append(function.__self__)
            return function(*arguments)

        return call

    monkeypatch.setattr(torch, "compile", compiled)
    network = Blocks()
    settings = ParallelConfig(compile=True, activation_checkpointing=recompute)
    prepare([network], settings, World(0, 1, torch.device("cpu")))
    network(torch.randn(3, 4)).sum().backward()
    first, second = network.blocks
    assert calls == [first, second] + [second, first] * recompute


@pytest.mark.parametrize(("places", "size"), [([0], 1), ([0, 1, 2, 0, 1, 2], 3), ([0, 0, 0], 1)])
def test_by_default_the_processes_of_a_machine_share_one_copy(monkeypatch, places, size) -> None:
    monkeypatch.setattr("train.parallel.mesh.gather", lambda place: places)
    world = World(0, len(places), torch.device("cpu"))
    assert shard_size(ParallelConfig(mode="hsdp"), world) == size
    assert shard_size(ParallelConfig(mode="fsdp"), world) == len(places)


@pytest.mark.parametrize("places", [[0, 1, 2, 0], [0, 0, 1, 1]])
def test_unequal_or_mixed_machines_need_a_number(monkeypatch, places) -> None:
    monkeypatch.setattr("train.parallel.mesh.gather", lambda place: places)
    world = World(0, len(places), torch.device("cpu"))
    with pytest.raises(ConfigError, match=r"parallel\.shard_size: expected a number, for the machines"):
        shard_size(ParallelConfig(mode="hsdp"), world)
    assert shard_size(ParallelConfig(mode="hsdp", shard_size=2), world) == 2


def test_what_enters_a_product_alone_is_gathered_in_bf16() -> None:
    """Biases, norms, gates and embeddings stay as they are, and so do a LoRA's layers and frozen bf16."""
    network: nn.Module = modules.build("stage_c", STAGE_C)
    lora = LoRA.create(network, {"*.to_q": 2})
    lora.attach(network)
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    found = {names[id(parameter)].rsplit(".", 1)[-1] for parameter in product_weights(network)}
    assert found == {"weight", "in_proj_weight"}
    chosen = {id(parameter) for parameter in product_weights(network)}
    assert not chosen & {id(parameter) for parameter in lora.parameters()}
    left = [p for p in network.parameters() if id(p) not in chosen]
    assert sum(p.numel() for p in left) < 0.1 * sum(p.numel() for p in network.parameters())
    assert not list(product_weights(nn.Embedding(4, 4))) and not list(product_weights(nn.LayerNorm(4)))
    assert not list(product_weights(network.bfloat16()))


def test_the_gradient_norm_is_that_of_all_gradients_together() -> None:
    parameters = [nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(3, 1)), nn.Parameter(torch.zeros(1))]
    parameters[0].grad, parameters[1].grad = torch.tensor([3.0, 0.0]), torch.tensor([[0.0], [4.0], [0.0]])
    assert gradient_norm(parameters).item() == pytest.approx(5)
    assert gradient_norm(parameters[2:]).item() == 0


def test_whole_tensors_of_a_single_process_are_themselves() -> None:
    tensor = torch.randn(3)
    assert full(tensor) is tensor and local(tensor) is tensor
    assign(tensor, torch.ones(3))
    assert torch.equal(tensor, torch.ones(3)) and gather("x") == ["x"]


def test_buckets_hold_consecutive_parameters_of_one_type() -> None:
    megabyte = [nn.Parameter(torch.zeros(256, 1024)) for _ in range(60)]
    mixed = [nn.Parameter(torch.zeros(2, dtype=torch.float64))]
    buckets = split([*megabyte, *mixed])
    assert [id(p) for bucket in buckets for p in bucket] == [id(p) for p in [*megabyte, *mixed]]
    assert [len(bucket) for bucket in buckets] == [25, 25, 10, 1]


def test_synchronised_batchnorm_keeps_names_and_alone_is_the_same() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.BatchNorm2d(4, affine=False))
    reference = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.BatchNorm2d(4, affine=False))
    reference.load_state_dict(network.state_dict())
    synchronise_batchnorm(network)
    assert [type(part) for part in network][1:] == [SynchronisedBatchNorm2d] * 2
    x = torch.randn(2, 3, 8, 8)
    assert torch.equal(network(x), reference(x))
    assert all(torch.equal(network.state_dict()[k], v) for k, v in reference.state_dict().items())
