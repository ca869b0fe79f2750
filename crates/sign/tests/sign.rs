//! Keys, signatures and lists, held to the files of minisign itself.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use melo_sign::{Note, PublicKey, SecretKey, Signature, TrustedKeys, Untrusted};
use std::path::{Path, PathBuf};

fn theirs(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/minisign").join(name)
}

/// The secret key, readable by its owner alone, which git does not keep.
fn their_key(folder: &Path) -> SecretKey {
    let path = folder.join("test.key");
    std::fs::copy(theirs("test.key"), &path).expect("copied");
    only_mine(&path);
    SecretKey::read(&path).expect("a key")
}

fn only_mine(path: &Path) {
    #[cfg(unix)]
    std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).expect("changed");
    #[cfg(not(unix))]
    let _ = path;
}

#[test]
fn signatures_of_minisign_are_its_key_s() {
    let key = PublicKey::read(&theirs("test.pub")).unwrap();
    let file = std::fs::read(theirs("file")).unwrap();
    for (name, comment) in [("file.minisig", "made for a test"), ("file.older", "the older way")] {
        let signature = Signature::read(&theirs(name)).unwrap();
        assert_eq!((signature.key(), signature.comment()), (key.id(), comment));
        assert!(signature.is_of(&file, &key), "{name}");
        assert!(!signature.is_of(b"another file", &key), "{name}");
    }
}

#[test]
fn the_same_key_signs_the_same_bytes_as_minisign() {
    let folder = tempfile::tempdir().unwrap();
    let key = their_key(folder.path());
    assert_eq!(key.public(), &PublicKey::read(&theirs("test.pub")).unwrap());
    let file = std::fs::read(theirs("file")).unwrap();
    let ours = Signature::new(&file, &key, "made for a test").to_string();
    let expected = std::fs::read_to_string(theirs("file.minisig")).unwrap();
    assert!(ours.lines().skip(1).eq(expected.lines().skip(1)), "{ours}");
}

#[test]
fn a_change_of_any_byte_of_a_signature_is_seen() {
    let key = SecretKey::generate().unwrap();
    let text = Signature::new(b"a file", &key, "a comment").to_string();
    let comment = text.find('\n').unwrap();
    for at in 0..text.len() {
        let mut bytes = text.clone().into_bytes();
        bytes[at] ^= 1;
        let Ok(changed) = String::from_utf8(bytes) else { continue };
        let still = changed.parse::<Signature>().is_ok_and(|changed| changed.is_of(b"a file", key.public()));
        assert!(!still || at <= comment || text.as_bytes()[at] == b'\n', "byte {at} of {text}");
    }
}

#[test]
fn keys_are_read_as_they_were_written_and_are_their_owner_s_alone() {
    let folder = tempfile::tempdir().unwrap();
    let (secret, public) = (folder.path().join("lab.key"), folder.path().join("lab.pub"));
    let key = SecretKey::generate().unwrap();
    key.write(&secret).unwrap();
    key.public().write(&public).unwrap();
    let again = SecretKey::read(&secret).unwrap();
    assert_eq!(again.public(), key.public());
    assert_eq!(&PublicKey::read(&public).unwrap(), key.public());
    assert!(key.write(&secret).is_err() && key.public().write(&public).is_err(), "a key is never overwritten");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(std::fs::metadata(&secret).unwrap().permissions().mode() & 0o777, 0o600);
        std::fs::set_permissions(&secret, PermissionsExt::from_mode(0o640)).unwrap();
        let error = SecretKey::read(&secret).unwrap_err().to_string();
        assert!(error.contains("lab.key") && error.contains("chmod 600"), "{error}");
    }
}

#[test]
fn what_is_no_key_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("lab.key");
    let good = std::fs::read_to_string(theirs("test.key")).unwrap();
    let with_password = good.replace("RWQAAEIy", "RWRTY0Iy");
    // One letter inside the seed.
    let changed = good.replacen("yudf5", "yudg5", 1);
    for (text, why) in [
        ("", "no secret key"),
        ("untrusted comment: x\nRWQ=\n", "no secret key"),
        (with_password.as_str(), "password"),
        (changed.as_str(), "do not belong together"),
        (&"x".repeat(5000), "at most"),
    ] {
        std::fs::write(&path, text).unwrap();
        only_mine(&path);
        let error = SecretKey::read(&path).unwrap_err().to_string();
        assert!(error.contains(why) && error.contains("lab.key"), "{error}");
    }
    let error = PublicKey::read(&theirs("file")).unwrap_err().to_string();
    assert!(error.contains("no public key"), "{error}");
    let error = Signature::read(&theirs("file")).unwrap_err().to_string();
    assert!(error.contains("no signature"), "{error}");
}

