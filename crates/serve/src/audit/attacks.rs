//! Nothing is recorded in a file that somebody took away, and no server goes on behind its last checkpoint.

use super::tests::{chain, record, tamper, tamper_again};
use super::*;
use melo_sign::SecretKey;

/// An audit with rows and what keeps its checkpoints.
struct Kept {
    folder: tempfile::TempDir,
    path: PathBuf,
    config: CheckpointConfig,
    key: SecretKey,
}

fn kept(rows: usize) -> Kept {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.sqlite");
    let config = CheckpointConfig {
        file: folder.path().join("elsewhere"),
        key: folder.path().join("audit.key"),
        every: Duration::from_secs(3600),
    };
    let key = SecretKey::generate().unwrap();
    key.write(&config.key).unwrap();
    let kept = Kept { folder, path, config, key };
    kept.open().unwrap().append(&(0..rows).map(record).collect::<Vec<_>>()).unwrap();
    kept
}

impl Kept {
    fn open(&self) -> Result<Audit, Error> {
        Audit::open(&self.path, Some(&self.config))
    }

    fn checkpoint(&self) -> Checkpoint {
        Checkpoint::read(&self.config.file, self.key.public()).unwrap()
    }

    /// What `melo audit verify --checkpoint` finds, and whether a server refuses to start.
    fn found(&self) -> Broken {
        let found = verify(&self.path, Some(&self.checkpoint().anchor())).unwrap().broken.unwrap();
        let error = self.open().err().unwrap_or_else(|| panic!("a server starts behind {found}"));
        assert!(matches!(error, Error::Damaged { .. }), "{error}");
        found
    }
}

fn without_guards() -> &'static str {
    &file::SCHEMA[file::SCHEMA.find("CREATE TRIGGER").unwrap()..]
}

#[test]
fn a_file_that_is_gone_replaced_or_has_another_name_takes_no_more_answers() {
    type Attack = fn(&Path);
    let attacks: [(&str, Attack); 5] = [
        ("is gone", |path| std::fs::remove_file(path).unwrap()),
        ("is another one", |path| {
            let copy = path.with_extension("copy");
            std::fs::copy(path, &copy).unwrap();
            std::fs::rename(&copy, path).unwrap();
        }),
        ("has 2 names", |path| std::fs::hard_link(path, path.with_extension("link")).unwrap()),
        ("is no plain file", |path| {
            let moved = path.with_extension("moved");
            std::fs::rename(path, &moved).unwrap();
            #[cfg(unix)]
            std::os::unix::fs::symlink(&moved, path).unwrap();
        }),
        ("audit.sqlite-wal is gone", |path| std::fs::remove_file(file::beside(path, "-wal")).unwrap()),
    ];
    for (what, attack) in attacks {
        let (_folder, path, head) = chain(3);
        let audit = Audit::open(&path, None).unwrap();
        audit.append(&[record(4)]).unwrap();
        attack(&path);
        for _ in 0..2 {
            let error = audit.append(&[record(5)]).unwrap_err().to_string();
            assert!(error.contains(what), "{what}: {error}");
        }
        assert_eq!(audit.head().rows, head.rows + 1, "{what}");
    }
}

#[test]
fn a_guard_that_says_something_else_takes_no_more_answers() {
    let ignoring = "CREATE TRIGGER quiet BEFORE INSERT ON records BEGIN SELECT RAISE(IGNORE); END;";
    let changed = "DROP TRIGGER records_are_not_changed; CREATE TRIGGER records_are_not_changed BEFORE UPDATE ON records \
                   BEGIN SELECT 1; END;";
    let editing = "DROP TRIGGER records_are_not_changed; CREATE TRIGGER later AFTER INSERT ON records \
                   BEGIN UPDATE records SET who = 'nobody' WHERE n = NEW.n; END;";
    for (sql, what) in [
        (ignoring, "put in: trigger quiet"),
        (changed, "changed: trigger records_are_not_changed"),
        (editing, "gone: trigger records_are_not_changed; put in: trigger later"),
        ("CREATE VIEW other AS SELECT 1", "put in: view other"),
    ] {
        let (_folder, path, head) = chain(3);
        let audit = Audit::open(&path, None).unwrap();
        tamper_again(&path, sql);
        let error = audit.append(&[record(4)]).unwrap_err().to_string();
        assert!(error.contains(what) || sql == ignoring, "{sql}: {error}");
        drop(audit);
        let report = verify(&path, None).unwrap();
        let broken = report.broken.unwrap();
        assert_eq!((report.head, broken.kind), (head, Kind::Unguarded), "{broken}");
        assert!(broken.reason.contains(what), "{broken}");
        assert!(Audit::open(&path, None).is_err(), "{sql}");
    }
}

#[test]
fn rows_that_another_process_added_are_not_gone_on_behind() {
    let (_folder, path, head) = chain(3);
    let audit = Audit::open(&path, None).unwrap();
    let mut intruder = Store::open(&path).unwrap();
    intruder.append(&head, [record(77)].iter(), 0).unwrap();
    for _ in 0..2 {
        let error = audit.append(&[record(4)]).unwrap_err().to_string();
        assert!(error.contains("another process wrote it"), "{error}");
    }
    assert_eq!(audit.head(), head);
}

