"""The original trainer's model, written plainly after its layers, with small random weights: what `convert` must equal.

The module names are the ones in its checkpoints, so a state dict of `Original` is such a checkpoint. Nothing here is
shared with the package: the ResNet is written out in timm's names, and the fusion panel by panel.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

SPOKEN = "a cat dog runs in the forest red house jumps over where is he now they were here ! ? . , ' line"
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *SPOKEN.split()]
SIDE = 32  # pixels that the small SigLIP takes


class Bottleneck(nn.Module):
    def __init__(self, inside: int, middle: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(inside, middle, 1, bias=False), nn.BatchNorm2d(middle)
        self.conv2, self.bn2 = nn.Conv2d(middle, middle, 3, stride, 1, bias=False), nn.BatchNorm2d(middle)
        self.conv3, self.bn3 = nn.Conv2d(middle, 4 * middle, 1, bias=False), nn.BatchNorm2d(4 * middle)
        if stride > 1 or inside != 4 * middle:
            self.downsample = nn.Sequential(
                nn.Conv2d(inside, 4 * middle, 1, stride, bias=False), nn.BatchNorm2d(4 * middle)
            )

    def forward(self, x: Tensor) -> Tensor:
        same = self.downsample(x) if hasattr(self, "downsample") else x
        y = self.bn1(self.conv1(x)).relu()
        y = self.bn2(self.conv2(y)).relu()
        return (self.bn3(self.conv3(y)) + same).relu()


class ResNet(nn.Module):
    """As timm names it; pooled."""

    def __init__(self, width: int = 4, depths: tuple[int, ...] = (1, 2, 1, 1)) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, width, 7, 2, 3, bias=False), nn.BatchNorm2d(width)
        inside = width
        for i, depth in enumerate(depths):
            middle, blocks = width * 2**i, []
            for j in range(depth):
                blocks.append(Bottleneck(inside, middle, 2 if i and not j else 1))
                inside = 4 * middle
            setattr(self, f"layer{i + 1}", nn.Sequential(*blocks))
        self.size = inside

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.max_pool2d(self.bn1(self.conv1(x)).relu(), 3, 2, 1)
        return self.layer4(self.layer3(self.layer2(self.layer1(x)))).mean(dim=(2, 3))


def siglip() -> nn.Module:
    import transformers as hf

    sizes = {"hidden_size": 24, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
    return hf.SiglipVisionModel(hf.SiglipVisionConfig(**sizes, image_size=SIDE, patch_size=8))


def bert() -> nn.Module:
    import transformers as hf

    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    return hf.BertModel(hf.BertConfig(**sizes, vocab_size=len(WORDS), max_position_embeddings=64))


class OneBackbone(nn.Module):
    def __init__(self, kind: str, d: int) -> None:
        super().__init__()
        backbone = siglip() if kind == "siglip" else ResNet()
        size = 24 if kind == "siglip" else backbone.size
        setattr(self, kind, backbone)
        self.kind = kind
        self.adaptation = nn.Sequential(
            nn.Linear(size, size // 2), nn.LayerNorm(size // 2), nn.GELU(), nn.Dropout(0.1),
            nn.Linear(size // 2, d), nn.LayerNorm(d),
        )  # fmt: skip

    def feature(self, pixels: Tensor) -> Tensor:
        if self.kind == "siglip":
            return self.siglip(pixel_values=pixels).pooler_output
        return self.resnet(pixels)

    def mixed(self, feature: Tensor) -> Tensor:
        return self.adaptation(feature)


class TwoBackbones(nn.Module):
    def __init__(self, fusion: str, d: int) -> None:
        super().__init__()
        self.siglip, self.resnet = OneBackbone("siglip", d), OneBackbone("resnet", d)
        if fusion == "attention":
            self.attention = nn.Sequential(nn.Linear(2 * d, 2), nn.Softmax(dim=-1))
        elif fusion == "gate":
            self.gate = nn.Sequential(nn.Linear(2 * d, d), nn.GELU(), nn.Linear(d, 2), nn.Softmax(dim=-1))

    def feature(self, pixels: Tensor) -> Tensor:
        return torch.cat([self.siglip.feature(pixels), self.resnet.feature(pixels)], dim=1)

    def mixed(self, feature: Tensor) -> Tensor:
        a, b = self.siglip.mixed(feature[:, :24]), self.resnet.mixed(feature[:, 24:])
        w = (self.attention if hasattr(self, "attention") else self.gate)(torch.cat([a, b], dim=1))
        return w[:, :1] * a + w[:, 1:] * b


class TextPart(nn.Module):
    def __init__(self, d: int) -> None:
        super().__init__()
        self.encoder, self.proj = bert(), nn.Linear(16, d)

    def feature(self, text: str) -> Tensor:
        """(16,) mean over the tokens of one text, which is cut to 128."""
        ids = [2, *[WORDS.index(w) if w in WORDS else 1 for w in text.lower().split()][:126], 3]
        return self.encoder(input_ids=torch.tensor([ids])).last_hidden_state[0].mean(dim=0)


class LayoutPart(nn.Module):
    def __init__(self, d: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(7, 256), nn.BatchNorm1d(256), nn.ReLU(), nn.Dropout(0.1),
            nn.Linear(256, 256), nn.BatchNorm1d(256), nn.ReLU(), nn.Dropout(0.1), nn.Linear(256, d),
        )  # fmt: skip


class Fusion(nn.Module):
    def __init__(self, d: int, indicators: bool) -> None:
        super().__init__()
        self.norm_vision, self.norm_text, self.norm_comp = nn.LayerNorm(d), nn.LayerNorm(d), nn.LayerNorm(d)
        self.gate = nn.Sequential(nn.Linear(3 * d + 3 * indicators, d), nn.GELU(), nn.Linear(d, 3))
        self.residual_weight = nn.Parameter(torch.tensor(0.5))
        self.indicators = indicators

    def one(self, parts: list[Tensor], mask: Tensor) -> Tensor:
        """(D,) of one panel: three (D,) parts, whatever is absent encoded too, and (3,) flags."""
        n = [norm(p) for norm, p in zip((self.norm_vision, self.norm_text, self.norm_comp), parts, strict=True)]
        logits = self.gate(torch.cat([*n, mask] if self.indicators else n)) + (1 - mask) * -1e4
        g = logits.softmax(dim=0)
        return g[0] * n[0] + g[1] * n[1] + g[2] * n[2] + self.residual_weight * (n[0] + n[1] + n[2]) / 3


class Original(nn.Module):
    """The whole model, in eval mode, every weight random: a bias of 0 or a statistic of 1 would hide a mistake."""

    def __init__(self, backbone: str, fusion: str = "attention", *, indicators: bool = True, d: int = 32) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(d + len(backbone) + len(fusion))
            self.vision = TwoBackbones(fusion, d) if backbone == "both" else OneBackbone(backbone, d)
            self.text, self.comp, self.fusion = TextPart(d), LayoutPart(d), Fusion(d, indicators)
            for module in self.modules():
                if isinstance(module, nn.LayerNorm | nn.BatchNorm1d | nn.BatchNorm2d):
                    nn.init.normal_(module.weight, 1, 0.3)
                    nn.init.normal_(module.bias, 0, 0.3)
                if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                    nn.init.normal_(module.running_mean, 0, 0.3)
                    nn.init.uniform_(module.running_var, 0.3, 2)
                    module.num_batches_tracked.fill_(17)
            nn.init.normal_(self.fusion.residual_weight, 0.4, 0.1)
        self.eval()

    @torch.inference_mode()
    def panel(self, pixels: Tensor | None, text: str, layout: Tensor | None) -> dict[str, Tensor]:
        """Every embedding (D,) of one panel: fused, image, text and layout; what is None or "" is absent."""
        mask = torch.tensor([float(pixels is not None), float(bool(text)), float(layout is not None)])
        pixels = torch.zeros(3, SIDE, SIDE) if pixels is None else pixels
        layout = torch.zeros(7) if layout is None else layout
        image = self.vision.mixed(self.vision.feature(pixels[None]))[0]
        words = self.text.proj(self.text.feature(text))
        place = self.comp.mlp(layout[None])[0]
        fused = self.fusion.one([image, words, place], mask)
        return {"fused": fused, "image": image, "text": words, "layout": place}

    def weights(self, *, transformers4: bool = False) -> dict[str, Tensor]:
        """What the trainer saved; transformers 4 names the SigLIP's tensors with one segment more."""
        out = {}
        for name, tensor in self.state_dict().items():
            for prefix in ("vision.siglip.siglip.", "vision.siglip."):
                rest = name.removeprefix(prefix)
                if transformers4 and rest != name and not rest.startswith(("adaptation.", "siglip.")):
                    name = f"{prefix}vision_model.{rest}"
                    break
            out[name] = tensor.clone()
        return out

    def save(self, path: Path, *, whole: bool = False, transformers4: bool = False) -> Path:
        """A `best_model.pt`, or the dict that the trainer saved at every epoch."""
        weights = self.weights(transformers4=transformers4)
        moments = {"state": {0: {"step": torch.tensor(3.0), "exp_avg": torch.zeros(5)}}, "param_groups": [{"lr": 1e-4}]}
        numbers = {"epoch": 3, "batch": 40, "train_loss": 1.5, "val_loss": 1.25, "best_val_loss": 1.25}
        states = {
            "model_state_dict": weights,
            "optimizer_state_dict": moments,
            "scheduler_state_dict": {"last_epoch": 3},
        }
        torch.save({**numbers, **states} if whole else weights, path)
        return path


def tokenizer(folder: Path) -> Path:
    """A folder with a tokenizer of `WORDS`."""
    import transformers as hf

    folder.mkdir(parents=True, exist_ok=True)
    hf.BertTokenizer(vocab={w: i for i, w in enumerate(WORDS)}).save_pretrained(folder)
    return folder
