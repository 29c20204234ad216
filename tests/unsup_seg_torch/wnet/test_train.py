"""Updates of both halves, the learning rate, logging, and that both losses decrease."""

import pytest
import torch

from unsup_seg_torch.wnet import config, data, loss, train

CPU = torch.device("cpu")


def make_config(**training):
    return config.Config(
        model=config.Model(n_clusters=3, width=4, depth=2), training=config.Training(**training)
    )


@pytest.fixture
def images():
    """A dark square on a light background, with noise."""
    images = torch.full((2, 3, 16, 16), 0.8)
    images[..., 4:12, 4:12] = 0.2
    return images + 0.02 * torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def copy_weights(net):
    return {name: value.clone() for name, value in net.state_dict().items()}


def is_changed(before, after, half):
    return any(
        not torch.equal(before[name], after[name])
        for name in before
        if name.startswith(half) and "running" not in name and "tracked" not in name
    )


def test_cut_updates_the_encoder_and_reconstruction_both_halves(images):
    state = train.initial_state(make_config(), CPU)
    n_encoder = len(list(state.net.encoder.parameters()))
    assert len(state.optimizers["cut"].param_groups[0]["params"]) == n_encoder
    before = copy_weights(state.net)
    cut = loss.soft_ncut(state.net.encode(images), images).mean()
    train.update(state.optimizers["cut"], cut)
    middle = copy_weights(state.net)
    assert is_changed(before, middle, "encoder") and not is_changed(before, middle, "decoder")
    error = loss.reconstruction(state.net(images)[1], images)
    train.update(state.optimizers["reconstruction"], error)
    after = state.net.state_dict()
    assert is_changed(middle, after, "encoder") and is_changed(middle, after, "decoder")


@pytest.mark.parametrize("mode", ["alternating", "joint"])
def test_training_lowers_both_losses(images, mode):
    cfg = make_config(mode=mode)
    state = train.initial_state(cfg, CPU)
    values = [train.train_step(cfg, state, images, 0.01) for _ in range(60)]
    for name in ("soft_ncut", "reconstruction"):
        first, last = (
            torch.stack([v[name] for v in part]).mean() for part in (values[:5], values[-5:])
        )
        assert last < first, name


def test_square_gets_a_label_of_its_own(images):
    cfg = make_config()
    state = train.initial_state(cfg, CPU)
    for _ in range(100):
        train.train_step(cfg, state, images, 0.01)
    labels = state.net.encode(images)[0].argmax(0)
    inside, outside = labels[6:10, 6:10], torch.cat([labels[:2].ravel(), labels[-2:].ravel()])
    assert inside.mode().values.mode().values != outside.mode().values


def test_learning_rate_drops_in_steps_or_along_a_cosine():
    steps = config.Training(lr=1.0, drop_every=10, cosine=False)
    rates = [train.learning_rate(steps, i, 40) for i in (0, 9, 10, 25)]
    assert rates == pytest.approx([1, 1, 0.1, 0.01])
    cosine = config.Training(lr=1.0)
    assert [train.learning_rate(cosine, i, 40) for i in (0, 20, 40)] == pytest.approx([1, 0.5, 0])


def test_epoch_logs_every_tenth_step_and_the_last(images):
    photos = [image.permute(1, 2, 0).mul(255).byte().numpy() for image in images]
    cfg = config.Config(
        dataset=config.Dataset(crop=16),
        model=config.Model(n_clusters=2, width=2, depth=1),
        training=config.Training(n_epochs=1, crops=13, batch_size=2),
    )
    state = train.initial_state(cfg, CPU)
    metrics = list(train.train_epoch(cfg, state, photos))
    assert len(metrics) == data.n_batches(cfg, 2) == 13
    assert [i + 1 for i, values in enumerate(metrics) if values] == [10, 13]
    assert (state.epoch, state.batch, state.step) == (1, 0, 13)
