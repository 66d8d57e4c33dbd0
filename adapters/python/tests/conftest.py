"""The bundled model, and a quantized one made of it once."""

from __future__ import annotations

from pathlib import Path

import pytest

import dualgrain

REPOSITORY = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="session")
def model() -> Path:
    """The bundled model in floats."""
    return REPOSITORY / "models" / "llama-tiny"


@pytest.fixture(scope="session")
def quantized(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same in four bits, quickly: no calibration is looked at."""
    out = tmp_path_factory.mktemp("models") / "llama-tiny-w4a8"
    dualgrain.Quantizer(model, out, method="rtn", windows=2, window_tokens=128).run()
    return out


@pytest.fixture(scope="session")
def engine(quantized: Path) -> dualgrain.Engine:
    """The quantized model, loaded."""
    return dualgrain.Engine(quantized, device="cpu")
