"""What a binary is made of: parts.py TARGET FEATURES BINARY SBOM LICENCES

Writes a list of all crates that are linked into BINARY, in CycloneDX 1.5, and the licence texts that stand in their sources.
Standard library alone; asks cargo.
"""

import datetime
import hashlib
import json
import os
import re
import subprocess
import sys
import tomllib
import uuid
from pathlib import Path

PACKAGE = "melo-vit"
LICENCE = re.compile(r"^(licen[cs]e|copying|notice|unlicense)", re.IGNORECASE)


def cargo(*arguments: str) -> str:
    return subprocess.run(["cargo", *arguments, "--locked"], check=True, capture_output=True, text=True).stdout


def crates(target: str, features: str) -> tuple[list[tuple[str, str]], dict[tuple[str, str], set[tuple[str, str]]]]:
    """Crates of the build, the binary's own first, and which uses which; macros that ran while it was compiled are not in it."""
    tree = cargo("tree", "-p", PACKAGE, "--target", target, "--features", features,
                 "--edges", "normal,no-proc-macro", "--prefix", "depth", "--format", " {p}")
    uses: dict[tuple[str, str], set[tuple[str, str]]] = {}
    above: list[tuple[str, str]] = []
    for line in tree.splitlines():
        depth, name, version = re.match(r"(\d+) (\S+) v(\S+)", line).groups()
        crate = (name, version)
        uses.setdefault(crate, set())
        del above[int(depth):]
        if above:
            uses[above[-1]].add(crate)
        above.append(crate)
    return list(uses), uses


def expression(licence: str) -> str:
    """Some crates still write `MIT/Apache-2.0`."""
    return licence.replace("/", " OR ")


def main(target: str, features: str, binary: str, sbom: str, licences: str) -> None:
    listed, uses = crates(target, features)
    packages = {(p["name"], p["version"]): p for p in json.loads(cargo("metadata", "--format-version", "1"))["packages"]}
    locked = tomllib.loads(Path("Cargo.lock").read_text())["package"]
    checksums = {(p["name"], p["version"]): p.get("checksum") for p in locked}

    def reference(crate: tuple[str, str]) -> str:
        return f"pkg:cargo/{crate[0]}@{crate[1]}"

    def component(crate: tuple[str, str], kind: str, digest: str | None) -> dict:
        package = packages[crate]
        return {
            "type": kind, "bom-ref": reference(crate), "name": crate[0], "version": crate[1],
            **({"description": package["description"].strip()} if package["description"] else {}),
            **({"hashes": [{"alg": "SHA-256", "content": digest}]} if digest else {}),
            **({"licenses": [{"expression": expression(package["license"])}]} if package["license"] else {}),
            "purl": reference(crate),
            **({"externalReferences": [{"type": "vcs", "url": package["repository"]}]} if package["repository"] else {}),
        }

    own, *others = listed
    made = datetime.datetime.fromtimestamp(int(os.environ["SOURCE_DATE_EPOCH"]), datetime.UTC)
    digest = hashlib.sha256(Path(binary).read_bytes()).hexdigest()
    document = {
        "$schema": "http://cyclonedx.org/schema/bom-1.5.schema.json", "bomFormat": "CycloneDX", "specVersion": "1.5",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_OID, digest)}", "version": 1,
        "metadata": {"timestamp": made.strftime("%Y-%m-%dT%H:%M:%SZ"), "component": component(own, "application", digest)},
        "components": [component(crate, "library", checksums[crate]) for crate in sorted(others)],
        "dependencies": [{"ref": reference(crate), "dependsOn": sorted(map(reference, uses[crate]))} for crate in sorted(listed)],
    }
    Path(sbom).write_text(json.dumps(document, indent=1) + "\n")

    # Each text once, under the crates that have it.
    texts: dict[str, set[str]] = {}
    for crate in others:
        package = packages[crate]
        if package["source"] is None:
            continue
        folder = Path(package["manifest_path"]).parent
        files = sorted(file for file in folder.iterdir() if file.is_file() and LICENCE.match(file.name))
        told = "\n\n".join(file.read_text(errors="replace").strip() for file in files)
        told = told or f"{package['license']}\n{', '.join(package['authors'])}"
        texts.setdefault(told, set()).add(f"{crate[0]} {crate[1]} ({package['license']})")
    sections = sorted((sorted(names), text) for text, names in texts.items())
    Path(licences).write_text("\n\n".join(f"{'=' * 80}\n{chr(10).join(names)}\n{'-' * 80}\n{text}" for names, text in sections) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
