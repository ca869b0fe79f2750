//! `melo study --launcher slurm` against commands that stand in for Slurm's, and cells one by one for any other scheduler. A real Slurm:
//! `tools/scale/slurm.sh`.

#![cfg(unix)]

use crate::workplace::{Workplace, bytes, melo, run};
use melo::synthetic::Phantom;
use serde_json::Value;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

/// Two methods, two seeds.
const CELLS: [&str; 4] =
    ["smear/tiny/lora/seed-0", "smear/tiny/linear/seed-0", "smear/tiny/lora/seed-1", "smear/tiny/linear/seed-1"];

const STUDY: &str = r#"
[study]
name = "phantoms"
seeds = [0, 1]
methods = ["lora", "linear"]
bootstrap = 200
[train]
epochs = 2
batch_size = 8
[slurm]
partition = "main"
[[backbone]]
name = "tiny"
weights = "tiny.safetensors"
[[task]]
name = "smear"
labels = "blood_smear/labels.csv"
"#;

/// Takes a number, and runs the tasks one after the other, or as files in its folder say: `hold` lets all wait, `end-TASK` says how a task
/// ends without having run, once.
const SBATCH: &str = r#"#!/bin/sh
cd "$(dirname "$0")/../state" || exit 1
if [ -f refuse ]; then cat refuse >&2; exit 1; fi
for script; do :; done
job=$(($(ls -d job-* 2> /dev/null | wc -l) + 1))
mkdir "job-$job"
cp "$script" "job-$job/script"
name=$(sed -n 's/^#SBATCH --job-name=//p' "$script")
tasks=$(sed -n 's/^#SBATCH --array=1-\([0-9]*\).*/\1/p' "$script")
log=$(sed -n 's/^#SBATCH --output=//p' "$script")
for task in $(seq "$tasks"); do echo "${job}_$task|PENDING|Resources||$name" > "job-$job/$task"; done
(
    while [ -f hold ]; do sleep 0.1; done
    for task in $(seq "$tasks"); do
        if [ -f "end-$task" ]; then
            echo "${job}_$task|$(cat "end-$task")|None|n1|$name" > "job-$job/$task"
            rm "end-$task"
            continue
        fi
        echo "${job}_$task|RUNNING|None|n1|$name" > "job-$job/$task"
        SLURM_ARRAY_JOB_ID=$job SLURM_ARRAY_TASK_ID=$task sh "$script" > "$(echo "$log" | sed "s/%a/$task/")" 2>&1 \
            && state=COMPLETED || state=FAILED
        echo "${job}_$task|$state|None|n1|$name" > "job-$job/$task"
    done
) > /dev/null 2>&1 < /dev/null &
echo "$job"
"#;

const SQUEUE: &str = "#!/bin/sh\ncd \"$(dirname \"$0\")/../state\" || exit 1\ncat job-*/[0-9]* 2> /dev/null || true\n";

struct Material {
    workplace: Workplace,
    file: PathBuf,
}

/// A study, and what it answers on this machine.
static MATERIAL: LazyLock<Material> = LazyLock::new(|| {
    let workplace = Workplace::lasting("study_slurm");
    workplace.tiny_backbone("tiny", 3, None);
    workplace.phantoms(Phantom::BloodSmear, 32, [16, 12, 12]);
    let file = workplace.write("study.toml", STUDY);
    run(&mut study(&file, &workplace.at("local"))).good();
    Material { workplace, file }
});

fn study(file: &Path, out: &Path) -> Command {
    let mut command = melo();
    command.arg("study").arg(file).arg("--out").arg(out);
    command
}

/// A cluster of one test, and the folder of a study on it.
struct Cluster {
    state: PathBuf,
    path: OsString,
    out: PathBuf,
}

impl Cluster {
    fn new(name: &str) -> Self {
        let place = &MATERIAL.workplace;
        std::fs::create_dir_all(place.at(format!("{name}/state"))).expect("the folder can be made");
        for (command, text) in [("sbatch", SBATCH), ("squeue", SQUEUE)] {
            let path = place.write(&format!("{name}/bin/{command}"), text);
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
            std::fs::set_permissions(&path, mode).expect("it can be made a program");
        }
        let mut path = place.at(format!("{name}/bin")).into_os_string();
        path.push(":");
        path.push(std::env::var_os("PATH").expect("a path"));
        Cluster { state: place.at(format!("{name}/state")), path, out: place.at(format!("{name}/out")) }
    }

