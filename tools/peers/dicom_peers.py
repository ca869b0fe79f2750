"""`melo serve` against DICOM software of others, on loopback: DCMTK (echoscu, storescu, storescp, dsrdump, dcmj2pnm),
Orthanc with its DICOMweb plug-in, pydicom and highdicom.

    apt-get install dcmtk orthanc orthanc-dicomweb
    pip install -r tools/peers/dicom-requirements.txt
    cargo build --release -p melo
    python tools/peers/dicom_peers.py --melo target/release/melo [--files FOLDER_WITH_DCM_FILES]

Prints PASS or FAIL a check; the exit status is the number of failures, at most 100.
"""

import argparse
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

TOOLS = ["echoscu", "storescu", "storescp", "dsrdump", "dsr2html", "dcmj2pnm", "dcmconv", "dcmcjpeg", "dcmcjpls",
         "dcmcrle", "Orthanc"]
PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
SR = "1.2.840.10008.5.1.4.1.1.88.33"
SC = "1.2.840.10008.5.1.4.1.1.7"
DX = "1.2.840.10008.5.1.4.1.1.1.1"
failures = 0


def check(name, passed, detail=""):
    global failures
    failures += not passed
    print(f"{'PASS' if passed else 'FAIL'} {name}" + (f": {detail}" if detail and not passed else ""), flush=True)
    return passed


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def until(condition, seconds=60):
    """What `condition` gives once it gives something, else what it gave last."""
    end = time.monotonic() + seconds
    while not (found := condition()) and time.monotonic() < end:
        time.sleep(0.1)
    return found


def run(*command):
    return subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=300)


def http(url, data=None, headers=None):
    request = urllib.request.Request(url, data=data, headers=headers or {})
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return response.status, response.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


class Process:
    """Something that runs until it is stopped."""

    def __init__(self, log, *command):
        self.log = open(log, "ab")
        command = [str(part) for part in command]
        self.process = subprocess.Popen(command, stdout=self.log, stderr=self.log)

    def stop(self, how=signal.SIGTERM):
        self.process.send_signal(how)
        try:
            return self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()


