//! Renders each file of the command line to a PNG in a folder; what is refused is printed, and no image is written. What was
//! seen of an image stands behind it.
//!
//! ```sh
//! cargo run -p melo-imaging --example render -- out scan.dcm 'volume.nii.gz#slice=coronal:40'
//! cargo run -p melo-imaging --example render -- --window minmax --layout chw out chest.npy
//! ```

use std::path::PathBuf;
use std::process::ExitCode;

use melo_imaging::Seen;
use melo_vit::Rendering;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1).peekable();
    let mut rendering = Rendering::default();
    while let Some(flag) = arguments.next_if(|argument| argument.starts_with("--")) {
        let value = arguments.next().unwrap_or_default();
        let set = match flag.as_str() {
            "--window" => value.parse().map(|window| rendering.window = window),
            "--frame" => value.parse().map(|frame| rendering.frame = frame),
            "--layout" => value.parse().map(|layout| rendering.layout = layout),
            _ => return usage(),
        };
        if let Err(error) = set {
            eprintln!("{error}");
            return ExitCode::from(2);
        }
    }
    let Some(out) = arguments.next().map(PathBuf::from) else { return usage() };
    for path in arguments.map(PathBuf::from) {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let rendered = melo_imaging::read_seen(&path, &rendering).and_then(|(pixels, seen)| {
            melo_imaging::write_png(&out.join(format!("{name}.png")), &pixels)?;
            Ok(seen)
        });
        match rendered {
            Ok(seen) => println!("{name}\tok{}", words(&seen)),
            Err(error) => println!("{name}\t{}", error.to_string().replace(&format!("{}: ", path.display()), "")),
        }
    }
    ExitCode::SUCCESS
}

fn usage() -> ExitCode {
    eprintln!("usage: render [--window W] [--frame N] [--layout L] OUT FILE...");
    ExitCode::from(2)
}

/// Tab-separated notes.
fn words(seen: &Seen) -> String {
    let place = seen.place.map(|place| place.to_string());
    let range = seen.little_range().map(|share| format!("uses {:.1} % of its range", 100.0 * share));
    let flat = seen.flat.then(|| "constant picture of varied values".to_owned());
    let unused = seen.window_unused.then(|| "window unused".to_owned());
    [place, range, flat, unused].into_iter().flatten().map(|word| format!("\t{word}")).collect()
}