    fn study(&self, file: &Path) -> Command {
        let mut command = study(file, &self.out);
        command.args(["--launcher", "slurm"]).env("PATH", &self.path);
        command
    }

    fn say(&self, file: &str, text: &str) {
        std::fs::write(self.state.join(file), text).expect("the file can be written");
    }

    /// Arrays that were submitted.
    fn jobs(&self) -> usize {
        let entries = std::fs::read_dir(&self.state).expect("the folder can be listed").flatten();
        entries.filter(|entry| entry.file_name().to_string_lossy().starts_with("job-")).count()
    }
}

/// What each cell answered, without what depends on the clock.
fn answers(out: &Path) -> BTreeMap<&'static str, Value> {
    let of = |cell| {
        let result: Value =
            serde_json::from_slice(&bytes(&out.join("cells").join(cell).join("result.json"))).expect("JSON");
        (cell, ["identity", "val", "test", "temperature"].map(|field| result[field].clone()).into_iter().collect())
    };
    CELLS.into_iter().map(of).collect()
}

fn interrupt(child: &Child) {
    let sent = Command::new("kill").args(["-INT", &child.id().to_string()]).status();
    assert!(sent.expect("kill starts").success());
}

fn until(mut holds: impl FnMut() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < Duration::from_secs(60), "it takes too long");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_lost_cell_is_submitted_again_and_the_answers_are_those_of_this_machine() {
    let Material { workplace, file } = &*MATERIAL;
    let cluster = Cluster::new("lost");
    cluster.say("end-2", "NODE_FAIL");
    let ran = run(cluster.study(file).args(["--cpus", "2", "--json"]));
    let lost = "smear/tiny/linear/seed-0 was lost and is submitted again: NODE_FAIL on n1";
    assert!(ran.stderr.contains(lost), "{}", ran.stderr);
    assert!(ran.stderr.contains("job 1: 4 cells submitted") && ran.stderr.contains("job 2: 1 cells"), "{}", ran.stderr);
    assert_eq!(ran.json()["cells_done"], 4);
    assert_eq!(answers(&cluster.out), answers(&workplace.at("local")));
    assert_eq!(cluster.jobs(), 2);
    let left = |cell: &str| {
        let folder =
            std::fs::read_dir(cluster.out.join("cells").join(cell)).expect("the folder can be listed").flatten();
        folder.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect::<std::collections::BTreeSet<_>>()
    };
    for cell in CELLS {
        assert_eq!(left(cell).into_iter().collect::<Vec<_>>(), ["plugin.safetensors", "result.json"]);
    }
    run(&mut cluster.study(file)).good();
    assert_eq!(cluster.jobs(), 2, "nothing is computed twice");
}

#[test]
fn a_cell_that_is_lost_again_and_again_is_given_up_and_one_that_was_cancelled_waits_for_the_next_call() {
    let Material { file, .. } = &*MATERIAL;
    let cluster = Cluster::new("given_up");
    cluster.say("end-1", "OUT_OF_MEMORY");
    cluster.say("end-3", "CANCELLED");
    let ran = run(cluster.study(file).args(["--retries", "0"]));
    assert_eq!(ran.status, 1, "{ran:?}");
    let reasons = [
        "smear/tiny/lora/seed-0: lost 1 times without an epoch in between, at last OUT_OF_MEMORY on n1",
        "smear/tiny/lora/seed-1: CANCELLED on n1",
        "2 of 4 cells failed; the same command tries them again",
    ];
    assert!(reasons.iter().all(|reason| ran.stderr.contains(reason)), "{}", ran.stderr);
    assert_eq!(cluster.jobs(), 1);
    assert_eq!(run(cluster.study(file).arg("--json")).json()["cells_done"], 4);
    assert_eq!(cluster.jobs(), 2);
}

