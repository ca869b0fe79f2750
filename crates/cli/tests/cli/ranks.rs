//! A process that a launcher started with others never trains alone by accident. Real launchers: `tools/scale/mpi.sh`, and here where
//! there is one.

#![cfg(unix)]

use crate::workplace::{SIDE, Workplace, bytes, melo, run, train, train_by};
use melo::synthetic::Phantom;
use std::path::{Path, PathBuf};
use std::process::Command;

fn task(place: &Workplace) -> (PathBuf, PathBuf) {
    (place.tiny_backbone("vit", 5, None), place.phantoms(Phantom::Mammogram, SIDE, [9, 7, 5]))
}

/// As rank `rank` of two that Open MPI started.
fn of_two(place: &Workplace, rank: &str, arguments: &[&str]) -> Command {
    let (backbone, data) = task(place);
    let mut command = train(&backbone, &data, &place.at("task.safetensors"));
    command.env("OMPI_COMM_WORLD_SIZE", "2").env("OMPI_COMM_WORLD_RANK", rank).env("SOURCE_DATE_EPOCH", "1700000000");
    command.args(["--epochs", "1", "--batch-size", "4"]).args(arguments);
    command
}

#[test]
fn one_of_several_without_a_library_ends_with_one_line_a_machine() {
    let place = Workplace::new();
    // Rank 0, the first of another machine, and the second of one.
    for (rank, local, speaks) in [("0", "0", true), ("1", "0", true), ("1", "1", false)] {
        let mut command = of_two(&place, rank, &["--mpi", "/nowhere/libmpi.so"]);
        let ran = run(command.env("OMPI_COMM_WORLD_LOCAL_RANK", local));
        assert_eq!((ran.status, ran.stderr.lines().count()), (1, usize::from(speaks)), "{}", ran.stderr);
        let named = ran.stderr.starts_with("melo: /nowhere/libmpi.so: ") && ran.stderr.contains("--mpi FILE");
        assert_eq!(named, speaks, "{}", ran.stderr);
        assert!(!place.at("task.safetensors").exists());
    }
}

#[test]
fn wrong_usage_is_told_by_rank_0() {
    let place = Workplace::new();
    let told = |rank| {
        let ran = run(&mut of_two(&place, rank, &["--no-such-flag"]));
        (ran.status, ran.stderr.contains("--no-such-flag"), ran.stderr.is_empty())
    };
    assert_eq!(told("0"), (2, true, false));
    assert_eq!(told("1"), (2, false, true));
}

#[test]
fn each_trains_by_itself_where_that_is_asked() {
    let place = Workplace::new();
    run(&mut of_two(&place, "1", &["--mpi", "off"])).good();
    assert!(place.at("task.safetensors").exists());
}

/// A launcher of Open MPI that is installed.
fn launcher() -> Option<&'static str> {
    let is_open_mpi = |name: &&str| {
        let version = Command::new(name).arg("--version").output();
        version.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).contains("Open MPI"))
    };
    ["mpirun.openmpi", "mpirun"].into_iter().find(is_open_mpi)
}

#[test]
fn ranks_of_a_launcher_train_the_plugin_of_one_process() {
    let Some(launcher) = launcher() else {
        eprintln!("skipped: no mpirun of Open MPI");
        return;
    };
    let place = Workplace::new();
    let (backbone, data) = task(&place);
    let trained = |mut command: Command, out: &Path| {
        command.args(["--epochs", "2", "--batch-size", "4", "--task", "mammo"]);
        run(command.env("SOURCE_DATE_EPOCH", "1700000000")).json();
        bytes(out)
    };
    let out = place.at("alone.safetensors");
    let mut command = train(&backbone, &data, &out);
    command.arg("--json");
    let alone = trained(command, &out);
    for ranks in ["1", "3"] {
        let out = place.at(format!("ranks-{ranks}.safetensors"));
        let mut command = Command::new(launcher);
        command.args(["--allow-run-as-root", "--oversubscribe", "-n", ranks]).arg(melo().get_program());
        command.args(["--threads", "1"]);
        let mut command = train_by(command, &backbone, &data, &out);
        command.arg("--json");
        assert!(trained(command, &out) == alone, "{ranks} ranks");
    }
}
