"""The files of deploy/ at work on loopback: see check.sh."""

import base64
import io
import json
import os
import pathlib
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request

import pydicom
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

melo, place, repository = sys.argv[1], pathlib.Path(sys.argv[2]), pathlib.Path(sys.argv[3])
deploy = repository / "deploy"
DX = "1.2.840.10008.5.1.4.1.1.1.1"
SR = "1.2.840.10008.5.1.4.1.1.88.33"
SC = "1.2.840.10008.5.1.4.1.1.7"
TASK = "chest_film"
state, checkpoint = place / "state", place / "elsewhere/melo.checkpoint"
failed = False
running = {}


def claim(name, holds, detail=""):
    global failed
    failed |= not holds
    print(f"ops: {'PASS' if holds else 'FAIL'}  {name}{': ' if detail else ''}{detail}", flush=True)
    return holds


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def until(condition, seconds=60):
    """What `condition` gives once it gives something, else what it gave last."""
    end = time.monotonic() + seconds
    while not (found := condition()) and time.monotonic() < end:
        time.sleep(0.2)
    return found


def run(*command, **more):
    return subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=300, **more)


def lines(done):
    return (done.stdout + done.stderr).strip().splitlines()


class Answer:
    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body

    def json(self):
        return json.loads(self.body)


def ask(url, data=None, headers=None, **more):
    request = urllib.request.Request(url, data=data, headers=headers or {})
    try:
        with urllib.request.urlopen(request, timeout=60, **more) as response:
            return Answer(response.status, response.headers, response.read())
    except urllib.error.HTTPError as error:
        return Answer(error.code, error.headers, error.read())
    except OSError as error:
        return Answer(0, {}, str(error).encode())


def start(name, *command, **more):
    log = open(place / f"{name}.log", "ab")
    running[name] = subprocess.Popen([str(part) for part in command], stdout=log, stderr=log, **more)


def stop(name, how=signal.SIGTERM):
    process = running.pop(name)
    process.send_signal(how)
    try:
        return process.wait(60)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


def written(name, **replaced):
    """A file of deploy/ with hosts, ports and paths of this place; each text must be there."""
    text = (deploy / name).read_text()
    for old, new in replaced["replaced"].items():
        if old not in text:
            sys.exit(f"deploy/{name} has no {old}")
        text = text.replace(old, str(new))
    path = place / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


# Secrets, as docs/operations.md has them made.
secrets = place / "secrets"
secrets.mkdir()
checkpoint.parent.mkdir()
keys = {}
for who in ["prometheus", "page"]:
    made = run(melo, "keys", "add", who, "--file", secrets / "keys.toml", "--json")
    keys[who] = json.loads(made.stdout)["key"] if made.returncode == 0 else sys.exit(made.stderr)
(secrets / "prometheus.key").write_text(keys["prometheus"] + "\n")
run(melo, "plugin", "keygen", secrets / "audit.key")
run("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj", "/CN=melo",
    "-addext", "subjectAltName=DNS:localhost", "-keyout", secrets / "tls-key.pem", "-out", secrets / "tls-cert.pem", check=True)

ports = {name: free_port() for name in ["melo", "melo-dicom", "orthanc", "orthanc-dicom", "prometheus", "nginx"]}
at = {name: f"127.0.0.1:{port}" for name, port in ports.items()}
serve_toml = written("melo/serve.toml", replaced={
    '"0.0.0.0:8080"': f'"{at["melo"]}"', '"0.0.0.0:11112"': f'"{at["melo-dicom"]}"', '"orthanc:4242"': f'"{at["orthanc-dicom"]}"',
    "/var/lib/melo": state, "/run/secrets/melo-keys": secrets / "keys.toml", "keep-days = 30": "keep-days = 30\nretry-max-s = 1",
})
orthanc_json = written("orthanc/orthanc.json", replaced={
    "/var/lib/orthanc/db": place / "orthanc-db", "/etc/orthanc": place / "orthanc", "4242": ports["orthanc-dicom"], "8042": ports["orthanc"],
    '"melo", 11112': f'"127.0.0.1", {ports["melo-dicom"]}', '"RemoteAccessAllowed": true': '"RemoteAccessAllowed": false',
    # Debian's is older than OnHeartBeat: it is called from here.
    '"LuaHeartBeatPeriod": 60': '"ExecuteLuaEnabled": true',
})
written("orthanc/route.lua", replaced={})
written("prometheus/alerts.yml", replaced={})
prometheus_yml = written("prometheus/prometheus.yml", replaced={
    "melo:8080": at["melo"], "/run/secrets/melo-prometheus": secrets / "prometheus.key", "interval: 15s": "interval: 1s",
})
nginx_conf = written("nginx.conf", replaced={
    "server melo:8080": f"server {at['melo']}", "listen 443": f"listen {at['nginx']}", "melo.hospital.example": "localhost",
    "/run/secrets/tls-cert": secrets / "tls-cert.pem", "/run/secrets/tls-key": secrets / "tls-key.pem", "/run/nginx.pid": place / "nginx.pid",
})
environment = {name: value for name, value in os.environ.items() if not name.startswith("MELO_")} | {"ORTHANC_PASSWORD": "films"}