#[test]
fn who_stops_watching_leaves_the_jobs_and_the_same_command_picks_them_up() {
    let Material { workplace, file } = &*MATERIAL;
    let cluster = Cluster::new("left");
    cluster.say("hold", "");
    let watch = cluster.study(file).stderr(Stdio::piped()).spawn().expect("the command starts");
    until(|| cluster.jobs() == 1 && cluster.out.join("slurm/001/array.json").is_file());
    run(&mut cluster.study(file)).refused(1, &["another study works in this folder", "--out"]);
    std::thread::sleep(Duration::from_secs(3));
    interrupt(&watch);
    let ended = watch.wait_with_output().expect("the process ends");
    let said = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.code(), Some(130), "{said}");
    assert!(said.contains("4 waiting (4 Resources)"), "{said}");
    assert!(said.contains("job 1 goes on; the same command watches again; scancel 1 ends them"), "{said}");

    // As if it had died before it knew the job.
    let record = cluster.out.join("slurm/001/array.json");
    let known = String::from_utf8(bytes(&record)).expect("it is text");
    std::fs::write(&record, known.replace("\"job\":\"1\"", "\"job\":null")).expect("the file can be written");
    std::fs::remove_file(cluster.state.join("hold")).expect("the file can be removed");
    assert_eq!(run(cluster.study(file).arg("--json")).json()["cells_done"], 4);
    assert_eq!(cluster.jobs(), 1, "nothing is submitted twice");
    assert_eq!(answers(&cluster.out), answers(&workplace.at("local")));
}

#[test]
fn a_cell_that_fails_in_its_own_words_names_its_log() {
    let Material { workplace, .. } = &*MATERIAL;
    let cluster = Cluster::new("broken");
    workplace.phantoms(Phantom::Fundus, 32, [8, 8, 8]);
    workplace.write("fundus/test_3.png", "no image");
    let text = STUDY.replace("blood_smear/labels.csv", "fundus/labels.csv").replace("seeds = [0, 1]", "seeds = [0]");
    let file = workplace.write("broken.toml", text);
    let ran = run(&mut cluster.study(&file));
    assert_eq!((ran.status, cluster.jobs()), (1, 1), "what failed in its own words is not tried again: {ran:?}");
    let log = cluster.out.join("slurm/001/1.log");
    let failed = ran.stderr.lines().find(|line| line.starts_with("melo: smear/tiny/lora/seed-0: ")).expect("a line");
    assert!(failed.contains("test_3.png") && failed.ends_with(&format!("its log: {}", log.display())), "{failed}");
    assert!(String::from_utf8(bytes(&log)).expect("it is text").contains("test_3.png"));
    let listed = run(study(&file, &cluster.out).args(["--list-cells", "--json"])).json_lines();
    assert!(listed[0]["reason"].as_str().expect("a reason").contains("test_3.png"), "{listed:?}");
    assert_eq!((&listed[0]["state"], &listed[0]["job"]), (&"failed".into(), &"1_1".into()));
}

#[test]
fn a_dry_run_prints_the_script_and_submits_nothing() {
    let Material { workplace, file } = &*MATERIAL;
    let cluster = Cluster::new("dry");
    let template = workplace.write("task.sh", "#!/bin/bash\n{{options}}\nmodule load melo\n{{command}}\n");
    let mut command = cluster.study(file);
    command.args([
        "--dry-run",
        "--account",
        "lab",
        "--memory",
        "8G",
        "--cpus",
        "3",
        "--jobs",
        "2",
        "--sbatch=--qos=long",
    ]);
    let script = run(command.arg("--template").arg(template)).good();
    let (head, task) = script.split_once("\nmodule load melo\n").expect("the template's own line");
    for option in ["array=1-4%2", "partition=main", "account=lab", "mem=8G", "cpus-per-task=3", "qos=long"] {
        assert!(head.lines().any(|line| line == format!("#SBATCH --{option}")), "{option}: {head}");
    }
    assert!(task.contains("--threads 3 study ") && task.contains("exec /"), "{task}");
    assert_eq!(cluster.jobs(), 0);
    assert!(!cluster.out.join("slurm").exists());
}