#[test]
fn checkpoints_follow_the_chain_and_are_signed() {
    let kept = kept(5);
    assert_eq!(kept.checkpoint().head.rows, 5, "at the end");
    let audit = kept.open().unwrap();
    audit.append(&[record(6)]).unwrap();
    assert_eq!(kept.checkpoint().head.rows, 5, "not before it is due");
    drop(audit);
    assert_eq!(kept.checkpoint().head.rows, 6);
    let now = CheckpointConfig { every: Duration::ZERO, ..kept.config.clone() };
    let audit = Audit::open(&kept.path, Some(&now)).unwrap();
    audit.append(&[record(7)]).unwrap();
    audit.append(&[record(8)]).unwrap();
    assert!(kept.checkpoint().head.rows >= 7, "before the next row");
    drop(audit);
    let text = std::fs::read_to_string(&kept.config.file).unwrap();
    let origin = format!("melo.audit/{}", kept.key.public().id());
    assert!(text.starts_with(&format!("{origin}\n8\n")) && text.contains(&format!("\n\n\u{2014} {origin} ")), "{text}");
    assert!(verify(&kept.path, Some(&kept.checkpoint().anchor())).unwrap().broken.is_none());
    for (from, to, why) in [("\n8\n", "\n7\n", "was changed"), ("\u{2014}", "-", "no signed note")] {
        std::fs::write(&kept.config.file, text.replacen(from, to, 1)).unwrap();
        let error = kept.open().err().unwrap().to_string();
        assert!(error.contains(why) && error.contains("elsewhere"), "{error}");
    }
    let other = SecretKey::generate().unwrap();
    std::fs::write(&kept.config.file, kept.checkpoint_by(&other)).unwrap();
    let error = kept.open().err().unwrap().to_string();
    assert!(error.contains(&format!("not signed by key {}", kept.key.public().id())), "{error}");
}

impl Kept {
    fn checkpoint_by(&self, key: &SecretKey) -> String {
        Checkpoint::now(verify(&self.path, None).unwrap().head, None).sign(key).to_string()
    }
}

#[test]
fn all_four_ways_around_the_chain_are_found_by_its_checkpoint() {
    // Removed, and begun anew.
    let one = kept(6);
    std::fs::remove_file(&one.path).unwrap();
    drop(Audit::open(&one.path, None).unwrap());
    assert_eq!(one.found().kind, Kind::Cut);
    let grown = Audit::open(&one.path, None).unwrap();
    grown.append(&(10..20).map(record).collect::<Vec<_>>()).unwrap();
    drop(grown);
    assert_eq!(one.found().kind, Kind::Rewritten);
    // Guards that ignore what is added.
    let two = kept(6);
    tamper_again(&two.path, "CREATE TRIGGER quiet BEFORE INSERT ON records BEGIN SELECT RAISE(IGNORE); END;");
    assert_eq!(two.found().kind, Kind::Unguarded);
    // The end cut off, and the counter mended.
    let three = kept(6);
    tamper(&three.path, "DELETE FROM records WHERE n > 4; UPDATE sqlite_sequence SET seq = 4");
    tamper_again(&three.path, without_guards());
    assert_eq!(verify(&three.path, None).unwrap().broken, None, "the file alone shows nothing");
    assert_eq!(three.found().kind, Kind::Cut);
    // The whole chain written anew.
    let four = kept(6);
    std::fs::rename(&four.path, four.folder.path().join("old")).unwrap();
    let forged = Audit::open(&four.path, None).unwrap();
    forged
        .append(&(0..6).map(|index| Record { who: "nobody".to_owned(), ..record(index) }).collect::<Vec<_>>())
        .unwrap();
    drop(forged);
    assert_eq!(verify(&four.path, None).unwrap().broken, None, "the file alone shows nothing");
    assert_eq!(four.found().kind, Kind::Rewritten);
}

#[test]
fn a_checkpoint_that_is_gone_is_missed() {
    let kept = kept(3);
    std::fs::remove_file(&kept.config.file).unwrap();
    let error = kept.open().err().unwrap();
    assert!(matches!(error, Error::NoCheckpoint { rows: 3, .. }), "{error}");
    let error = error.to_string();
    assert!(error.contains("audit.sqlite") && error.contains("elsewhere"), "{error}");
    // Made by hand, it is gone on with.
    Checkpoint::now(verify(&kept.path, None).unwrap().head, None).write(&kept.config.file, &kept.key).unwrap();
    drop(kept.open().unwrap());
}

#[test]
fn a_checkpoint_that_cannot_be_written_is_told() {
    let kept = kept(1);
    let config = CheckpointConfig { every: Duration::ZERO, ..kept.config.clone() };
    let audit = Audit::open(&kept.path, Some(&config)).unwrap();
    std::fs::remove_file(&config.file).unwrap();
    std::fs::create_dir(&config.file).unwrap();
    audit.append(&[record(2)]).unwrap();
    let until = Instant::now() + Duration::from_secs(10);
    while !audit.is_unsigned() && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(audit.is_unsigned());
}
