"""The choice of the model: a config class and a default config for each model.name."""

from unsup_seg_torch.dino.config import Config as DINOConfig
from unsup_seg_torch.segmenter.config import Config as SegmenterConfig
from unsup_seg_torch.wnet.config import Config as WNetConfig

CONFIGS = {"wnet": WNetConfig, "segmenter": SegmenterConfig, "dino": DINOConfig}
DEFAULTS = {"wnet": "embedded.yml", "segmenter": "digits.yml", "dino": "dino_digits.yml"}

# The short options of the original command line:
# python -m train --model=segmenter --batch-size=16 --epochs=30 --learning-rate=0.001 --pretrained
SHORT_OPTIONS = {
    **dict.fromkeys(("-m", "--model"), "model.name"),
    **dict.fromkeys(("-b", "--batch-size"), "training.batch_size"),
    **dict.fromkeys(("-e", "--epochs"), "training.n_epochs"),
    **dict.fromkeys(("-lr", "--learning-rate"), "training.lr"),
}
SHORT_FLAGS = {
    "--pretrained": "model.pretrained",
    "--save-model": "training.save_model",
    "--save-logs": "training.save_logs",
}


def expand_short_options(argv: list[str]) -> list[str]:
    """["--epochs=30", "--save-model"] -> ["--training.n_epochs=30", "--training.save_model=true"]

    Other words are left as they are.
    """
    expanded = []
    for word in argv:
        name, equals, value = word.partition("=")
        if name in SHORT_OPTIONS:
            expanded.append(f"--{SHORT_OPTIONS[name]}{equals}{value}")
        elif word in SHORT_FLAGS:
            expanded.append(f"--{SHORT_FLAGS[word]}=true")
        else:
            expanded.append(word)
    return expanded