def start_melo(ready=True):
    start("melo", melo, "--threads", "1", "serve", "--config", serve_toml, "--audit-key", secrets / "audit.key",
          "--audit-checkpoint", checkpoint, "--audit-checkpoint-s", "1", env=environment)
    if ready and not until(lambda: ask(f"http://{at['melo']}/readyz").status == 200):
        sys.exit("melo is not ready: " + (place / "melo.log").read_text()[-2000:])


def start_orthanc():
    start("orthanc", "Orthanc", orthanc_json, env=environment)
    return until(lambda: orthanc("/system").status == 200)


def orthanc(path, data=None):
    word = base64.b64encode(b"orthanc:films").decode()
    return ask(f"http://{at['orthanc']}{path}", data, {"Authorization": f"Basic {word}"})


def film(number):
    """A generated chest film with an effusion, as an X-ray department would send it: its study, and the file."""
    shown = ask(f"http://{at['melo']}/v1/samples/chest_film_effusion.png", headers={"X-API-Key": keys["page"]})
    picture = Image.open(io.BytesIO(shown.body)).convert("L")
    data = Dataset()
    data.SOPClassUID, data.SOPInstanceUID = DX, generate_uid()
    data.StudyInstanceUID, data.SeriesInstanceUID = generate_uid(), generate_uid()
    data.PatientName, data.PatientID, data.PatientBirthDate, data.PatientSex = "Phantom^Chest", f"OPS-{number}", "", "O"
    data.StudyDate, data.StudyTime, data.StudyID, data.AccessionNumber = "20260101", "080000", "1", ""
    data.ReferringPhysicianName, data.Modality, data.BodyPartExamined, data.ViewPosition = "", "DX", "CHEST", "PA"
    data.InstanceNumber, data.BurnedInAnnotation, data.ImageType = "1", "NO", ["ORIGINAL", "PRIMARY"]
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.Columns, data.Rows = picture.size
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 8, 8, 7, 0
    data.PixelData = picture.tobytes() + b"\0" * (len(picture.tobytes()) % 2)
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    file = io.BytesIO()
    data.save_as(file, enforce_file_format=True)
    return data.StudyInstanceUID, file.getvalue()


def store(file):
    if orthanc("/instances", file).status != 200:
        sys.exit("Orthanc did not take a film")


def of_study(study):
    """What Orthanc has of a study: SOP class, data set, and its name there."""
    asked = {"Level": "Instance", "Query": {"StudyInstanceUID": study}}
    found = orthanc("/tools/find", json.dumps(asked).encode()).json()
    files = [pydicom.dcmread(io.BytesIO(orthanc(f"/instances/{name}/file").body)) for name in found]
    return [(file.SOPClassUID, file, name) for file, name in zip(files, found)]


def results(study, seconds=60):
    """Report and heat map of a study by their SOP classes, once both are there."""
    def found():
        of_class = {kind: (file, name) for kind, file, name in of_study(study)}
        return of_class if {SR, SC} <= of_class.keys() else None
    return until(found, seconds)


def predict(file, base=None, key="page", **more):
    edge = "melo-ops"
    body = b"".join(
        f'--{edge}\r\nContent-Disposition: form-data; name="{name}"{filename}\r\n\r\n'.encode() + value + b"\r\n"
        for name, filename, value in [("image", '; filename="film.dcm"', file), ("tasks", "", b"all")]
    ) + f"--{edge}--\r\n".encode()
    headers = {"Content-Type": f"multipart/form-data; boundary={edge}"} | ({"X-API-Key": keys[key]} if key else {}) | more.pop("headers", {})
    return ask((base or f"http://{at['melo']}") + "/v1/predict", body, headers, **more)


def answers(file):
    return {answer["task"]: answer for answer in predict(file).json()["images"][0]["answers"]}


def check_files():
    for name, command in {
        "prometheus.yml": ["promtool", "check", "config", prometheus_yml],
        "alarms": ["promtool", "check", "rules", deploy / "prometheus/alerts.yml"],
        "alarms are raised when they should be": ["promtool", "test", "rules", repository / "tools/ops/alerts.yml"],
        "nginx.conf": ["nginx", "-t", "-q", "-c", nginx_conf],
        "compose.yaml": ["docker-compose", "-f", deploy / "compose.yaml", "config", "-q"],
    }.items():
        done = run(*command, env=environment | {"GRAFANA_PASSWORD": "x"})
        said = [line for line in lines(done) if "SUCCESS" in line]
        claim(name, done.returncode == 0, said[-1].strip() if said else " ".join(lines(done)[-2:]))


