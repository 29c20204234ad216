"""The short options of the original command, as keys of the config.

python -m train --model=segmenter --batch-size=16 --epochs=30 --learning-rate=0.001 --pretrained
"""

KEYS = {
    **dict.fromkeys(("-m", "--model"), "model.name"),
    **dict.fromkeys(("-b", "--batch-size"), "training.batch_size"),
    **dict.fromkeys(("-e", "--epochs"), "training.n_epochs"),
    **dict.fromkeys(("-lr", "--learning-rate"), "training.lr"),
}
SWITCHES = {
    "--pretrained": "model.pretrained",
    "--save-model": "training.save_model",
    "--save-logs": "training.save_logs",
}


def translate(argv: list[str]) -> list[str]:
    """["--epochs=30", "--save-model"] -> ["--training.n_epochs=30", "--training.save_model=true"]

    All else stays what it is.
    """
    translated = []
    for word in argv:
        name, equals, value = word.partition("=")
        if name in KEYS:
            translated.append(f"--{KEYS[name]}{equals}{value}")
        elif word in SWITCHES:
            translated.append(f"--{SWITCHES[word]}=true")
        else:
            translated.append(word)
    return translated
