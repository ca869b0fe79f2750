"""A release in the hands of those who get it: see check.sh."""

import hashlib
import json
import os
import shlex
import shutil
import statistics
import subprocess
import sys
import tarfile
import time
import zlib
from contextlib import contextmanager
from pathlib import Path

dist, place, new, old = map(Path, sys.argv[1:])
LARGEST = 40_000_000
LONGEST_START_S = 0.050
USER = 10001
READ_ONLY = "mount --bind {0} {0} && mount -o remount,bind,ro {0} && for d in var/lib/melo tmp; do mount -t tmpfs -o uid=10001,mode=700 none {0}/$d; done"
failed = False


def claim(name: str, holds: bool, detail: object = "") -> None:
    global failed
    failed |= not holds
    print(f"release: {'PASS' if holds else 'FAIL'}  {name}{': ' if detail != '' else ''}{detail}", flush=True)


def output(*command: object) -> str:
    return subprocess.run([str(word) for word in command], check=True, capture_output=True, text=True).stdout


def inside(root: Path, *command: object, user: int = 0, mounts: str = "true", **variables: str) -> list[str]:
    """The command in a folder that is its root, without a network but its own loopback, and without this process's variables."""
    named = [f"{name}={value}" for name, value in ({"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"} | variables).items()]
    words = ["env", "-i", *named, shutil.which("chroot"), f"--userspec={user}:{user}", root, *command]
    script = f"{mounts.format(root)} && ip link set lo up && exec {' '.join(shlex.quote(str(word)) for word in words)}"
    return ["unshare", "--net", "--mount", "sh", "-c", script]


def run(*arguments: object, **more: object) -> subprocess.CompletedProcess:
    return subprocess.run(inside(*arguments, **more), capture_output=True, text=True, stdin=subprocess.DEVNULL)