#[test]
fn what_cannot_be_submitted_is_refused_in_a_line() {
    let Material { workplace, file } = &*MATERIAL;
    let cluster = Cluster::new("refused");
    run(cluster.study(file).env("PATH", workplace.at("nowhere")))
        .refused(1, &["sbatch", "not installed here", "--list-cells"]);
    cluster.say(
        "refuse",
        "sbatch: error: invalid partition specified: main\nsbatch: error: Batch job submission failed\n",
    );
    let said = "sbatch refused: sbatch: error: invalid partition specified: main; sbatch: error: Batch job";
    let ran = run(&mut cluster.study(file));
    assert!(ran.status == 1 && ran.stderr.contains(said), "{}", ran.stderr);
    let template = workplace.write("lacking.sh", "#!/bin/sh\n{{options}}\n");
    let ran = run(cluster.study(file).arg("--template").arg(template));
    assert!(ran.status == 1 && ran.stderr.contains("lacking.sh: expected {{command}} once"), "{}", ran.stderr);
    run(cluster.study(file).arg("--sbatch=--array=1-9")).refused(1, &["slurm.options", "--array=1-9", "itself"]);
    let wrong = workplace.write("wrong_slurm.toml", STUDY.replace("partition = ", "partitions = "));
    run(&mut cluster.study(&wrong)).refused(1, &["wrong_slurm.toml", "partitions"]);
    run(study(file, &cluster.out).args(["--partition", "main"])).refused(2, &["--partition", "--launcher slurm"]);
    run(study(file, &cluster.out).arg("--dry-run")).refused(2, &["--dry-run", "--launcher slurm"]);
    assert_eq!(cluster.jobs(), 0);
}

#[test]
fn cells_can_be_listed_and_computed_one_by_one() {
    let Material { workplace, file } = &*MATERIAL;
    let out = workplace.at("one_by_one");
    let listed = |flags: &[&str]| run(study(file, &out).arg("--list-cells").args(flags));
    assert_eq!(listed(&[]).good().lines().next(), Some(&*format!("waiting {}", CELLS[0])));
    let said = run(study(file, &out).args(["--cell", CELLS[0], "--json"])).json();
    assert_eq!((&said["cell"], &said["epochs"]), (&CELLS[0].into(), &2.into()));
    for cell in CELLS {
        assert!(
            run(study(file, &out).args(["--cell", cell])).good().starts_with(cell),
            "one that is done says so again"
        );
    }
    let states: Vec<_> = listed(&["--json"]).json_lines();
    assert!(states.iter().all(|state| state["state"] == "done"), "{states:?}");
    assert_eq!(run(study(file, &out).args(["--report-only", "--json"])).json()["cells_done"], 4);
    assert_eq!(answers(&out), answers(&workplace.at("local")));
    let unknown = run(study(file, &out).args(["--cell", "smear/tiny/full/seed-0"]));
    unknown.refused(1, &["no cell of the study has the name smear/tiny/full/seed-0"]);
}

#[test]
fn a_cell_whose_process_was_killed_is_taken_over_at_once() {
    let Material { workplace, .. } = &*MATERIAL;
    let file = workplace.write("long.toml", STUDY.replace("epochs = 2", "epochs = 4000\npatience = 0"));
    let out = workplace.at("taken_over");
    let cell = || {
        let mut command = study(&file, &out);
        command.args(["--cell", CELLS[0]]).stderr(Stdio::null()).spawn().expect("the command starts")
    };
    let epochs = || {
        let listed = run(study(&file, &out).args(["--list-cells", "--json"])).json_lines().remove(0);
        (listed["state"].as_str().expect("a word").to_owned(), listed["epochs"].as_u64().expect("a number"))
    };
    let mut first = cell();
    until(|| epochs().1 > 2);
    assert_eq!(epochs().0, "running");
    first.kill().expect("the process can be killed");
    first.wait().expect("the process ends");
    let (state, before) = epochs();
    assert_eq!(state, "waiting");
    let mut second = cell();
    until(|| epochs().0 == "running");
    interrupt(&second);
    assert_eq!(second.wait().expect("the process ends").code(), Some(130));
    let (state, after) = epochs();
    assert!(state == "waiting" && after >= before, "{before} epochs, then {after}");
}
