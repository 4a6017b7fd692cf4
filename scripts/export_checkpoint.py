"""`python -m scripts.export_checkpoint RUN_OR_CHECKPOINT`: plain safetensors from a sharded checkpoint.

It needs no GPU, and no more memory than the largest tensor takes.
"""

import sys
import time
from collections.abc import Sequence
from pathlib import Path

from modules.command_lines import Parser
from modules.schema import one_line
from train.checkpoints.export import export
from train.checkpoints.folders import CheckpointError, Checkpoints, damage, step_of
from train.state import STATE, read_state


def main(arguments: Sequence[str]) -> int:
    """Export; returns the exit status. What is wrong is one line and status 2."""
    parser = Parser(prog="python -m scripts.export_checkpoint", description=__doc__)
    parser.add_argument("source", type=Path, help="a run's folder (its newest checkpoint), or a checkpoint's")
    parser.add_argument("--out", type=Path, help="folder for the files (default: the run's weights/)")
    settings = parser.parse_args(arguments)
    began = time.monotonic()
    try:
        checkpoint = chosen(settings.source)
        out = settings.out or checkpoint.parents[1] / "weights"
        paths = export(checkpoint, read_state(checkpoint).networks, step_of(checkpoint), out)
    except (ValueError, OSError) as error:
        print("error:", one_line(error), file=sys.stderr)
        return 2
    for path in paths:
        print(path)
    print(f"{len(paths)} files from {checkpoint} in {time.monotonic() - began:.1f} s")
    return 0


def chosen(source: Path) -> Path:
    """The checkpoint in `source`, or the newest of a run's that is whole; its files are checked.

    Raises FileNotFoundError where there is none, CheckpointError where what there is is damaged.
    """
    source = source.resolve()
    if (source / STATE).is_file():
        if problem := damage(source):
            raise CheckpointError(f"{problem}; name another checkpoint")
        return source
    paths = Checkpoints(source / "checkpoints").usable()
    if not paths:
        raise FileNotFoundError(f"{source}: neither a run's folder with checkpoints/, nor a checkpoint")
    for path in paths:
        problem = damage(path)
        if problem is None:
            return path
        if path != paths[-1]:
            print(f"{problem}; taking the checkpoint before it", file=sys.stderr)
    raise CheckpointError(f"{source}: none of its {len(paths)} checkpoints is whole ({problem})")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
