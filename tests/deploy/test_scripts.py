"""The scripts for operators, on made-up machines: each failure says what is missing and how to mend it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

_DEPLOY = Path(__file__).parents[2] / "deploy"
_CHECK = _DEPLOY / "jetson" / "check.sh"
_INSTALL = _DEPLOY / "wheelhouse" / "install.sh"
pytestmark = [
    pytest.mark.skipif(not _CHECK.is_file(), reason="needs the whole repository"),
    pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash"),
]
_PYTHON = f"{sys.version_info[0]}.{sys.version_info[1]}"


def ran(script: Path, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", str(script), *arguments],
        capture_output=True,
        text=True,
        env={"PATH": os.environ["PATH"], **env},
        timeout=60,
        check=False,
    )


def executable(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


@pytest.fixture
def orin(tmp_path: Path) -> Path:
    """The root directory of a Jetson on which every step was done."""
    files = {
        "etc/nv_tegra_release": "# R36 (release), REVISION: 4.3, GCID: 1, BOARD: generic, EABI: aarch64\n",
        "proc/device-tree/model": "NVIDIA Jetson AGX Orin\0",
        "usr/local/cuda/version.json": '{"cuda": {"version": "12.6.1"}}\n',
        "var/lib/nvpmodel/status": "pmode:0000\n",
        "etc/nvpmodel.conf": "< POWER_MODEL ID=0 NAME=MAXN >\n< POWER_MODEL ID=2 NAME=MODE_30W >\n",
        "sys/devices/system/cpu/cpu0/cpufreq/scaling_min_freq": "2201600\n",
        "sys/devices/system/cpu/cpu0/cpufreq/scaling_max_freq": "2201600\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "usr/lib/python3.10/dist-packages/tensorrt-10.3.0.dist-info").mkdir(parents=True)
    executable(tmp_path / "usr/bin/python3.10", "exit 0")
    executable(tmp_path / "opt/algan-stream", "echo 0.1.0")
    executable(tmp_path / "opt/python", "exit 0")
    return tmp_path


def checked(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return ran(_CHECK, *arguments, ALGAN_ROOT=str(root), ALGAN_BIN=str(root / "opt"))


def test_a_jetson_on_which_all_is_done(orin: Path) -> None:
    said = checked(orin)
    assert said.returncode == 0, said.stdout
    assert "9 steps looked at, 0 need work" in said.stdout
    assert "JetPack 6" in said.stdout
    assert "note" not in said.stdout


def test_a_machine_that_is_no_jetson(tmp_path: Path) -> None:
    said = checked(tmp_path)
    assert said.returncode == 1
    assert "this is no Jetson" in said.stdout


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (
            "etc/nv_tegra_release=# R35 (release), REVISION: 4.1, GCID: 1",
            "flash JetPack 6; until then the CPU image",
        ),
        ("etc/nv_tegra_release=# R32 (release), REVISION: 7.1, GCID: 1", "is too old"),
        ("etc/nv_tegra_release=what?", "does not say which L4T"),
        ("usr/bin/python3.10", "no Python 3.10"),
        ("usr/local/cuda/version.json", "sudo apt install nvidia-jetpack"),
        ("usr/lib/python3.10", "sudo apt install python3-libnvinfer"),
        ("opt/algan-stream", "README.md, step 3"),
        ("opt/python=#!/bin/sh\necho no cuda >&2; exit 1", "pycuda does not work: no cuda"),
        (
            "opt/algan-stream=#!/bin/sh\n[ $1 = --version ]",
            "algan-stream doctor finds what keeps the service",
        ),
    ],
)
def test_each_step_that_was_left_out_is_named_with_its_remedy(orin: Path, spoil: str, expected: str) -> None:
    name, _, text = spoil.partition("=")
    path = orin / name
    if text:
        mode = path.stat().st_mode
        path.write_text(text + "\n")
        path.chmod(mode)
    elif path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
    said = checked(orin, "--line", "line.yaml")
    assert said.returncode == 1, said.stdout
    assert expected in said.stdout


def test_a_jetson_that_saves_power_works_but_is_told(orin: Path) -> None:
    (orin / "var/lib/nvpmodel/status").write_text("pmode:0002\n")
    (orin / "sys/devices/system/cpu/cpu0/cpufreq/scaling_min_freq").write_text("115200\n")
    said = checked(orin)
    assert said.returncode == 0
    assert "sudo nvpmodel -m 0" in said.stdout
    assert "sudo jetson_clocks" in said.stdout


def test_options_that_the_check_does_not_know(orin: Path) -> None:
    assert checked(orin, "--lines").returncode == 64
    assert "expected a file" in checked(orin, "--line").stderr


# ---- wheelhouse --------------------------------------------------------------------------------------


@pytest.fixture
def wheelhouse(tmp_path: Path) -> Path:
    """A wheelhouse without wheels."""
    folder = tmp_path / "wheelhouse"
    folder.mkdir()
    shutil.copy(_INSTALL, folder)
    (folder / "PYTHON").write_text(f"{_PYTHON}\n")
    (folder / "requirements.txt").write_text("")
    subprocess.run("sha256sum requirements.txt > SHA256SUMS", shell=True, cwd=folder, check=True)
    return folder


def installed(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    prefix = folder.parent / "prefix"
    return ran(folder / "install.sh", "--prefix", str(prefix), "--python", sys.executable, *arguments)


def test_another_python_is_refused(wheelhouse: Path) -> None:
    (wheelhouse / "PYTHON").write_text("3.99\n")
    said = installed(wheelhouse)
    assert said.returncode == 1
    assert f"these wheels are for Python 3.99, {sys.executable} is {_PYTHON}" in said.stderr
    assert "install it" in ran(wheelhouse / "install.sh").stderr  # there is no python3.99


def test_a_damaged_file_is_refused(wheelhouse: Path) -> None:
    (wheelhouse / "requirements.txt").write_text("numpy")
    said = installed(wheelhouse)
    assert said.returncode == 1
    assert "copy the folder again" in said.stderr


def test_a_folder_of_something_else_is_not_touched(wheelhouse: Path) -> None:
    prefix = wheelhouse.parent / "prefix"
    prefix.mkdir()
    (prefix / "precious").touch()
    assert "is no Python environment" in installed(wheelhouse).stderr
    assert (prefix / "precious").exists()


def test_what_cannot_be_installed_leaves_the_old_one(wheelhouse: Path) -> None:
    prefix = wheelhouse.parent / "prefix"
    prefix.mkdir()
    (prefix / "pyvenv.cfg").touch()
    (prefix / "old").touch()
    python = wheelhouse.parent / "python"
    executable(python, f'[ "$1" = -c ] && exec {sys.executable} "$@"\nexit 1')  # makes no environments
    said = installed(wheelhouse, "--python", str(python))
    assert said.returncode == 1
    assert "-venv" in said.stderr
    assert "nothing was changed" in said.stderr
    assert (prefix / "old").exists()
    assert not (wheelhouse.parent / "prefix.old").exists()


def test_options_that_the_installer_does_not_know(wheelhouse: Path) -> None:
    assert "expected --prefix FOLDER" in ran(wheelhouse / "install.sh", "--root").stderr
    assert "expected a value" in ran(wheelhouse / "install.sh", "--prefix").stderr


def test_half_a_target_is_refused() -> None:
    said = ran(_DEPLOY / "wheelhouse" / "build.sh", sys.executable, TARGET_PYTHON="3.10")
    assert said.returncode == 1
    assert "expected TARGET_PYTHON, TARGET_PLATFORMS and WHEEL" in said.stderr
