"""Archives of the same bytes on every machine.

pack.py archive FOLDER OUT.tar.gz          a folder, under its own name
pack.py rootfs BINARY LICENCES OUT.tar     the root of the image: the binary, its licences, a user, empty folders for volumes
pack.py image ROOTFS.tar CONTAINERFILE VERSION OUT.tar
                                           that root as an OCI image in an archive, with what the Containerfile says of it
pack.py sums FOLDER                        SHA256SUMS of its files

Times are SOURCE_DATE_EPOCH. Standard library alone.
"""

import datetime
import gzip
import hashlib
import io
import json
import os
import shlex
import sys
import tarfile
from pathlib import Path

EPOCH = int(os.environ["SOURCE_DATE_EPOCH"])
USER = 10001


def entry(name: str, *, folder: bool = False, mode: int = 0o644, user: int = 0) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type = tarfile.DIRTYPE if folder else tarfile.REGTYPE
    info.mode, info.mtime, info.uid, info.gid = mode, EPOCH, user, user
    return info


def add(tar: tarfile.TarFile, info: tarfile.TarInfo, data: bytes) -> None:
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))


def compressed(data: bytes) -> bytes:
    return gzip.compress(data, compresslevel=9, mtime=0)


def archive(folder: str, out: str) -> None:
    top = Path(folder)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for path in [top, *sorted(top.rglob("*"))]:
            name = path.relative_to(top.parent).as_posix()
            if path.is_dir():
                tar.addfile(entry(name, folder=True, mode=0o755))
            else:
                add(tar, entry(name, mode=0o755 if path.stem == "melo" and path.suffix in ("", ".exe") else 0o644), path.read_bytes())
    Path(out).write_bytes(compressed(buffer.getvalue()))


def rootfs(binary: str, licences: str, out: str) -> None:
    folders = ["etc", "usr", "usr/bin", "usr/share", "usr/share/doc", "usr/share/doc/melo-vit", "var", "var/lib", "models", "plugins"]
    with tarfile.open(out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name in folders:
            tar.addfile(entry(name, folder=True, mode=0o755))
        tar.addfile(entry("var/lib/melo", folder=True, mode=0o750, user=USER))
        tar.addfile(entry("tmp", folder=True, mode=0o1777))
        add(tar, entry("etc/passwd"), f"melo:x:{USER}:{USER}::/var/lib/melo:/nonexistent\n".encode())
        add(tar, entry("etc/group"), f"melo:x:{USER}:\n".encode())
        add(tar, entry("usr/bin/melo", mode=0o755), Path(binary).read_bytes())
        add(tar, entry("usr/share/doc/melo-vit/LICENSES"), Path(licences).read_bytes())


def instructions(containerfile: str) -> dict:
    """What a Containerfile says of running the image, as the configuration of one; of the forms that ours uses."""
    config: dict = {"Env": [], "Labels": {}}
    text = Path(containerfile).read_text().replace("\\\n", " ")
    for line in text.splitlines():
        word, _, rest = line.partition(" ")
        match word:
            case "" | "#" | "FROM" | "ADD":
                pass
            case "ENV":
                config["Env"] += shlex.split(rest)
            case "LABEL":
                config["Labels"] |= dict(item.split("=", 1) for item in shlex.split(rest))
            case "USER":
                config["User"] = rest
            case "WORKDIR":
                config["WorkingDir"] = rest
            case "EXPOSE":
                config["ExposedPorts"] = {f"{port}/tcp": {} for port in rest.split()}
            case "VOLUME":
                config["Volumes"] = {path: {} for path in json.loads(rest)}
            case "HEALTHCHECK":
                options, _, command = rest.partition(" CMD ")
                names = {"--interval": "Interval", "--timeout": "Timeout", "--start-period": "StartPeriod"}
                said = (option.split("=") for option in options.split())
                times = {names[name]: int(value.removesuffix("s")) * 10**9 for name, value in said}
                config["Healthcheck"] = {"Test": ["CMD", *json.loads(command)], **times}
            case "ENTRYPOINT":
                config["Entrypoint"] = json.loads(rest)
            case "CMD":
                config["Cmd"] = json.loads(rest)
            case _:
                sys.exit(f"{containerfile}: {word} is not understood here")
    return config


def image(root: str, containerfile: str, version: str, out: str) -> None:
    blobs: dict[str, bytes] = {}

    def blob(kind: str, data: bytes) -> dict:
        digest = hashlib.sha256(data).hexdigest()
        blobs[digest] = data
        return {"mediaType": f"application/vnd.oci.image.{kind}", "digest": f"sha256:{digest}", "size": len(data)}

    layer = Path(root).read_bytes()
    made = datetime.datetime.fromtimestamp(EPOCH, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    config = instructions(containerfile)
    config["Labels"]["org.opencontainers.image.version"] = version
    described = {
        "created": made, "architecture": "amd64", "os": "linux", "config": config,
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
        "history": [{"created": made, "created_by": "melo-vit tools/release"}],
    }
    manifest = blob("manifest.v1+json", json.dumps({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": blob("config.v1+json", json.dumps(described).encode()),
        "layers": [blob("layer.v1.tar+gzip", compressed(layer))],
    }).encode())
    # The second is what podman and docker call it when they load it.
    manifest["annotations"] = {"org.opencontainers.image.ref.name": version, "io.containerd.image.name": f"localhost/melo-vit:{version}"}
    index = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [manifest]}
    with tarfile.open(out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        add(tar, entry("oci-layout"), b'{"imageLayoutVersion": "1.0.0"}')
        add(tar, entry("index.json"), json.dumps(index).encode())
        for digest, data in sorted(blobs.items()):
            add(tar, entry(f"blobs/sha256/{digest}"), data)


def sums(folder: str) -> None:
    files = sorted(path for path in Path(folder).iterdir() if path.is_file())
    told = "".join(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in files)
    (Path(folder) / "SHA256SUMS").write_text(told)
    print(told, end="")


if __name__ == "__main__":
    {"archive": archive, "rootfs": rootfs, "image": image, "sums": sums}[sys.argv[1]](*sys.argv[2:])
