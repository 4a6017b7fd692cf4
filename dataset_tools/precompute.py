"""`python -m dataset_tools precompute SRC OUT KEY=VALUE …`: make shards of latents and states from pictures.

Training that reads them (data.shards=OUT) needs no pictures, and neither compressor nor encoders. What is
made must be what the training would have made itself, so it is told in the training's own words: its settings
by --config (`python -m train --cfg job experiment=… > FILE`, or a run's config.yaml), single ones by
KEY=VALUE: data.…, model.…, recipe.compressor_scale, run.seed, run.precision.

Under torchrun or srun every process makes its share of the shards. The same command again goes on.
"""

import argparse
import os
from pathlib import Path

from dataset_tools.arguments import whole_number
from dataset_tools.fetch import ShardReader
from dataset_tools.latent_facts import DTYPES, PARTS, claim
from dataset_tools.precomputing.settings import read_settings
from dataset_tools.sources import expand
from modules.processes import place


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("source", metavar="SRC", help="shards of pictures, as data.shards names them")
    parser.add_argument("out", metavar="OUT", type=Path, help="folder for the new shards; made if missing")
    parser.add_argument("settings", metavar="KEY=VALUE", nargs="*", help="settings, as of the training")
    parser.add_argument("--config", metavar="FILE", type=Path, help="settings of a training, as YAML")
    parser.add_argument(
        "--versions",
        type=whole_number(1),
        default=1,
        metavar="N",
        help="epochs whose crops, flips and random buckets are kept; then they come again (default: 1)",
    )
    parser.add_argument("--dtype", choices=sorted(DTYPES), default="bf16", help="of the tensors")
    parser.add_argument("--compress", action="store_true", help="by a third smaller, a little slower")
    parser.add_argument("--skip", choices=PARTS, action="append", default=[], help="leave a network out")
    parser.add_argument(
        "--batch-size", type=whole_number(1), default=16, metavar="N", help="pictures at a time (default: 16)"
    )
    parser.add_argument(
        "--workers",
        type=whole_number(1),
        default=min(8, os.cpu_count() or 1),
        metavar="N",
        help="threads that decode pictures (default: one per core, at most 8)",
    )
    parser.add_argument("--device", help="cpu, cuda, cuda:1 … (default: the process's GPU if there is one)")


def main(args: argparse.Namespace) -> int:
    """Run the command. Raises ValueError, OSError or CacheError for what the user must change."""
    settings = read_settings(args.config, args.settings, args.skip)
    shards = expand(args.source, "SRC", settings.data.allow_commands)
    from dataset_tools.precomputing.networks import Networks  # transformers is slow to import
    from dataset_tools.precomputing.precomputer import Precomputer, check_places

    check_places(shards, args.out)
    own = place()
    networks = Networks(settings, args.dtype, args.device, own.local_rank)
    facts = networks.facts(args.versions, args.compress)
    claim(args.out, facts, networks.empty())
    data = settings.data
    reader = ShardReader(data.cache_dir, data.cache_gb, data.allow_commands)
    precomputer = Precomputer(settings, networks, facts, args.out, reader, args.batch_size, args.workers)
    try:
        return precomputer.run(shards, own.rank, own.size)
    finally:
        precomputer.close()
