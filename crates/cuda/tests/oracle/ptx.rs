//! The PTX in the repository has every kernel, with its parameters. That it is what the kernels compile to, NVRTC says
//! (`tools/gpu/ptx.py --check`, a step of `.ci/run` where it can be installed).

use melo_cuda_host::Host;
use std::path::Path;

#[test]
fn ptx_has_every_kernel_with_its_parameters() {
    let Some(host) = Host::open() else { return };
    let mut lists = Vec::new();
    for architecture in ["compute_75", "compute_80"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("kernels/ptx/{architecture}.ptx"));
        let text = std::fs::read_to_string(&path).expect("PTX is in the repository");
        let mut names = Vec::new();
        for entry in text.split(".visible .entry ").skip(1) {
            let (name, rest) = entry.split_once('(').expect("parameters");
            let (parameters, _) = rest.split_once(')').expect("their end");
            let letter = |line: &str| match line.trim().split(' ').nth(1) {
                Some(".u64") => 'p',
                Some(".u32") => 'u',
                Some(".f32") => 'f',
                other => panic!("{name} takes {other:?}"),
            };
            let letters: String = parameters.lines().filter(|line| line.contains(".param")).map(letter).collect();
            assert_eq!(host.parameters(name), Some(letters), "{architecture}: `{name}`");
            names.push(name.to_owned());
        }
        names.sort();
        lists.push(names);
    }
    assert_eq!(lists[0].len(), 26);
    assert_eq!(lists[0], lists[1]);
    assert_eq!(host.parameters("no such kernel"), None);
}
