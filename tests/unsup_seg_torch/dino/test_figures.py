"""Exported weights load in timm."""

import timm
import torch
from safetensors.torch import load_file
from timm.models.vision_transformer import VisionTransformer

from tests.unsup_seg_torch.dino.tiny import MODEL
from unsup_seg_torch.dino import config, figures, model
from unsup_seg_torch.vit import encoder


def test_exported_teacher_loads_in_timm(tmp_path):
    class Run:
        path = tmp_path

    teacher = model.build(config.Model(**MODEL), 16).teacher.encoder
    figures.export(Run, teacher)
    timm_net = VisionTransformer(
        img_size=16, patch_size=4, embed_dim=32, depth=1, num_heads=2, num_classes=0
    )
    timm_net.load_state_dict(load_file(tmp_path / "model.safetensors"))
    images = torch.rand(2, 3, 16, 16)
    features, expected = timm_net.eval()(teacher.pad(images)), teacher.eval()(images)[:, 0]
    torch.testing.assert_close(features, expected, atol=1e-5, rtol=1e-4)
    # a model of timm takes the file as its pretrained weights, at another image size
    named = encoder.build("test_vit", (32, 32))
    figures.export(Run, named)
    overlay = {"file": str(tmp_path / "model.safetensors"), "num_classes": 0}
    same = timm.create_model(
        "test_vit", pretrained=True, pretrained_cfg_overlay=overlay, num_classes=0, img_size=32
    )
    assert torch.equal(same.pos_embed, named.net.pos_embed)
