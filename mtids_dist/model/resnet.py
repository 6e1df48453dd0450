"""MONAI's 3-D ResNets as trunks: group norm throughout, features before pooling.

Shape suffixes: B batch, D H W a crop's depth, height and width, C channels, d h w the map's size.
"""

from __future__ import annotations

from typing import Any

from monai.networks.nets.resnet import ResNet, get_inplanes, resnet_params
from torch import Tensor, nn

from mtids_dist.model.convolution import use_own_convolutions

GROUP_NORM = ("group", {"num_groups": 8})


class ResNetTrunk(ResNet):  # type: ignore[misc]  # MONAI is untyped
    """crops [B, 1, D, H, W] -> [B, 512 or 2048, ceil(D / 32), ceil(H / 32), ceil(W / 32)].

    Shapes of the layers are those of the published MedicalNet weights (Chen et al., "Med3D", arXiv 1904.00625).

    :param depth: a name that MONAI's `resnet_params` has: `resnet10`, `resnet18`, `resnet50`.
    """

    def __init__(self, depth: str) -> None:
        block, layers, shortcut, bias_downsample, _ = resnet_params[depth]
        super().__init__(
            block,
            layers,
            get_inplanes(),
            n_input_channels=1,
            conv1_t_stride=2,
            shortcut_type=shortcut,
            bias_downsample=bias_downsample,
            feed_forward=False,
            norm=GROUP_NORM,
        )
        self.out_channels = int(self.in_planes)
        use_own_convolutions(self)

    def _make_layer(self, *args: Any, **settings: Any) -> nn.Sequential:
        # MONAI hands `norm` to the stem only and leaves batch norm in the layers.
        return super()._make_layer(*args, **{**settings, "norm": GROUP_NORM})  # type: ignore[no-any-return]

    def _downsample_basic_block(self, x: Tensor, planes: int, stride: int, spatial_dims: int = 3) -> Tensor:  # noqa: ARG002
        # MONAI's own reads `out.data`, which cuts the shortcut out of the backward pass, and averages over single voxels, for
        # which a CPU has no operator in bfloat16.
        x_BCdhw = x[:, :, ::stride, ::stride, ::stride]
        return nn.functional.pad(x_BCdhw, (0, 0, 0, 0, 0, 0, 0, planes - x_BCdhw.shape[1]))

    def forward(self, crops_B1DHW: Tensor) -> Tensor:
        """The feature map."""
        x_BCdhw: Tensor = self.maxpool(self.act(self.bn1(self.conv1(crops_B1DHW))))
        for layer in (self.layer1, self.layer2, self.layer3, self.layer4):
            x_BCdhw = layer(x_BCdhw)
        return x_BCdhw
