"""The cache of the Hugging Face hub's client."""

from safetensors.torch import save_file


def write(folder, repository, net):
    """Caches the weights of a network as the client caches downloads."""
    repository_folder = folder / f"models--{repository.replace('/', '--')}"
    (repository_folder / "snapshots/abc").mkdir(parents=True)
    (repository_folder / "refs").mkdir()
    (repository_folder / "refs/main").write_text("abc")
    save_file(net.state_dict(), repository_folder / "snapshots/abc/model.safetensors")
