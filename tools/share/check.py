"""Plug-ins by name, through a real registry and through the hub's API: see check.sh."""

import base64
import crypt
import hashlib
import json
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import warnings

warnings.filterwarnings("ignore", category=DeprecationWarning)

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "scale"))
from grey_png import grey_png
from hub import Hub

melo, place, repository = sys.argv[1], pathlib.Path(sys.argv[2]), pathlib.Path(sys.argv[3])
backbone = repository / "assets/vit_small_formula.safetensors"
home = place / "home"
failed = False
environment = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "MELO_", "DOCKER_", "REGISTRY_"))}
environment |= {"HOME": str(home), "XDG_CACHE_HOME": str(home / "cache"), "HF_HOME": str(home / "hf")}


def claim(name, holds, detail=""):
    global failed
    failed |= not holds
    print(f"share: {'PASS' if holds else 'FAIL'}  {name}{': ' if detail else ''}{detail}", flush=True)


def run(*arguments, status=0, **more):
    done = subprocess.run(
        [melo, "--threads", "1", *map(str, arguments)], capture_output=True, text=True, env=environment | more
    )
    if status is not None and done.returncode != status:
        sys.exit(f"melo {' '.join(map(str, arguments))} ended with {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout.strip() if status == 0 else done.stderr.strip()


def write_png(path, slope=3, shift=0):
    path.write_bytes(grey_png([[(x * y // 37 + slope * x + shift) % 256 for x in range(96)] for y in range(96)]))


def registry(name, more=""):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder = place / name
    folder.mkdir()
    (folder / "config.yml").write_text(
        f"version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: {folder}/data\nhttp:\n  addr: 127.0.0.1:{port}\n{more}"
    )
    log = open(folder / "log", "w")
    process = subprocess.Popen(["docker-registry", "serve", str(folder / "config.yml")], stdout=log, stderr=log)
    for _ in range(200):
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/v2/", timeout=1)
            break
        except urllib.error.HTTPError:
            break
        except OSError:
            time.sleep(0.05)
    return process, f"127.0.0.1:{port}", folder / "data"


def answers(plugin, image, **more):
    return run("predict", "--backbone", backbone, "--plugin", plugin, image, "--json", **more)


def sha256(path):
    return hashlib.sha256(pathlib.Path(path).read_bytes()).hexdigest()


def check_way(way, reference, image, plugin, tamper, **more):
    """Push, pull and predict through one of both; `tamper` changes the blob where it is kept."""
    pinned = run("plugin", "push", plugin, reference, "--license", "cc-by-4.0", "--base-model", "lab/backbone", **more)
    claim(f"{way}: a push says what names exactly these bytes", pinned.startswith(reference.split(":")[0]), pinned)
    out = place / f"{way}.safetensors"
    run("plugin", "pull", reference, "--out", out)
    same = out.read_bytes() == plugin.read_bytes()
    claim(f"{way}: push and pull give the same bytes", same, f"{out.stat().st_size} bytes, SHA-256 {sha256(out)[:16]}")
    own = answers(plugin, image)
    claim(f"{way}: predict by name answers as by file", answers(reference, image) == own, own[:100])
    claim(f"{way}: and by what the push said", answers(pinned, image) == own)
    info = json.loads(run("plugin", "info", reference, "--json"))
    claim(f"{way}: plugin info takes the name", info["plugin_digest"] == sha256(plugin))

    for blob in {kept.resolve() for kept in home.rglob("plugin.safetensors")}:
        content = bytearray(blob.read_bytes())
        content[-1] ^= 1
        blob.write_bytes(content)
    said = run("predict", "--backbone", backbone, "--plugin", reference, image, status=1)
    both = sha256(plugin) in said and "has SHA-256" in said
    claim(f"{way}: what was changed in the cache is refused with both digests", both, said[:160])
    run("plugin", "pull", reference, "--out", out)
    claim(f"{way}: a pull mends the cache", answers(reference, image) == own and out.read_bytes() == plugin.read_bytes())

    tamper(sha256(plugin))
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir()
    said = run("plugin", "pull", reference, "--out", place / "never.safetensors", status=1)
    named = sha256(plugin) in said and "plugin.safetensors" in said and said.count("SHA-256") + said.count("sha256") >= 1
    claim(f"{way}: a tampered blob is refused by name with both digests", named and not (place / "never.safetensors").exists(), said[:300])
    tamper(sha256(plugin))


def trained(plugin):
    """A plug-in of two kinds of stripes, with figures of a test split."""
    films = place / "films"
    films.mkdir()
    rows = ["path,label,split"]
    for split, count in [("train", 12), ("val", 8), ("test", 8)]:
        for number in range(count):
            name, kind = f"{split}-{number}.png", number % 2
            write_png(films / name, slope=(3, 5)[kind], shift=7 * number)
            rows.append(f"{name},{('clear', 'streaky')[kind]},{split}")
    (films / "labels.csv").write_text("\n".join(rows) + "\n")
    run("train", "--method", "linear", "--backbone", backbone, "--data", films / "labels.csv", "--task", "chest_film", "--out", plugin)


def main():
    home.mkdir()
    image = place / "film.png"
    write_png(image)
    plugin = place / "chest.safetensors"
    trained(plugin)
    check_registry(image, plugin)
    check_hub(image, plugin)
    check_gallery()
    sys.exit(1 if failed else 0)


def check_registry(image, plugin):
    process, host, data = registry("open")

    def tamper(digest):
        path = data / f"docker/registry/v2/blobs/sha256/{digest[:2]}/{digest}/data"
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)

    reference = f"oci://{host}/lab/chest:2"
    check_way("oci", reference, image, plugin, tamper)
    asked = urllib.request.Request(f"http://{host}/v2/lab/chest/manifests/2", headers={"accept": "application/vnd.oci.image.manifest.v1+json"})
    manifest = json.load(urllib.request.urlopen(asked))
    said = manifest["annotations"]
    claim("oci: the manifest is of a type of our own, and says task, backbone and digests",
          manifest["artifactType"] == "application/vnd.melo.plugin.v1" and said["org.melo.plugin.digest"] == sha256(plugin)
          and len(said["org.melo.backbone.digest"]) == 64, json.dumps({k: v[:24] for k, v in said.items()}))
    found = run("plugin", "search", f"oci://{host}", "chest")
    claim("oci: search finds it", found.startswith(reference), found)
    claim("oci: search finds nothing else", run("plugin", "search", f"oci://{host}", "kidney") == "")
    said = run("plugin", "pull", f"oci://{host}/lab/chest:3", "--out", place / "x.safetensors", status=1)
    claim("oci: a tag that is not there is said", "404" in said and "manifest unknown" in said, said[-80:])

    keys = {name: place / f"{name}.key" for name in ("lab", "stranger")}
    for key in keys.values():
        run("plugin", "keygen", key)
    trusted = place / "trusted.txt"
    trusted.write_text(keys["lab"].with_suffix(".pub").read_text())
    said = run("predict", "--backbone", backbone, "--plugin", reference, image, status=1, MELO_TRUSTED_KEYS=str(trusted))
    claim("oci: what is not signed is refused where keys are trusted", "it is not signed" in said and reference in said, said[:160])
    signed = f"oci://{host}/lab/chest:signed"
    for name in ("stranger", "lab"):
        run("plugin", "sign", plugin, "--key", keys[name])
        run("plugin", "push", plugin, signed)
        shutil.rmtree(home / "cache", ignore_errors=True)
        said = run("plugin", "pull", signed, "--out", place / "signed.safetensors", "--trusted-keys", trusted, status=None)
        if name == "stranger":
            claim("oci: a stranger's signature is refused", not (place / "signed.safetensors").exists() and "not among the trusted keys" in said, said[:160])
    verified = run("plugin", "verify", signed, "--trusted-keys", trusted)
    claim("oci: the lab's signature comes along and holds", (place / "signed.safetensors.minisig").exists() and "signed by key" in verified, verified[-60:])
    own = answers(plugin, image)
    process.kill()
    process.wait()
    claim("oci: what was fetched once needs no registry", answers(signed, image, MELO_TRUSTED_KEYS=str(trusted)) == own)
    os.remove(f"{plugin}.minisig")

    users = place / "users"
    users.write_text("lab:" + crypt.crypt("sesame", "$2y$05$" + "a" * 22) + "\n")
    process, host, _ = registry("closed", f"auth:\n  htpasswd:\n    realm: lab\n    path: {users}\n")
    closed = f"oci://{host}/chest:1"
    said = run("plugin", "push", plugin, closed, status=1)
    claim("oci: a registry that knows nobody refuses", "401" in said, said[:120])
    docker = place / "docker"
    docker.mkdir()
    auth = base64.b64encode(b"lab:sesame").decode()
    (docker / "config.json").write_text(json.dumps({"auths": {host: {"auth": auth}}}))
    run("plugin", "push", plugin, closed, DOCKER_CONFIG=str(docker))
    run("plugin", "pull", closed, "--out", place / "closed.safetensors", DOCKER_CONFIG=str(docker))
    claim("oci: and takes what docker login saved", (place / "closed.safetensors").read_bytes() == plugin.read_bytes())
    process.kill()
    process.wait()


def check_hub(image, plugin):
    hub = Hub("sesame")
    environment["HF_ENDPOINT"] = hub.address

    def tamper(digest):
        hub.objects[digest][len(hub.objects[digest]) // 2] ^= 1

    said = run("plugin", "push", plugin, "hf:lab/chest-film", status=1)
    claim("hub: without a token it refuses in its words", "Invalid username or password" in said, said[:120])
    reference = "hf:lab/chest-film@v2"
    check_way("hub", reference, image, plugin, tamper, HF_TOKEN="sesame")
    said = run("plugin", "push", plugin, reference, status=1, HF_TOKEN="sesame")
    claim("hub: a revision is not overwritten", "there already" in said, said[:120])
    run("plugin", "pull", reference, "--out", place / "again.safetensors")
    hub.seen.clear()
    answers(reference, image)
    claim("hub: what was fetched once needs no hub", hub.seen == [], str(hub.seen))
    found = run("plugin", "search", "chest")
    claim("hub: search finds it", found.startswith("hf:lab/chest-film"), found)

    os.environ.update(HF_HOME=str(home / "hf"), HF_HUB_DISABLE_TELEMETRY="1", HF_ENDPOINT=hub.address)
    from huggingface_hub import ModelCard, hf_hub_download

    cached = hf_hub_download("lab/chest-film", "plugin.safetensors", revision="v2", local_files_only=True)
    claim("hub: huggingface_hub finds it in the same cache", sha256(cached) == sha256(plugin))
    card = ModelCard.load(hf_hub_download("lab/chest-film", "README.md", revision="v2", local_files_only=True))
    results = {result.metric_type: (result.metric_name, result.metric_value) for result in card.data.eval_results}
    claim("hub: huggingface_hub reads the model card", card.data.license == "cc-by-4.0" and card.data.base_model == "lab/backbone"
          and card.data.library_name == "melo", f"{card.data.pipeline_tag}, {results['roc_auc']}")
    own = card.data.to_dict()["melo"]
    claim("hub: it names task and digests", own["plugin_sha256"] == sha256(plugin) and len(own["backbone_sha256"]) == 64, own["task"])
    claim("hub: and metrics with intervals", "95 % interval" in results["roc_auc"][0] and len(own["metric_intervals"]["test_auc_macro"]) == 2)


def check_gallery():
    site = place / "site"
    said = run("plugin", "gallery", repository / "assets/phantoms", "--out", site)
    page = (site / "index.html").read_text()
    files = sorted(path.name for path in (site / "plugins").iterdir())
    names = ["blood_smear", "chest_film", "fundus", "mammogram"]
    claim("a gallery holds files and cards", files == sorted(f"{name}.{kind}" for name in names for kind in ("html", "safetensors")), said)
    claim("its page has an entry each, a search and no address of elsewhere",
          page.count("<article>") == 4 and 'type="search"' in page and "http" not in page.replace("http://www.w3.org", ""), f"{len(page)} bytes")


main()
