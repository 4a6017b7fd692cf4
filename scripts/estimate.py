"""What a training needs, worked out without building it: parameters, memory, time, cost, network, storage.

python -m scripts.estimate experiment=finetune/lora_stage_c_3_6b --gpu rtx4090
python -m scripts.estimate experiment=train/stage_c_3_6b parallel=hsdp --gpus 128 --gpu h100 --mfu 0.4
python -m scripts.estimate experiment=finetune/stage_c_3_6b memory=24gb       # as the preset would set it

The settings are those of `python -m train`; files that they name need not be there. Counted, on networks
without memory: parameters, bytes, operations, for square pictures. Assumed, and to be set by options: what
machines reach and cost. Nothing here was measured on a GPU (docs/memory.md, docs/scale.md).
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # for `python scripts/estimate.py`

from scripts.estimating import main

if __name__ == "__main__":
    sys.exit(main(description=__doc__))