@contextmanager
def serving(*arguments: object, **more: object):
    """A server within, and a way to ask it from the same network."""
    with open(place / "serve.log", "w+") as log:
        server = subprocess.Popen(inside(*arguments, **more), stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        network = ["nsenter", f"--net=/proc/{server.pid}/ns/net", "curl", "--silent", "--max-time", "60", "--write-out", "\n%{http_code}"]

        def ask(path: str, *flags: object) -> tuple[str, str]:
            told = subprocess.run([*network, *map(str, flags), f"http://127.0.0.1:8080{path}"], capture_output=True, text=True).stdout
            body, _, status = told.rpartition("\n")
            return status, body

        try:
            until = time.monotonic() + 60
            while ask("/readyz")[0] != "200":
                if server.poll() is not None or time.monotonic() > until:
                    log.seek(0)
                    sys.exit(f"no server: {log.read()}")
                time.sleep(0.1)
            yield ask, server.pid
        finally:
            server.terminate()
            server.wait(30)


def check_server(name: str, image: Path, *arguments: object, **more: object) -> None:
    """Ready, with its page, and answering: an image of the quickstart asked of all tasks."""
    with serving(*arguments, **more) as (ask, pid):
        status, page = ask("/")
        claim(f"{name}: the page", status == "200" and "<title>" in page, f"{status}, {len(page)} bytes")
        status, answer = ask("/v1/predict", "-F", f"image=@{image}", "-F", "tasks=all")
        tasks = [told["task"] for told in json.loads(answer)["images"][0]["answers"]] if status == "200" else []
        claim(f"{name}: an answer", len(tasks) == 4, f"{status}, {', '.join(tasks)}")
        probe = subprocess.run(["nsenter", f"--net=/proc/{pid}/ns/net", place / "melo", "serve", "--probe"], env={})
        claim(f"{name}: --probe says that it is ready", probe.returncode == 0)


def check_binary(melo: Path) -> None:
    headers = output("readelf", "--program-headers", "--dynamic", melo)
    claim("static: no interpreter, no libraries", "INTERP" not in headers and "NEEDED" not in headers)
    size = melo.stat().st_size
    claim(f"at most {LARGEST // 10**6} MB", size <= LARGEST, f"{size / 1e6:.1f} MB")
    times = []
    for _ in range(20):
        begun = time.perf_counter()
        output(melo, "--version")
        times.append(time.perf_counter() - begun)
    median = statistics.median(times)
    claim(f"starts in {LONGEST_START_S * 1000:.0f} ms", median < LONGEST_START_S, f"median of 20 {median * 1000:.1f} ms")
    data = melo.read_bytes()
    found = [folder for folder in (str(Path.cwd()), str(Path.home()), "/.cargo/registry") if folder.encode() in data]
    claim("no folder of this machine in it", not found, ", ".join(found))


def check_lists(melo: Path, bill: Path) -> None:
    for line in (dist / "SHA256SUMS").read_text().splitlines():
        digest, name = line.split()
        claim(f"checksum of {name}", hashlib.sha256((dist / name).read_bytes()).hexdigest() == digest)
    document = json.loads(bill.read_text())
    listed = {component["bom-ref"] for component in document["components"]}
    known = listed | {document["metadata"]["component"]["bom-ref"]}
    whole = all({told["ref"], *told["dependsOn"]} <= known for told in document["dependencies"])
    claim("CycloneDX: every crate of the graph is listed", document["bomFormat"] == "CycloneDX" and whole, f"{len(listed)} crates")
    digest = hashlib.sha256(melo.read_bytes()).hexdigest()
    claim("CycloneDX: it is of this binary", document["metadata"]["component"]["hashes"][0]["content"] == digest)
    section = place / "auditable"
    subprocess.run(["objcopy", "--dump-section", f".dep-v0={section}", melo, "/dev/null"], capture_output=True)
    if not section.exists():
        print("release: not checked: no list of crates in the binary, which was built without cargo-auditable")
        return
    audited = {f"pkg:cargo/{p['name']}@{p['version']}" for p in json.loads(zlib.decompress(section.read_bytes()))["packages"] if p.get("kind") != "build"}
    claim("cargo-auditable: the binary's own list holds them all", listed <= audited, ", ".join(sorted(listed - audited)) or len(audited))


def check_empty(melo: Path) -> Path:
    root = place / "empty"
    (root / "srv").mkdir(parents=True)
    os.chown(root / "srv", USER, USER)
    shutil.copy(melo, root / "melo")
    begun = time.monotonic()
    done = run(root, "/melo", "quickstart", "/srv/quickstart", user=USER)
    seconds = time.monotonic() - begun
    claim("empty folder, no network, not root: quickstart", done.returncode == 0, done.stderr[-200:] if done.returncode else f"{seconds:.0f} s")
    image = next((root / "srv/quickstart").rglob("*.png"))
    check_server("empty folder", image, root, "/melo", "serve", "--state", "/srv/state", user=USER)
    return image


def check_old(melo: Path, image: Path) -> None:
    root = place / "old"
    output("cp", "--archive", old, root)
    shutil.copy(melo, root / "usr/bin/melo")
    libc = output("chroot", root, "dpkg-query", "--show", "--showformat=${Version}", "libc6")
    check_server(f"Debian with glibc {libc}", image, root, "melo", "serve", "--state", "/tmp/state", user=USER)


def check_package(package: Path, image: Path) -> None:
    root = place / "new"
    output("cp", "--archive", new, root)
    shutil.copy(package, root / "tmp/melo.deb")
    done = run(root, "dpkg", "--install", "/tmp/melo.deb")
    claim("package: installs without a network", done.returncode == 0, done.stderr.strip()[-200:])
    user = run(root, "id", "melo").stdout.strip()
    owner = (root / "var/lib/melo").stat()
    claim("package: a user of its own, who owns the state", owner.st_uid != 0 and f"uid={owner.st_uid}(melo)" in user, user)
    shipped = run(root, "dpkg", "--listfiles", "melo-vit").stdout
    needed = ["/usr/lib/systemd/system/melo.service", "/usr/share/man/man1/melo.1.gz", "/usr/share/man/man1/melo-serve.1.gz",
              "/usr/share/bash-completion/completions/melo", "/usr/share/zsh/vendor-completions/_melo",
              "/usr/share/fish/vendor_completions.d/melo.fish", "/usr/share/doc/melo-vit/copyright"]
    missing = [path for path in needed if path not in shipped]
    claim("package: unit, pages of the manual, completions", not missing, ", ".join(missing))
    done = run(root, "melo", "quickstart", "/var/lib/melo/quickstart", user=owner.st_uid)
    claim("package: quickstart", done.returncode == 0, done.stderr[-200:] if done.returncode else "")
    shutil.rmtree(root / "var/lib/melo/quickstart", ignore_errors=True)
    check_server("package", image, root, "melo", "serve", user=owner.st_uid, MELO_SERVE_STATE="/var/lib/melo")
    done = run(root, "dpkg", "--remove", "melo-vit")
    gone = not (root / "usr/bin/melo").exists()
    claim("package: removed, the state stays", done.returncode == 0 and gone and (root / "var/lib/melo/audit.sqlite").exists())
    done = run(root, "dpkg", "--purge", "melo-vit")
    kept = (root / "var/lib/melo/audit.sqlite").exists()
    claim("package: purged, what was answered stays, and it says so", done.returncode == 0 and kept and "is kept" in done.stderr)
    shutil.rmtree(root / "var/lib/melo")
    done = [run(root, "dpkg", "--install", "/tmp/melo.deb"), run(root, "dpkg", "--purge", "melo-vit")]
    left = [path for path in ("var/lib/melo", "etc/melo", "usr/share/doc/melo-vit") if (root / path).exists()]
    clean = all(step.returncode == 0 for step in done) and not left and run(root, "id", "melo").returncode != 0
    claim("package: purged without answers, nothing stays", clean, ", ".join(left))


def check_image(archive: Path, image: Path) -> None:
    layout = place / "layout"
    with tarfile.open(archive) as tar:
        tar.extractall(layout, filter="data")

    def blob(described: dict) -> bytes:
        data = (layout / "blobs" / described["digest"].replace(":", "/")).read_bytes()
        claim(f"image: {described['mediaType']}", len(data) == described["size"] and f"sha256:{hashlib.sha256(data).hexdigest()}" == described["digest"])
        return data

    [manifest] = json.loads((layout / "index.json").read_text())["manifests"]
    told = json.loads(blob(manifest))
    config = json.loads(blob(told["config"]))
    [layer] = told["layers"]
    packed = place / "layer.tar.gz"
    packed.write_bytes(blob(layer))
    tag = manifest["annotations"]["org.opencontainers.image.ref.name"]
    if shutil.which("skopeo"):
        seen = json.loads(output("skopeo", "inspect", f"oci-archive:{archive}:{tag}"))
        claim("image: skopeo reads it", seen["Layers"] == [layer["digest"]], f"{layer['size'] / 1e6:.1f} MB compressed")
    root = place / "bundle/rootfs"
    if shutil.which("umoci"):
        output("umoci", "unpack", "--image", f"{layout}:{tag}", root.parent)
        claim("image: umoci unpacks it", (root / "usr/bin/melo").exists())
    else:
        root.mkdir(parents=True)
        output("tar", "--extract", "--gzip", "--same-owner", "--file", packed, "--directory", root)
    config = config["config"]
    user = int(config["User"].partition(":")[0])
    claim("image: not root, and a health check", user != 0 and config["Healthcheck"]["Test"][0] == "CMD", f"user {user}")
    variables = dict(item.split("=", 1) for item in config["Env"])
    start = [*config["Entrypoint"], *config["Cmd"]]
    more = {"user": user, "mounts": READ_ONLY, **variables}
    refused = run(root, *start, **more)
    claim("image: without keys nobody beyond this machine is answered", refused.returncode != 0 and "insecure" in refused.stderr, f"status {refused.returncode}")
    check_server("image, read-only root", image, root, *start, **more, MELO_SERVE_INSECURE="true")


def main() -> None:
    [archive] = dist.glob("melo-vit-*-x86_64-unknown-linux-musl.tar.gz")
    with tarfile.open(archive) as tar:
        tar.extractall(place / "archive", filter="data")
    melo = place / "archive" / archive.name.removesuffix(".tar.gz") / "melo"
    claim("archive: it has the binary", melo.exists() and os.access(melo, os.X_OK), output(melo, "--version").strip())
    shutil.copy(melo, place / "melo")
    [package], [oci] = dist.glob("*.deb"), dist.glob("*-oci.tar")
    check_binary(melo)
    check_lists(melo, melo.with_name("melo-vit.cdx.json"))
    image = check_empty(melo)
    check_old(melo, image)
    check_package(package, image)
    check_image(oci, image)
    sys.exit(failed)


main()
