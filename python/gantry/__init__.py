"""Language models on the hardware you have: load, generate, measure, train.

    import gantry

    model = gantry.load("path/to/model")
    print(model.generate("The capital of France is", max_tokens=16).text)

Tensors are torch's. Errors: InputError (a ValueError) for bad input, Error (a RuntimeError) for what fails while running,
TypeError for options that don't exist or have another type, KeyboardInterrupt for Ctrl-C.
"""

import torch  # noqa: F401 -- loads the libtorch that the extension is linked with

from gantry._core import (
    Error,
    Generation,
    InputError,
    Model,
    StepReport,
    Tokenizer,
    Trainer,
    TrainResult,
    __version__,
    from_scratch,
    generate_options,
    load,
    load_tokenizer,
    train,
    train_options,
    trainer_options,
)

__all__ = [
    "Error",
    "Generation",
    "InputError",
    "Model",
    "StepReport",
    "Tokenizer",
    "TrainResult",
    "Trainer",
    "__version__",
    "from_scratch",
    "generate_options",
    "load",
    "load_tokenizer",
    "train",
    "train_options",
    "trainer_options",
]
