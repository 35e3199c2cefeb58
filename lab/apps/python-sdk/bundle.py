"""Lays this program out as a folder that needs nothing else: the Python that runs this script with its
standard library, the shared libraries all of it is linked with, the packages of requirements.txt, and the
program. Run as: python3 bundle.py FOLDER. What it is needed for: images that are made without a container
engine. The folder is the root of a file system; the program is started there as

    PYTHONHOME=/python PYTHONPATH=/app/packages LD_LIBRARY_PATH=/python/shared /python/bin/python3 /app/main.py
"""

import compileall
import os
import py_compile
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

HERE = Path(__file__).resolve().parent
PROGRAM = ("main.py", "telemetry.py")
# Of the standard library, what a server does not use: together more than all the rest.
LEFT_OUT = shutil.ignore_patterns(
    "test", "tests", "idlelib", "tkinter", "turtledemo", "lib2to3", "ensurepip", "pydoc_data", "distutils",
    "site-packages", "dist-packages", "__pycache__", "config-*", "*.a", "*.exe",
    "_test*.so", "_ctypes_test*.so", "_xx*.so", "xx*.so", "_tkinter*.so", "_curses*.so", "readline*.so",
    "_dbm*.so", "_gdbm*.so", "_sqlite3*.so", "nis*.so", "ossaudiodev*.so",
)  # fmt: skip


def main():
    root = Path(sys.argv[1]).resolve()
    home = root / "python"
    library = home / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}"
    packages = root / "app" / "packages"
    sources = [Path(sys.executable).resolve(), *extensions(Path(sysconfig.get_path("stdlib")))]
    copy(sources[0], home / "bin" / "python3")
    shutil.copytree(sysconfig.get_path("stdlib"), library, ignore=LEFT_OUT)
    install(packages)
    for name in PROGRAM:
        copy(HERE / name, root / "app" / name)
    for name, path in linked(sources + extensions(packages)).items():
        # The program's own loader is asked for by its whole path; all others by name.
        copy(path, root / name[1:] if name.startswith("/") else home / "shared" / name)
    strip_symbols(home / "shared")
    # Without these every start would compile anew what it imports: the image is read-only.
    unchecked = py_compile.PycInvalidationMode.UNCHECKED_HASH
    for folder in (library, root / "app"):
        strip = {"stripdir": str(root), "prependdir": "/"}
        compileall.compile_dir(folder, quiet=2, workers=2, invalidation_mode=unchecked, **strip)


def install(packages):
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    command += ["--require-hashes", "--only-binary=:all:", "--no-compile", "--root-user-action=ignore"]
    command += ["--requirement", HERE / "requirements.txt", "--target", packages]
    subprocess.run(command, check=True)
    # Only for those who install these packages once more.
    shutil.rmtree(packages / "bin", ignore_errors=True)


def extensions(folder):
    """Every shared object in a folder that is not left out."""
    found = []
    for place, folders, files in os.walk(folder):
        skipped = LEFT_OUT(place, folders + files)
        folders[:] = [name for name in folders if name not in skipped]
        found += [Path(place, name) for name in files if name.endswith(".so") and name not in skipped]
    return found


def linked(objects):
    """The shared libraries that these are linked with, by the name they ask for."""
    output = subprocess.run(["ldd", *objects], check=False, capture_output=True, text=True).stdout
    libraries = dict(re.findall(r"^\s+(\S+) => (/\S+) \(0x", output, re.MULTILINE))
    libraries |= {path: path for path in re.findall(r"^\s+(/\S+) \(0x", output, re.MULTILINE)}
    missing = set(re.findall(r"^\s+(\S+) => not found", output, re.MULTILINE))
    if missing:
        sys.exit(f"libraries that Python needs are not on this machine: {', '.join(sorted(missing))}")
    return {name: Path(path).resolve() for name, path in libraries.items()}


def strip_symbols(folder):
    """Of a Python that was built from source, most of its library."""
    if strip := shutil.which("strip"):
        subprocess.run([strip, "--strip-debug", *folder.iterdir()], check=True)


def copy(source, target):
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    target.chmod(0o755)


if __name__ == "__main__":
    main()
