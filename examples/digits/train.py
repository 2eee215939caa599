"""Train the digits example model and write the files that go with it.

A small convolutional network learns four fifths of scikit-learn's bundled 8x8 scans of handwritten digits. The rest
are held out, and give the accuracy printed here and the ten example images. Seeded; downloads no data. To run it:

    pip install torch scikit-learn onnx onnxruntime pillow
    python examples/digits/train.py

It writes `1/model.onnx` and `labels.txt` under `examples/models/digits/`, and one PNG per class next to this file. The
model takes `image`, FP32 [batch, 1, 8, 8], pixel values 0..255, and gives `probabilities`, FP32 [batch, 10].
"""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort  # type: ignore[import-untyped]
import torch
from PIL import Image
from sklearn.datasets import load_digits  # type: ignore[import-untyped]
from sklearn.model_selection import train_test_split  # type: ignore[import-untyped]
from torch import nn

HERE = Path(__file__).resolve().parent
MODEL_DIR = HERE.parent / "models" / "digits"
MODEL_PATH = MODEL_DIR / "1" / "model.onnx"
LABELS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")

SEED = 0
EPOCHS = 100
BATCH_SIZE = 64
LEARNING_RATE = 2e-3
TOLERANCE = 1e-5  # on probabilities

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]


class PixelsToUnit(nn.Module):
    """Maps pixel values 0..255 to 0..1, so that clients send plain 8-bit pixels."""

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return pixels / 255.0


def build_network() -> nn.Sequential:
    """From pixels to one logit per class; Softmax is added at export."""
    layers = [PixelsToUnit(), nn.Conv2d(1, 20, 3, padding=1), nn.ReLU(), nn.Conv2d(20, 40, 3, padding=1), nn.ReLU()]
    layers += [nn.MaxPool2d(2), nn.Conv2d(40, 40, 3, padding=1), nn.ReLU()]
    layers += [nn.Flatten(), nn.Dropout(0.3), nn.Linear(40 * 4 * 4, len(LABELS))]
    return nn.Sequential(*layers)


def load_split() -> tuple[Floats, Floats, Ints, Ints]:
    """Train images, test images, train classes, test classes; the data's 0..16 becomes 8-bit pixels 0..255."""
    digits = load_digits()
    pixels = np.rint(digits.images * 255 / 16).astype(np.float32)[:, np.newaxis]
    classes = digits.target.astype(np.int64)
    split = train_test_split(pixels, classes, test_size=0.2, random_state=SEED, stratify=classes)
    return split[0], split[1], split[2], split[3]


def distort(images: torch.Tensor) -> torch.Tensor:
    """Stretches, slants and moves each image a little, at random, so that the network sees more than it was given."""
    transforms = torch.eye(2, 3) + 0.1 * torch.randn(len(images), 2, 3)
    grid = nn.functional.affine_grid(transforms, list(images.shape), align_corners=False)
    return nn.functional.grid_sample(images, grid, align_corners=False)


def train(images: Floats, classes: Ints) -> nn.Sequential:
    torch.manual_seed(SEED)
    torch.set_num_threads(1)  # the order of additions, and so the weights, could depend on the number of threads
    torch.use_deterministic_algorithms(True)
    inputs, targets = torch.from_numpy(images), torch.from_numpy(classes)
    network = build_network()
    optimizer = torch.optim.AdamW(network.parameters(), lr=LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS)
    for _ in range(EPOCHS):
        order = torch.randperm(len(inputs))
        for start in range(0, len(order), BATCH_SIZE):
            rows = order[start : start + BATCH_SIZE]
            loss = nn.functional.cross_entropy(network(distort(inputs[rows])), targets[rows])
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
        schedule.step()
    return network.eval()


def export(network: nn.Sequential) -> None:
    MODEL_PATH.parent.mkdir(parents=True, exist_ok=True)
    torch.onnx.export(
        nn.Sequential(*network, nn.Softmax(dim=1)).eval(),
        (torch.zeros(1, 1, 8, 8),),
        MODEL_PATH,
        input_names=["image"],
        output_names=["probabilities"],
        dynamic_axes={"image": {0: "batch"}, "probabilities": {0: "batch"}},
        opset_version=17,
        dynamo=False,  # this exporter writes ir_version 8, which old runtimes read, and needs no further package
    )
    onnx.checker.check_model(onnx.load(MODEL_PATH), full_check=True)


def classify(session: ort.InferenceSession, images: Floats) -> Floats:
    return np.asarray(session.run(["probabilities"], {"image": images})[0], dtype=np.float32)


def write_examples(images: Floats, classes: Ints) -> Floats:
    """Writes the first held-out scan of each class, whatever the model makes of it, and returns the files' pixels."""
    stored = []
    for number, label in enumerate(LABELS):
        path = HERE / f"{label}.png"
        Image.fromarray(images[classes == number][0, 0].astype(np.uint8)).save(path)
        stored.append(np.asarray(Image.open(path), dtype=np.float32)[np.newaxis])
    return np.stack(stored)


def check(holds: bool, claim: str) -> None:
    if not holds:
        raise SystemExit(f"failed: {claim}")
    print(f"checked: {claim}")


def main() -> None:
    train_images, test_images, train_classes, test_classes = load_split()
    network = train(train_images, train_classes)
    with torch.no_grad():
        in_torch = network(torch.from_numpy(test_images)).softmax(dim=1).numpy()
    correct = int((in_torch.argmax(axis=1) == test_classes).sum())
    print(f"held-out accuracy: {correct}/{len(test_classes)} = {correct / len(test_classes):.2%}")

    export(network)
    (MODEL_DIR / "labels.txt").write_text("\n".join(LABELS) + "\n", encoding="utf-8")
    print(f"model.onnx: {MODEL_PATH.stat().st_size} bytes")
    session = ort.InferenceSession(MODEL_PATH, providers=["CPUExecutionProvider"])
    together = classify(session, test_images)
    alone = np.concatenate([classify(session, row[np.newaxis]) for row in test_images])
    spread, drift = float(abs(together - alone).max()), float(abs(together - in_torch).max())
    check(spread < TOLERANCE, f"rows alone and together give the same probabilities (within {spread:.1e})")
    check(drift < TOLERANCE, f"ONNX Runtime and torch give the same probabilities (within {drift:.1e})")
    check(int((together.argmax(axis=1) == test_classes).sum()) == correct, "ONNX Runtime has the same accuracy")
    examples = classify(session, write_examples(test_images, test_classes))
    check(examples.argmax(axis=1).tolist() == list(range(len(LABELS))), "all ten PNGs are classified right")


if __name__ == "__main__":
    main()
