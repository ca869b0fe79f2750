"""What s3.sh runs: see there."""

import os
import pathlib
import random
import socket
import subprocess
import sys
import time

import boto3
import pyarrow.parquet
from grey_png import grey_png

MELO, WORK = sys.argv[1], pathlib.Path(sys.argv[2])
IMAGES, KILLS = int(sys.argv[3]), int(sys.argv[4])
BACKBONE = "assets/vit_small_formula.safetensors"
PLUGINS = ["assets/phantoms/fundus.safetensors", "assets/phantoms/mammogram.safetensors"]
REGION = "eu-central-1"


def png(seed, side=48):
    """A grey PNG that depends on `seed`."""
    draw = random.Random(seed)
    return grey_png([draw.randbytes(side) for _ in range(side)])


def make(folder):
    """Images with and without endings in folders of folders, one that is broken, and a file that is none."""
    for number in range(IMAGES):
        ending = "" if number % 10 == 0 else ".png"
        path = folder / f"ward {number % 3}" / f"{number % 7}" / f"film-{number}{ending}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(number))
    (folder / "broken.png").write_bytes(b"no image")
    (folder / "notes.txt").write_bytes(b"no image")
    return [path for path in sorted(folder.rglob("*")) if path.is_file()]


def serve(actions):
    """A server that checks signatures after so many requests."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {**os.environ, "INITIAL_NO_AUTH_ACTION_COUNT": str(actions)}
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with (WORK / "server.log").open("wb") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    for _ in range(300):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return server, f"http://127.0.0.1:{port}"
        time.sleep(0.1)
    raise SystemExit("the server does not start")


def client(service, address):
    keys = {"aws_access_key_id": "setup", "aws_secret_access_key": "setup"}
    return boto3.client(service, endpoint_url=address, region_name=REGION, **keys)


def upload(address, folder, files):
    """The bucket `films`, and the keys of somebody who may read it."""
    s3, iam = client("s3", address), client("iam", address)
    s3.create_bucket(Bucket="films", CreateBucketConfiguration={"LocationConstraint": REGION})
    for path in files:
        s3.put_object(Bucket="films", Key=f"2024/{path.relative_to(folder)}", Body=path.read_bytes())
    iam.create_user(UserName="reader")
    policy = '{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"s3:*","Resource":"*"}]}'
    iam.put_user_policy(UserName="reader", PolicyName="read", PolicyDocument=policy)
    key = iam.create_access_key(UserName="reader")["AccessKey"]
    return key["AccessKeyId"], key["SecretAccessKey"]


def command(place, out, *more):
    plugins = [word for plugin in PLUGINS for word in ("--plugin", plugin)]
    return [MELO, "archive", "run", place, "--backbone", BACKBONE, *plugins, "--out", str(WORK / out), "--chunk", "16", *more]


def rows(out, start):
    """All rows by image and task, without what names the place."""
    found = {}
    for part in sorted((WORK / out / "parts").glob("*.parquet")):
        for row in pyarrow.parquet.read_table(part).to_pylist():
            key = row.pop("image").removeprefix(start).lstrip("/"), row["task"]
            row["error"], _ = row["error"] is not None, row.pop("input")
            assert key not in found, key
            found[key] = row
    return found


def files(out):
    return {path.name: path.read_bytes() for path in (WORK / out).rglob("*") if path.is_file()}


def check(what, holds, ran=None):
    print(f"{'ok ' if holds else 'BAD'} {what}")
    if not holds:
        raise SystemExit(ran and f"{ran.stdout}\n{ran.stderr}" or 1)


def main():
    folder = WORK / "local"
    listed = make(folder)
    server, address = serve(1 + len(listed) + 3)
    try:
        user, secret = upload(address, folder, listed)
        reader = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
        reader |= {"AWS_ENDPOINT_URL": address, "AWS_REGION": REGION}
        reader |= {"AWS_ACCESS_KEY_ID": user, "AWS_SECRET_ACCESS_KEY": secret}
        run = lambda command, **changed: subprocess.run(command, env={**reader, **changed}, capture_output=True, text=True)

        started = time.time()
        ran = run(command(str(folder), "here"))
        middle = time.time()
        check("a local run", ran.returncode == 1 and "1 of" in ran.stderr, ran)
        ran = run(command("s3://films/2024", "there"))
        check("the same from objects", ran.returncode == 1 and "s3://films/2024/broken.png" in ran.stderr, ran)
        whole = time.time() - middle
        print(f"    {IMAGES} images: {middle - started:.1f} s from files, {whole:.1f} s from objects")
        here, there = rows("here", str(folder)), rows("there", "s3://films/2024")
        check(f"{len(here)} equal rows", here == there and len(here) == 2 * (IMAGES + 1))
        straight = files("there")
        told = [name for name, data in straight.items() if secret.encode() in data or user.encode() in data]
        check("no key in any file", not told and secret not in ran.stderr + ran.stdout)

        draw, met = random.Random(1), 0
        for _ in range(KILLS):
            child = subprocess.Popen(command("s3://films/2024", "killed"), env=reader, stderr=subprocess.DEVNULL)
            time.sleep(draw.random() * whole)
            met += child.poll() is None
            child.kill()
            child.wait()
        ran = run(command("s3://films/2024", "killed"))
        check(f"{met} kills change no byte", ran.returncode == 1 and files("killed") == straight, ran)

        for what, place, changed, words in [
            ("a wrong secret", "s3://films/2024", {"AWS_SECRET_ACCESS_KEY": "wrong"}, "s3://films: 403 Forbidden: SignatureDoesNotMatch"),
            ("a wrong key", "s3://films/2024", {"AWS_ACCESS_KEY_ID": "wrong"}, "s3://films: 403 Forbidden: InvalidAccessKeyId"),
            ("no such bucket", "s3://nowhere/2024", {}, "s3://nowhere: 404 Not Found: NoSuchBucket"),
            ("no such prefix", "s3://films/2031", {}, "s3://films/2031: no image found"),
            ("no server", "s3://films/2024", {"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}, "s3://films: 127.0.0.1"),
        ]:
            ran = run(command(place, "refused"), **changed)
            lines = ran.stderr.splitlines()
            check(what, ran.returncode == 1 and len(lines) == 1 and words in lines[0] and secret not in lines[0], ran)
            print(f"    {lines[0]}")
    finally:
        server.terminate()
        server.wait()


main()
