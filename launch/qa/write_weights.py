"""As a program: writes what upstream's script takes of a checkpoint to the file that is named first.

The script's arguments follow, in the kit's form.
"""

import sys
from pathlib import Path
from typing import List

from ..core import child, files
from .arguments import parse_arguments
from .compress import name_precision, read_nncf_config, read_sparsity
from .program import read_model
from .weights import SPARSITY, prepare_weights


def _main(argv: List[str]) -> None:
    import torch

    target, *words = argv
    args = parse_arguments("upstream's script", words)
    nncf_config = read_nncf_config(args)
    model = read_model(args)
    trained = prepare_weights(args, *model, read_sparsity(nncf_config), name_precision(nncf_config))
    assert trained is not None
    written = {**trained.state, SPARSITY: torch.tensor(trained.sparsity, dtype=torch.float64)}
    with files.replace_file(Path(target)) as part:
        torch.save(written, str(part))


if __name__ == "__main__":
    sys.exit(child.run_body(_main, sys.argv[1:]))
