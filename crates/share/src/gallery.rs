//! A folder of plug-ins as pages that need no server: one to search in, one a plug-in, and the files.

use crate::error::Error;
use melo_report::chart::STYLE as CHART_STYLE;
use melo_report::{Element, page};
use melo_sign::beside;
use melo_train::{card_sheet, figure_in_words};
use melo_vit::{INTENDED_USE, PluginInfo, write_atomically};
use std::path::{Path, PathBuf};

/// Where the files lie in the gallery.
const FILES: &str = "plugins";
/// Figures that stand on a plug-in's entry: the first that it has, and as many.
const FIGURES: [&str; 8] = [
    "test_auc_macro",
    "test_acc",
    "test_kappa_quadratic",
    "test_dice",
    "test_mae",
    "val_auc_macro",
    "val_dice",
    "val_r2",
];
const SHOWN: usize = 3;

const STYLE: &str = "\
:root{color-scheme:light dark}\
body{font:16px/1.5 system-ui,sans-serif;margin:0;background:var(--paper);color:var(--ink)}\
header,main,footer{max-width:72rem;margin:auto;padding:1rem}h1{font-size:1.6rem;margin:0 0 .5rem}\
input{font:inherit;width:100%;max-width:30rem;box-sizing:border-box;padding:.4rem .6rem}\
main{display:grid;gap:1rem;grid-template-columns:repeat(auto-fill,minmax(20rem,1fr))}\
article{border:1px solid #8886;border-radius:.5rem;padding:1rem;overflow-wrap:anywhere}article[hidden]{display:none}\
h2{font-size:1.1rem;margin:0}p{margin:.3rem 0}.soft,footer{color:var(--soft);font-size:.875rem}\
dl{display:grid;grid-template-columns:auto 1fr;gap:.1rem .8rem;margin:.5rem 0}dd{margin:0;font-variant-numeric:tabular-nums}\
dt{color:var(--soft)}.chart{max-width:18rem}";

/// Hides the entries that have not all words; written without what has a meaning in XML.
const SEARCH: &str = "var q=document.getElementById('q');\
q.addEventListener('input',function(){var words=q.value.toLowerCase().split(' ');\
document.querySelectorAll('article').forEach(function(entry){var said=entry.textContent.toLowerCase();\
entry.hidden=words.some(function(word){return said.indexOf(word)===-1})})})";

/// What became of a folder.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Gallery {
    /// The page to open.
    pub index: PathBuf,
    /// Plug-ins in it.
    pub plugins: usize,
    /// Files of the folder that are none, and why.
    pub passed_over: Vec<(PathBuf, String)>,
}

/// Writes the gallery of the plug-ins in a folder to another one.
///
/// # Errors
/// [`Error::Io`], [`Error::NoPlugin`] where the folder has none.
pub fn write_gallery(folder: &Path, out: &Path) -> Result<Gallery, Error> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(Error::io(folder))? {
        let path = entry.map_err(Error::io(folder))?.path();
        if path.extension().is_some_and(|extension| extension == "safetensors") {
            files.push(path);
        }
    }
    files.sort();
    let mut gallery = Gallery { index: out.join("index.html"), ..Gallery::default() };
    let mut entries = Vec::new();
    let into = out.join(FILES);
    for path in files {
        let info = match PluginInfo::read(&path) {
            Ok(info) => info,
            Err(error) => {
                gallery.passed_over.push((path, error.to_string()));
                continue;
            }
        };
        std::fs::create_dir_all(&into).map_err(Error::io(&into))?;
        let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let signature = beside(&path);
        let is_signed = signature.is_file();
        for (from, to) in [(&path, into.join(&file)), (&signature, beside(&into.join(&file)))] {
            if from.is_file() {
                let bytes = std::fs::read(from).map_err(Error::io(from))?;
                write_atomically(&to, &bytes)?;
            }
        }
        let card = path.with_extension("html").file_name().unwrap_or_default().to_string_lossy().into_owned();
        write_atomically(&into.join(&card), card_sheet(&info).html().as_bytes())?;
        entries.push(entry(&info, &file, &card, is_signed));
    }
    if entries.is_empty() {
        let reason = "no file in it is a plug-in".to_owned();
        return Err(Error::NoPlugin { reference: folder.display().to_string(), reason });
    }
    gallery.plugins = entries.len();
    write_atomically(&gallery.index, index(entries).as_bytes())?;
    Ok(gallery)
}

/// The page of all.
fn index(entries: Vec<Element>) -> String {
    let count = entries.len();
    let search = Element::new("input")
        .with("id", "q")
        .with("type", "search")
        .with("placeholder", "Search: task, class, backbone, digest")
        .with("aria-label", "Search");
    let header = Element::new("header")
        .child(Element::new("h1").text(format!("{count} plug-in{}", if count == 1 { "" } else { "s" })))
        .child(search);
    let body = Element::new("body")
        .child(header)
        .child(Element::new("main").children(entries))
        .child(Element::new("footer").text(INTENDED_USE))
        .child(Element::new("script").text(SEARCH));
    page("Plug-ins", &format!("{CHART_STYLE}{STYLE}"), body)
}

fn entry(info: &PluginInfo, file: &str, page: &str, is_signed: bool) -> Element {
    let card = &info.card;
    let link = |to: &str, text: &str| {
        Element::new("a").with("href", format!("{FILES}/{}", crate::http::encoded(to))).text(text)
    };
    let paragraph = |text: String| Element::new("p").text(text);
    let pair = |name: &str, value: String| [Element::new("dt").text(name), Element::new("dd").text(value)];
    let mut facts: Vec<Element> = Vec::new();
    for name in FIGURES.into_iter().filter(|name| card.metrics.contains_key(*name)).take(SHOWN) {
        let value = card.metrics[name];
        let within =
            card.metric_intervals.get(name).map_or_else(String::new, |[low, high]| format!(" [{low:.3}, {high:.3}]"));
        let (split, figure) = name.split_once('_').unwrap_or(("", name));
        facts.extend(pair(&format!("{split} {}", figure_in_words(figure)), format!("{value:.3}{within}")));
    }
    facts.extend(pair("backbone", card.backbone.name.clone()));
    facts.extend(pair("SHA-256", info.digest.clone()));
    let chart = card_sheet(info).tables.into_iter().find_map(|table| table.drawn);
    let signed = if is_signed { ", signed" } else { "" };
    Element::new("article")
        .child(Element::new("h2").child(link(page, &card.task)))
        .child(paragraph(format!("{}: {}", card.kind.in_words(), card.classes.join(", "))))
        .child(Element::new("dl").children(facts))
        .children(chart)
        .child(
            Element::new("p")
                .child(link(file, "download").with("download", file))
                .child(Element::new("span").class("soft").text(format!(" {} bytes{signed}", info.bytes))),
        )
}