def check_film():
    study, file = film(1)
    begun = time.monotonic()
    store(file)
    found = results(study)
    if not claim("a film stored in Orthanc comes back with a report and a heat map", bool(found), f"{time.monotonic() - begun:.1f} s"):
        sys.exit((place / "melo.log").read_text()[-3000:] + (place / "orthanc.log").read_text()[-3000:])
    report, picture = found[SR][0], found[SC][0]
    said = {}

    def walk(items):
        for item in items:
            if item.ValueType == "NUM" and item.ConceptNameCodeSequence[0].CodeMeaning.startswith("Probability of "):
                (of,) = [part for part in item.ContentSequence if part.RelationshipType == "HAS CONCEPT MOD"]
                said[of.ConceptCodeSequence[0].CodeMeaning] = item.MeasuredValueSequence[0].FloatingPointValue
            walk(item.get("ContentSequence", []))

    walk(report.ContentSequence)
    asked = answers(file)[TASK]
    near = said.keys() == asked["probabilities"].keys() and all(abs(said[name] - value) < 1e-6 for name, value in asked["probabilities"].items())
    claim("the report says what HTTP says", near, f"{asked['predicted']} {asked['probabilities'][asked['predicted']]:.3f}")
    shape = (picture.Rows, picture.Columns, picture.SamplesPerPixel)
    coloured = len(set(picture.PixelData[0:3 * shape[1]])) > 16
    claim("the heat map is a colour picture of the study", picture.PatientID == "OPS-1" and shape[2] == 3 and coloured, f"{shape[1]}×{shape[0]}")
    if kept := os.environ.get("MELO_OPS_KEEP"):
        pathlib.Path(kept).write_bytes(orthanc(f"/instances/{found[SC][1]}/preview").body)
    time.sleep(3)
    rows = run(melo, "audit", "show", state / "audit.sqlite", "--json").stdout.splitlines()
    once = sum('"action":"answer"' in row and '"via":"dicom"' in row for row in rows)
    claim("results are not sent round again", len(of_study(study)) == 3 and once == 1, f"{once} answer in the audit, 3 objects in the study")


def check_proxy():
    context = ssl.create_default_context(cafile=secrets / "tls-cert.pem")
    base = f"https://localhost:{ports['nginx']}"
    _, file = film(2)
    asked = predict(file, base, context=context, headers={"X-Request-Id": "ops-check-1"})
    shown = run(melo, "audit", "show", state / "audit.sqlite", "--last", "8", "--json").stdout
    claim("an answer through TLS, under one name in the audit", asked.status == 200 and "ops-check-1" in shown, asked.headers.get("x-request-id", ""))
    seen = {"without a key": predict(file, base, None, context=context).status, "/metrics": ask(f"{base}/metrics", context=context).status,
            "/readyz": ask(f"{base}/readyz", context=context).status, "a page": ask(f"{base}/", context=context).status}
    claim("what nginx lets through", list(seen.values()) == [401, 404, 200, 200], str(seen))
    large = ask(f"{base}/v1/predict", b"", {"Content-Length": str(300 << 20), "X-API-Key": keys["page"]}, context=context).status
    claim("a body of 300 MiB is refused at once", large == 413, str(large))


def query(expression):
    found = ask(f"http://{at['prometheus']}/api/v1/query?" + urllib.parse.urlencode({"query": expression})).json()
    if found["status"] != "success":
        sys.exit(f"{expression}: {found.get('error')}")
    return [float(series["value"][1]) for series in found["data"]["result"]]


def rules():
    groups = ask(f"http://{at['prometheus']}/api/v1/rules").json()["data"]["groups"]
    return [rule for group in groups for rule in group["rules"]]


def alarms():
    return [rule["name"] for rule in rules() if rule["state"] != "inactive"]


def check_dashboard():
    dashboard = json.loads((deploy / "grafana/dashboards/melo.json").read_text())
    expressions = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    plain = [text.replace("$instance", ".*").replace("$__rate_interval", "1m") for text in expressions]

    def empty():
        return [text for text in plain if not any(value == value for value in query(text))]

    load = Load(film(2)[1])
    until(lambda: not empty(), 60)
    missing = empty()
    load.end()
    claim("every query of the dashboard has data", not missing, f"{len(plain)} queries of {len(dashboard['panels'])} panels" if not missing else str(missing))
    sick = [rule["name"] for rule in rules() if rule["health"] != "ok"]
    claim("alarms are watched, and none is raised", rules() and not sick + alarms(), str(sick + alarms() or f"{len(rules())} alarms"))


