"""Write the checkpoint that upstream's recipe reads: ``python -m tests.bench.weights FOLDER``.

No output depends on it: upstream's scripts read it and throw it away.  Its weights are random.
"""

import sys
from pathlib import Path

from launch.core import files


def write(folder: Path) -> None:
    """Write the weights of the model that ``folder``'s config describes, as ``save_pretrained`` does."""
    import torch
    from transformers import AutoConfig, BertForQuestionAnswering

    torch.manual_seed(0)
    model = BertForQuestionAnswering(AutoConfig.from_pretrained(str(folder)))
    path = folder / "pytorch_model.bin"
    with files.replace_file(path) as part:
        torch.save(model.state_dict(), str(part))


if __name__ == "__main__":
    write(Path(sys.argv[1]))