#[test]
fn a_list_says_who_signed_and_what_is_taken_back() {
    let [lab, left, stranger] = [(); 3].map(|()| SecretKey::generate().unwrap());
    let sha = "AB".repeat(32);
    let text = format!(
        "# whom we trust\r\nuntrusted comment: minisign public key\n{} radiology lab\n{} old lab\nrevoked {} left in 2026\nrevoked {sha}\n",
        lab.public(),
        left.public(),
        left.public()
    );
    let list: TrustedKeys = text.parse().unwrap();
    assert_eq!(list.len(), 2);
    let signed = |key: &SecretKey| list.signer(b"a file", &Signature::new(b"a file", key, "v1"));
    let signer = signed(&lab).unwrap();
    assert_eq!((signer.key, &*signer.name, &*signer.comment), (lab.public().id(), "radiology lab", "v1"));
    let revoked = signed(&left).unwrap_err();
    assert!(revoked.to_string().ends_with("revoked: left in 2026"), "{revoked}");
    assert_eq!(signed(&stranger), Err(Untrusted::Key(stranger.public().id())));
    let of_another = list.signer(b"a file", &Signature::new(b"another", &lab, "v1"));
    assert_eq!(of_another, Err(Untrusted::Differs(lab.public().id())));
    assert!(list.check_file(&sha.to_lowercase()).is_err() && list.check_file(&"0".repeat(64)).is_ok());
    for (text, line) in [(format!("{0} a\n{0} b", lab.public()), "line 2"), ("RWQ lab".to_owned(), "line 1")] {
        let error = text.parse::<TrustedKeys>().unwrap_err();
        assert!(error.starts_with(line), "{error}");
    }
}

#[test]
fn a_note_is_its_key_s_under_its_name() {
    let key = SecretKey::generate().unwrap();
    let text = "example.org/log\n15368405\n31JQUq8EyQx5lpqtKRqryJzA+77WD2xmTyuB4uIlXeE=\n".to_owned();
    let note = Note::new(text, "example.org/log", &key);
    let again: Note = note.to_string().parse().unwrap();
    assert_eq!(again, note);
    assert!(again.is_of("example.org/log", key.public()));
    assert!(!again.is_of("example.org/other", key.public()));
    assert!(!again.is_of("example.org/log", SecretKey::generate().unwrap().public()));
    let changed: Note = note.to_string().replace("15368405", "15368404").parse().unwrap();
    assert!(!changed.is_of("example.org/log", key.public()));
    let more: Note = format!("{note}\u{2014} witness.example AAAA\n").parse().unwrap();
    assert!(more.is_of("example.org/log", key.public()), "signatures of other kinds are passed over");
    for text in ["", "a text\n", "a text\n\n", "a text\n\nno signature\n"] {
        assert!(text.parse::<Note>().is_err(), "{text:?}");
    }
    let verifier = Note::verifier("example.org/log", key.public());
    assert!(verifier.starts_with("example.org/log+") && verifier.split('+').nth(1).unwrap().len() == 8);
}

/// The note and the key that the tests of Go's `golang.org/x/mod/sumdb/note` use.
#[test]
fn notes_and_keys_of_go_are_understood() {
    let name = "PeterNeumann";
    let verifier = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
    let key = STANDARD.decode(verifier.rsplit('+').next().unwrap()).unwrap();
    let line = STANDARD.encode([b"Ed12345678", &key[1..]].concat());
    let key: PublicKey = line.parse().unwrap();
    assert_eq!(Note::verifier(name, &key), verifier);
    let note: Note = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n\n\
        \u{2014} PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
        .parse()
        .unwrap();
    assert!(note.is_of(name, &key));
}