def check_away():
    study, file = film(3)
    stop("melo")
    seen = until(lambda: "MeloDown" in alarms(), 30)
    claim("Prometheus sees that melo is away", seen, "MeloDown is pending")
    store(file)

    def failures():
        return [job for job in orthanc("/jobs?expand").json() if job["State"] == "Failure"]

    lost = until(failures, 60)
    start_melo()
    orthanc("/tools/execute-script", b"OnHeartBeat()")
    claim("a film that came while melo was away is answered after it", bool(lost and results(study)), f"{len(lost)} job sent again")


class Load:
    """Requests over HTTP from a thread, until it is told to end."""

    def __init__(self, file):
        self.file, self.going, self.good, self.bad = file, True, 0, 0
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self):
        while self.going:
            if predict(self.file).status == 200:
                self.good += 1
            else:
                self.bad += 1

    def end(self):
        self.going = False
        self.thread.join()


def verify(audit, *more):
    done = run(melo, "audit", "verify", audit, "--public-key", secrets / "audit.pub", *more)
    return done.returncode, lines(done)


def check_backup():
    study, file = film(4)
    before = answers(file)
    versions = {task["name"]: task["version"] for task in listed()["tasks"]}
    load = Load(file)
    # A result that waits for a receiver that is away.
    stop("orthanc", signal.SIGKILL)
    edge = "melo-ops"
    body = f"--{edge}\r\nContent-Type: application/dicom\r\n\r\n".encode() + file + f"\r\n--{edge}--\r\n".encode()
    kind = f'multipart/related; type="application/dicom"; boundary={edge}'
    ask(f"http://{at['melo']}/dicomweb/studies", body, {"Content-Type": kind, "X-API-Key": keys["page"]})
    waiting = until(lambda: len(found := list((state / "spool/outgoing/orthanc").glob("*.dcm"))) == 2 and found, 20) or []
    out = place / "backup"
    begun = time.monotonic()
    done = run(deploy / "backup.sh", state, out, checkpoint)
    took = time.monotonic() - begun
    claim("backup.sh under load", done.returncode == 0, f"{took:.1f} s, {len(waiting)} results waiting" if done.returncode == 0 else lines(done)[-1])
    code, said = verify(out / "audit.sqlite", "--checkpoint", out / "checkpoint")
    claim("the audit of the backup is whole", code == 0, said[-1])
    until(lambda: load.good >= 40, 60)
    load.end()
    claim("requests during the backup", load.bad == 0, f"{load.good} answered, {load.bad} not")
    rows = json.loads(run(melo, "audit", "show", state / "audit.sqlite", "--last", "1", "--json").stdout)["n"]
    time.sleep(1.5)
    stop("melo", signal.SIGKILL)
    shutil.rmtree(state)

    # Put back, as docs/operations.md says.
    shutil.copytree(out, state)
    (state / "checkpoint").unlink()
    start_melo(ready=False)
    gone = until(lambda: running["melo"].poll() is not None, 60)
    said = (place / "melo.log").read_text().strip().splitlines()[-1]
    claim("a server does not start behind its last checkpoint", bool(gone) and running.pop("melo").returncode == 1, said)
    checkpoint.rename(checkpoint.with_suffix(".lost"))
    shutil.copy(out / "checkpoint", checkpoint)
    start_melo()
    after = answers(file)
    same = {name: answer["probabilities"] for name, answer in before.items()} == {name: answer["probabilities"] for name, answer in after.items()}
    claim("the same answers by the same versions", same and versions == {task["name"]: task["version"] for task in listed()["tasks"]}, f"{len(after)} tasks")
    start_orthanc()
    claim("what waited in the backup is delivered", bool(results(study)), "report and heat map")
    time.sleep(1.5)
    code, said = verify(state / "audit.sqlite", "--checkpoint", checkpoint)
    claim("the audit goes on behind the backup", code == 0, said[-1])
    code, said = verify(state / "audit.sqlite", "--checkpoint", checkpoint.with_suffix(".lost"))
    claim("the checkpoint of before says what was lost", code == 1, f"{said[-1]} ({rows} rows before)")


def listed():
    return ask(f"http://{at['melo']}/v1/tasks", headers={"X-API-Key": keys["page"]}).json()


try:
    check_files()
    start_melo()
    if not start_orthanc():
        sys.exit("Orthanc does not answer: " + (place / "orthanc.log").read_text()[-2000:])
    start("prometheus", "prometheus", f"--config.file={prometheus_yml}", f"--storage.tsdb.path={place}/tsdb",
          f"--web.listen-address={at['prometheus']}", cwd=place)
    start("nginx", "nginx", "-c", nginx_conf, "-g", "daemon off;")
    check_film()
    check_proxy()
    check_dashboard()
    check_away()
    check_backup()
finally:
    for name in list(running):
        stop(name)
sys.exit(failed)
