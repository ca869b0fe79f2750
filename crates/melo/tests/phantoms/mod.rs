// A folder of generated images, manifests and plug-ins, as the examples of the documentation expect it.

use melo::synthetic::{Phantom, phantom};
use std::net::SocketAddr;
use std::path::Path;

/// Images of the training, validation and test split.
const IMAGES: [(&str, usize); 3] = [("train", 16), ("val", 12), ("test", 12)];

/// `vit.safetensors`, `fundus.csv` with its images, `film.png`, and plug-ins, also in `tasks`.
pub fn folder() -> Result<tempfile::TempDir, Box<dyn std::error::Error>> {
    let folder = tempfile::tempdir()?;
    let assets = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets");
    std::fs::copy(assets.join("vit_small_formula.safetensors"), folder.path().join("vit.safetensors"))?;
    std::fs::create_dir(folder.path().join("tasks"))?;
    for name in ["chest_film", "mammogram"] {
        let file = format!("{name}.safetensors");
        std::fs::copy(assets.join("phantoms").join(&file), folder.path().join(&file))?;
        std::fs::copy(assets.join("phantoms").join(&file), folder.path().join("tasks").join(&file))?;
    }
    let classes = Phantom::Fundus.classes();
    let mut table = String::from("path,split,label\n");
    let mut number = 0;
    for (split, images) in IMAGES {
        for _ in 0..images {
            let (class, name) = (number % classes.len(), format!("{number}.png"));
            melo::imaging::write_png(&folder.path().join(&name), &phantom(Phantom::Fundus, class, number as u64, 96))?;
            table += &format!("{name},{split},{}\n", classes[class]);
            number += 1;
        }
    }
    std::fs::write(folder.path().join("fundus.csv"), table)?;
    melo::imaging::write_png(&folder.path().join("film.png"), &phantom(Phantom::ChestFilm, 1, 5_000, 96))?;
    Ok(folder)
}

/// Asks a server for its tasks, and lets it stop.
#[allow(dead_code, reason = "one example asks")]
pub fn ask(address: SocketAddr, stop: tokio::sync::oneshot::Sender<()>) {
    let mut response = ureq::get(format!("http://{address}/melo/v1/tasks")).call().expect("the tasks");
    let text = response.body_mut().read_to_string().expect("text");
    assert!(text.contains("chest_film") && text.contains("mammogram"), "{text}");
    drop(stop);
}
