//! Renders each file of the command line to a PNG in a folder; what is refused is printed, and no image is written.
//!
//! ```sh
//! cargo run -p melo-imaging --example render -- out scan.dcm 'volume.nii.gz#slice=coronal:40'
//! ```

use std::path::{Path, PathBuf};
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    let Some(out) = arguments.next() else {
        eprintln!("usage: render OUT FILE...");
        return ExitCode::from(2);
    };
    for path in arguments {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let rendered = melo_imaging::read(&path)
            .and_then(|pixels| melo_imaging::write_png(&out.join(format!("{name}.png")), &pixels));
        match rendered {
            Ok(()) => println!("{name}\tok"),
            Err(error) => {
                println!("{name}\t{}", error.to_string().replace(&format!("{}: ", Path::new(&path).display()), ""))
            }
        }
    }
    ExitCode::SUCCESS
}