def listens(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def image(folder, name, modality="DX", study=None, body="CHEST", side=256):
    """A generated image; names with letters of two scripts, to see that they arrive as they are."""
    data = Dataset()
    data.SpecificCharacterSet = "ISO_IR 192"
    data.SOPClassUID = DX if modality == "DX" else "1.2.840.10008.5.1.4.1.1.4"
    data.SOPInstanceUID = generate_uid()
    data.StudyInstanceUID = study or generate_uid()
    data.SeriesInstanceUID = generate_uid()
    data.PatientName = "Müller^Jürgen=山田^太郎"
    data.PatientID = "PEER-1"
    data.PatientBirthDate = "19600101"
    data.PatientSex = "M"
    data.StudyDate, data.StudyTime, data.StudyID, data.AccessionNumber = "20240229", "101112", "S1", "A1"
    data.ReferringPhysicianName = ""
    data.Modality = modality
    data.BodyPartExamined = body
    data.ViewPosition = "PA"
    data.InstanceNumber = "1"
    data.BurnedInAnnotation = "NO"
    data.ImageType = ["ORIGINAL", "PRIMARY"]
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.Rows = data.Columns = side
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 12, 11, 0
    rows, columns = np.mgrid[:side, :side]
    random = np.random.default_rng(len(name))
    pixels = 2000 + 1500 * np.sin(rows / 9) * np.cos(columns / 13) + random.normal(0, 60, (side, side))
    data.PixelData = pixels.clip(0, 4095).astype("<u2").tobytes()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    path = folder / f"{name}.dcm"
    data.save_as(path, enforce_file_format=True)
    return path, data


class Stage:
    def __init__(self, folder, melo):
        self.folder, self.melo = folder, melo
        self.state = folder / "state"
        self.http, self.dicom, self.pacs, self.implicit = (free_port() for _ in range(4))
        self.orthanc = [(free_port(), free_port()) for _ in range(2)]
        self.arrived, self.arrived_implicit = folder / "pacs", folder / "implicit"
        for path in (self.arrived, self.arrived_implicit):
            path.mkdir()
        (folder / "serve.toml").write_text(f"""
listen = "127.0.0.1:{self.http}"
state = "{self.state}"
log = "text"
[dicom]
listen = "127.0.0.1:{self.dicom}"
ae-title = "MELO"
retry-max-s = 2
[[dicom.route]]
modality = ["DX", "CR"]
body-part = "chest"
tasks = ["all"]
[[dicom.route]]
sop-class = "SecondaryCaptureImageStorage"
tasks = ["all"]
[[dicom.destination]]
name = "pacs"
address = "127.0.0.1:{self.pacs}"
ae-title = "PACS"
[[dicom.destination]]
name = "implicit"
address = "127.0.0.1:{self.implicit}"
ae-title = "OLD"
[[dicom.destination]]
name = "orthanc-store"
address = "127.0.0.1:{self.orthanc[0][0]}"
ae-title = "ORTHANC"
[[dicom.destination]]
name = "orthanc-web"
url = "http://127.0.0.1:{self.orthanc[1][1]}/dicom-web"
""")

    def start_melo(self):
        self.server = Process(self.folder / "melo.log", self.melo, "serve", "--config", self.folder / "serve.toml")
        return until(lambda: listens(self.dicom) and listens(self.http))

    def start_pacs(self):
        folder = self.folder
        self.scp = Process(folder / "pacs.log", "storescp", "-aet", "PACS", "-od", self.arrived, self.pacs)
        return until(lambda: listens(self.pacs))

    def start_others(self):
        folder = self.folder
        self.old = Process(folder / "old.log", "storescp", "-aet", "OLD", "+xi", "-od", self.arrived_implicit,
                           self.implicit)
        self.orthancs = []
        for index, (dicom, web) in enumerate(self.orthanc):
            settings = {
                "Name": f"orthanc{index}", "DicomAet": "ORTHANC", "DicomPort": dicom, "HttpPort": web,
                "StorageDirectory": str(folder / f"orthanc{index}"), "IndexDirectory": str(folder / f"orthanc{index}"),
                "RemoteAccessAllowed": False, "AuthenticationEnabled": False, "Plugins": [str(PLUGIN)],
                "DicomWeb": {"Enable": True, "Root": "/dicom-web/",
                             "Servers": {"melo": {"Url": f"http://127.0.0.1:{self.http}/dicomweb/"}}},
                "DicomModalities": {"melo": ["MELO", "127.0.0.1", self.dicom]},
            }
            path = folder / f"orthanc{index}.json"
            path.write_text(json.dumps(settings))
            self.orthancs.append(Process(folder / f"orthanc{index}.log", "Orthanc", path))
        return until(lambda: listens(self.implicit) and all(listens(web) for _, web in self.orthanc))

    def stop(self):
        for process in [self.server, self.scp, self.old, *self.orthancs]:
            if process.process.poll() is None:
                process.stop()

    def store(self, *arguments, title="MELO"):
        return run("storescu", "-aec", title, "-v", "127.0.0.1", self.dicom, *arguments)

    def results(self, sop, folder=None):
        """Results for an image in a folder of storescp, by SOP class."""
        found = {}
        for path in (folder or self.arrived).iterdir():
            try:
                data = pydicom.dcmread(path)
            except Exception:
                continue  # still being written
            if source_of(data) == sop:
                found.setdefault(data.SOPClassUID, []).append((path, data))
        return found

    def both(self, sop, tasks, folder=None, seconds=60):
        whole = lambda found: len(found.get(SR, [])) >= tasks and len(found.get(SC, [])) >= tasks and found
        return until(lambda: whole(self.results(sop, folder)), seconds) or {}


def source_of(data):
    if data.SOPClassUID == SC:
        return data.SourceImageSequence[0].ReferencedSOPInstanceUID
    evidence = data.CurrentRequestedProcedureEvidenceSequence[0]
    return evidence.ReferencedSeriesSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID


def check_report(path, data, original, answers):
    dump = run("dsrdump", "+Pl", path)
    said = (dump.stdout + dump.stderr).strip()
    # Of text in Unicode it says that it does not check the characters.
    complaints = [line for line in said.splitlines() if line.startswith(("W:", "E:")) and "ISO_IR 192" not in line]
    check("dsrdump reads the report without complaint", dump.returncode == 0 and not complaints, said[-400:])
    html = run("dsr2html", path)
    check("dsr2html renders it", html.returncode == 0 and "Imaging Measurement Report" in html.stdout, html.stderr)
    same = all(getattr(data, name) == getattr(original, name) for name in
               ["PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyInstanceUID", "StudyDate", "StudyTime",
                "StudyID", "AccessionNumber"])
    check("patient and study are the image's", same)
    import highdicom as hd
    report = hd.sr.ComprehensiveSR.from_dataset(data)
    content = hd.sr.MeasurementReport.from_sequence(report.content, is_root=True)
    groups = content.get_image_measurement_groups()
    check("highdicom finds one measurement group", len(groups) == 1, str(len(groups)))
    task = groups[0].tracking_identifier
    answer = answers[task]
    numbers = {}
    for measurement in groups[0].get_measurements():
        numbers[measurement.name.meaning.removeprefix("Probability of ")] = float(measurement.value)
    close = numbers.keys() == answer["probabilities"].keys() and all(
        abs(numbers[name] - value) < 2e-6 for name, value in answer["probabilities"].items())
    check(f"the probabilities of {task} are those of /v1/predict", close, f"{numbers} {answer['probabilities']}")
    text = dump.stdout
    check("the digests are in it", answer["version"] in text and answer["backbone"] in text)


def check_capture(path, data, original):
    pixels = data.pixel_array
    check("pydicom decodes the capture", pixels.shape == (data.Rows, data.Columns, 3) and pixels.std() > 10)
    check("it says whose and what it is", data.PatientName == original.PatientName
          and data.StudyInstanceUID == original.StudyInstanceUID and data.BurnedInAnnotation == "NO"
          and "Research software. It is no medical device and must not be used for diagnosis." in data.ImageComments)
    out = path.with_suffix(".png")
    shown = run("dcmj2pnm", "+on", path, out)
    check("dcmj2pnm shows the capture", shown.returncode == 0 and out.stat().st_size > 1000, shown.stderr)
    return out


def first_line(stage, folder):
    check("echoscu", run("echoscu", "-aec", "MELO", "127.0.0.1", stage.dicom).returncode == 0)
    check("echoscu with another title is rejected", run("echoscu", "-aec", "OTHER", "127.0.0.1",
                                                         stage.dicom).returncode != 0)
    status, tasks = http(f"http://127.0.0.1:{stage.http}/v1/tasks")
    count = len(json.loads(tasks)["tasks"])
    path, original = image(folder, "plain")
    boundary = "melo-peer"
    form = b"".join([
        f'--{boundary}\r\nContent-Disposition: form-data; name="tasks"\r\n\r\nall\r\n'.encode(),
        f'--{boundary}\r\nContent-Disposition: form-data; name="image"; filename="a.dcm"\r\n\r\n'.encode(),
        path.read_bytes(), f"\r\n--{boundary}--\r\n".encode()])
    status, answer = http(f"http://127.0.0.1:{stage.http}/v1/predict", form,
                          {"Content-Type": f"multipart/form-data; boundary={boundary}"})
    check("POST /v1/predict", status == 200, answer[:200])
    answers = {answer["task"]: answer for answer in json.loads(answer)["images"][0]["answers"]}
    stored = stage.store(path)
    check("storescu", stored.returncode == 0, stored.stderr[-400:])
    found = stage.both(original.SOPInstanceUID, count)
    if not check("a report and a capture a task arrive at storescp", bool(found), str(list(stage.arrived.iterdir()))):
        return count
    for path, data in found[SR]:
        check_report(path, data, original, answers)
    for path, data in found[SC]:
        check_capture(path, data, original)
    implicit = stage.both(original.SOPInstanceUID, count, stage.arrived_implicit)
    check("they arrive at a storescp that takes implicit VR alone", bool(implicit))
    same = implicit and all(data.PatientName == original.PatientName for _, data in implicit[SR])
    check("and their names are whole", bool(same))
    for index, way in enumerate(["C-STORE", "STOW-RS"]):
        web = stage.orthanc[index][1]
        classes = lambda: orthanc_classes(web, original.StudyInstanceUID)
        found = until(lambda: (found := classes()) and found.count(SR) == count and found.count(SC) == count and found)
        check(f"they arrive at Orthanc by {way}", bool(found), str(classes()))
    return count


def orthanc_classes(web, study):
    query = {"Level": "Instance", "Query": {"StudyInstanceUID": study}, "Expand": False}
    status, found = http(f"http://127.0.0.1:{web}/tools/find", json.dumps(query).encode())
    classes = []
    for instance in json.loads(found):
        status, value = http(f"http://127.0.0.1:{web}/instances/{instance}/metadata/SopClassUid")
        classes.append(value.decode())
    return classes


def syntaxes(stage, folder, tasks):
    """Every transfer syntax that DCMTK can write and send."""
    path, original = image(folder, "syntaxes")
    ways = [
        ("implicit", ["dcmconv", "+ti"], "-xi"),
        ("big endian", ["dcmconv", "+tb"], "-xb"),
        ("deflated", ["dcmconv", "+td"], "-xd"),
        ("RLE", ["dcmcrle"], "-xr"),
        ("JPEG lossless", ["dcmcjpeg", "+e1"], "-xs"),
        ("JPEG extended", ["dcmcjpeg", "+ee"], "-xx"),
        ("JPEG-LS lossless", ["dcmcjpls"], "-xt"),
        ("JPEG-LS near-lossless", ["dcmcjpls", "+en"], "-xu"),
    ]
    for name, command, option in ways:
        data = pydicom.dcmread(path)
        data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        plain, coded = folder / "plain-in.dcm", folder / "coded.dcm"
        data.save_as(plain)
        made = run(*command, plain, coded)
        if made.returncode != 0:
            check(f"{name}: {command[0]}", False, made.stderr)
            continue
        sop = pydicom.dcmread(coded, stop_before_pixels=True).SOPInstanceUID
        stored = stage.store(option, coded)
        check(f"{name}: stored and answered", stored.returncode == 0 and bool(stage.both(sop, tasks)),
              stored.stderr[-300:])


def scope(stage, folder):
    path, original = image(folder, "brain", modality="MR", body="HEAD")
    stored = stage.store(path)
    refused = stage.state / "spool" / "refused"
    reason = lambda: [json.loads(note.read_text())["reason"] for note in refused.glob("*.json")]
    said = until(lambda: [text for text in reason() if "Modality is `MR`" in text])
    check("an image out of scope is refused, by attribute and value", stored.returncode == 0 and bool(said), str(reason()))
    strange = run("storescu", "-aec", "MELO", "127.0.0.1", stage.dicom, next(stage.arrived.glob("SR*")))
    check("a structured report is not accepted", strange.returncode != 0 or "not" in strange.stderr.lower(), strange.stderr)


def web(stage, folder, tasks):
    path, original = image(folder, "web")
    def post(where, *files):
        parts = b"".join(b"--b1\r\nContent-Type: application/dicom\r\n\r\n" + file + b"\r\n" for file in files)
        return http(f"http://127.0.0.1:{stage.http}/dicomweb/studies{where}", parts + b"--b1--\r\n",
                    {"Content-Type": 'multipart/related; type="application/dicom"; boundary=b1'})
    status, body = post("", path.read_bytes())
    stored = json.loads(body)["00081199"]["Value"][0]["00081155"]["Value"] == [original.SOPInstanceUID]
    check("STOW-RS: stored and named", status == 200 and stored, body)
    check("STOW-RS: answered", bool(stage.both(original.SOPInstanceUID, tasks)))
    status, body = post(f"/{generate_uid()}", path.read_bytes())
    check("STOW-RS: another study is a conflict", status == 409 and "00081198" in json.loads(body), body)
    status, body = post("", path.read_bytes(), b"no DICOM")
    check("STOW-RS: one of two", status == 202 and len(json.loads(body)["00081198"]["Value"]) == 1, body)
    other, seen = image(folder, "through-orthanc")
    port = stage.orthanc[1][1]
    status, body = http(f"http://127.0.0.1:{port}/instances", other.read_bytes())
    resource = json.loads(body)["ID"]
    status, body = http(f"http://127.0.0.1:{port}/dicom-web/servers/melo/stow",
                        json.dumps({"Resources": [resource], "Synchronous": True}).encode())
    check("Orthanc sends by STOW-RS", status == 200, body)
    check("and it is answered", bool(stage.both(seen.SOPInstanceUID, tasks)))
    third, seen = image(folder, "by-orthanc")
    port = stage.orthanc[0][1]
    status, body = http(f"http://127.0.0.1:{port}/instances", third.read_bytes())
    status, body = http(f"http://127.0.0.1:{port}/modalities/melo/store", json.loads(body)["ID"].encode())
    check("Orthanc sends by C-STORE", status == 200, body)
    check("and it is answered", bool(stage.both(seen.SOPInstanceUID, tasks)))


def receiver_away(stage, folder, tasks):
    stage.scp.stop()
    path, original = image(folder, "away")
    check("storescu while the receiver is away", stage.store(path).returncode == 0)
    waiting = stage.state / "spool" / "outgoing" / "pacs"
    check("results wait", bool(until(lambda: len(list(waiting.glob("*.dcm"))) == 2 * tasks)))
    stage.server.stop(signal.SIGKILL)
    stage.start_melo()
    stage.start_pacs()
    check("they arrive after kill -9 and a restart", bool(stage.both(original.SOPInstanceUID, tasks)))
    check("and the outbox is empty", bool(until(lambda: not list(waiting.glob("*.dcm")))))


def killed(stage, folder, tasks, rounds=3, objects=12):
    """kill -9 while objects come: what was acknowledged is answered, once."""
    many = folder / "many"
    acknowledged = []
    for turn in range(rounds):
        shutil.rmtree(many, ignore_errors=True)
        many.mkdir()
        for index in range(objects):
            image(many, f"{turn}-{index}", side=64)
        command = ["storescu", "-aec", "MELO", "-v", "+sd", "127.0.0.1", str(stage.dicom), str(many)]
        sender = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        time.sleep(0.4 + 0.5 * turn)
        stage.server.stop(signal.SIGKILL)
        output = sender.communicate(timeout=120)[0].splitlines()
        sending = None
        for line in output:
            if line.startswith("I: Sending file: "):
                sending = line.removeprefix("I: Sending file: ").strip()
            if line.startswith("I: Received Store Response (Success)"):
                acknowledged.append(pydicom.dcmread(sending, stop_before_pixels=True).SOPInstanceUID)
        stage.start_melo()
    missing = lambda: [sop for sop in acknowledged if not stage.both(sop, tasks, seconds=0)]
    until(lambda: not missing(), 180)
    check(f"kill -9 under load: all {len(acknowledged)} acknowledged objects are answered", acknowledged and not missing(),
          str(len(missing())))
    uids = {}
    for sop in acknowledged:
        for found in stage.results(sop).values():
            for _, data in found:
                uids.setdefault(sop, set()).add(data.SOPInstanceUID)
    check("and none twice", all(len(found) == 2 * tasks for found in uids.values()), str(uids)[:400])


def hostile(stage):
    random = np.random.default_rng(6)
    for size in [0, 1, 5, 6, 10, 100, 10_000, 200_000]:
        for head in [b"", b"\x01\x00\x00\x00\x00\x46\x00\x01", b"\x01\x00\xff\xff\xff\xff", b"\x04\x00\x00\x00\x00\x08"]:
            with socket.create_connection(("127.0.0.1", stage.dicom), 5) as peer:
                try:
                    peer.sendall(head + random.integers(0, 256, size, dtype=np.uint8).tobytes())
                    peer.shutdown(socket.SHUT_WR)
                except OSError:
                    pass
    echo = until(lambda: run("echoscu", "-aec", "MELO", "127.0.0.1", stage.dicom).returncode == 0)
    check("after nonsense it still answers", bool(echo))
    log = (stage.folder / "melo.log").read_text(errors="replace")
    check("no panic", "panicked" not in log, log[-400:])
    check("no name of a patient in the log", "ller" not in log and "PEER-1" not in log)


def files(stage, folder):
    """Files of others: taken or refused, never a broken association."""
    paths = sorted(folder.glob("*.dcm"))
    sent = 0
    for path in paths:
        for option in ["-xe", "-xi", "-xb", "-xd", "-xr", "-xs", "-xy", "-xx", "-xt", "-xu", "-xv", "-xw"]:
            if stage.store(option, path).returncode == 0:
                sent += 1
                break
    print(f"     {sent} of {len(paths)} files of {folder} were sent")
    incoming = stage.state / "spool" / "incoming"
    check("all of them left the spool", bool(until(lambda: not list(incoming.glob("*.dcm")), 300)))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--melo", type=Path, default=Path("target/release/melo"))
    parser.add_argument("--files", type=Path, help="DICOM files of others that are sent, too")
    parser.add_argument("--keep", type=Path, help="an empty folder for everything that comes out")
    arguments = parser.parse_args()
    missing = [tool for tool in TOOLS if shutil.which(tool) is None] + [str(PLUGIN)] * (not PLUGIN.exists())
    if missing:
        sys.exit(f"not found: {', '.join(missing)}; Debian: apt-get install dcmtk orthanc orthanc-dicomweb")
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        made = folder / "made"
        made.mkdir()
        stage = Stage(folder, arguments.melo.resolve())
        check("peers start", stage.start_pacs() and stage.start_others())
        check("melo serve starts", stage.start_melo())
        try:
            tasks = first_line(stage, made)
            syntaxes(stage, made, tasks)
            scope(stage, made)
            web(stage, made, tasks)
            receiver_away(stage, made, tasks)
            killed(stage, made, tasks)
            hostile(stage)
            if arguments.files:
                files(stage, arguments.files)
            check("SIGTERM ends it well", stage.server.stop() == 0)
        finally:
            stage.stop()
    print(f"{failures} failed")
    sys.exit(min(failures, 100))


if __name__ == "__main__":
    main()
