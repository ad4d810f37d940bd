"""What would break far away from its cause: hidden modules, mismatched libraries, unpinned downloads."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def python(code: str) -> str:
    """What a fresh interpreter, started in the repository's root as `python -c` would be, prints."""
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert run.returncode == 0, run.stderr
    return run.stdout.strip()


def test_the_room_called_platform_does_not_hide_the_standard_librarys() -> None:
    found = python("import platform; print(platform.__file__); platform.python_version()")
    assert not Path(found).is_relative_to(ROOT / "platform")


@pytest.mark.parametrize("first", ["lxml.etree, xmlsec", "xmlsec, lxml.etree"])
def test_xmlsec_and_lxml_agree_about_libxml2(first: str) -> None:
    # Builds that disagree crash or refuse each other's trees, at import or at the first signature.
    python(
        f"import {first}\n"
        "tree = lxml.etree.fromstring('<a ID=\"x\"/>')\n"
        "xmlsec.template.create(tree, xmlsec.Transform.EXCL_C14N, xmlsec.Transform.RSA_SHA256)\n"
    )


@pytest.mark.parametrize("name", ["requirements.lock", "requirements-dev.lock"])
def test_lock_files_hold_hashes_and_no_address(name: str) -> None:
    requirement = re.compile(r"[a-z0-9][a-z0-9._-]*(\[[a-z0-9,-]+\])?==\S+( ; [^\\]+)? \\")
    digest = re.compile(r"    --hash=sha256:[0-9a-f]{64}( \\)?")
    lines = [
        line for line in (ROOT / name).read_text().splitlines() if line and not line.lstrip().startswith("#")
    ]
    assert len(lines) > 100
    pinned = False  # whether the line before left a requirement open
    for line in lines:
        if pinned:
            assert digest.fullmatch(line), line
        else:
            assert requirement.fullmatch(line), line
        pinned = line.endswith("\\")
    assert not pinned


def test_the_lock_for_development_repeats_the_products() -> None:
    pins = [
        set(re.findall(r"^([a-z0-9._-]+==[^ \n]+)", (ROOT / name).read_text(), re.M))
        for name in ("requirements.lock", "requirements-dev.lock")
    ]
    assert pins[0] <= pins[1]


def test_no_file_names_somebodys_home() -> None:
    listed = subprocess.run(
        ["git", "-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    if listed.returncode:
        pytest.skip("not a git checkout")
    home = re.compile(rb"(?<![\w.:/-])/(?:home|root|Users)/[\w.]+")
    found = [
        name.decode()
        for name in set(listed.stdout.split(b"\0")) - {b""}
        if (ROOT / name.decode()).is_file() and home.search((ROOT / name.decode()).read_bytes())
    ]
    assert found == []
