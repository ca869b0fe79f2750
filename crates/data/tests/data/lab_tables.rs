//! Tables as spreadsheets, laboratories and contests write them: read as what they mean, and told.

use std::io::Write;
use std::path::Path;

use melo_data::{Error, Labels, Manifest, Note, ReadOptions, Split, columns};
use tempfile::TempDir;

use crate::folder;
use crate::manifest::assert_refused;

/// A folder with a table and empty files.
fn with(table: &str, bytes: impl AsRef<[u8]>, files: &[&str]) -> TempDir {
    let folder = folder();
    for file in files {
        let path = folder.path().join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, "").unwrap();
    }
    std::fs::write(folder.path().join(table), bytes).unwrap();
    folder
}

fn read(bytes: impl AsRef<[u8]>) -> Result<Manifest, Error> {
    Manifest::read(&with("t.csv", bytes, &[]).path().join("t.csv"))
}

/// Reads `t.csv` in `folder` with these options.
fn read_with(folder: &TempDir, options: ReadOptions) -> Result<Manifest, Error> {
    Manifest::read_with(&folder.path().join("t.csv"), &options)
}

/// Class of each row.
fn classes(manifest: &Manifest) -> Vec<&str> {
    let class = |labels: &Labels| match labels {
        Labels::Single(class) => manifest.classes[*class].as_str(),
        Labels::Multi(_) => panic!("multi-label"),
    };
    manifest.rows.iter().map(|row| class(&row.labels)).collect()
}

fn places(folder: &TempDir, manifest: &Manifest) -> Vec<String> {
    let place = |path: &Path| path.strip_prefix(folder.path()).unwrap().to_string_lossy().into_owned();
    manifest.rows.iter().map(|row| place(&row.path)).collect()
}

#[test]
fn columns_beside_label_are_metadata() {
    let csv = "path,label,age,sex\na,x,63,F\nb,y,50,M\n";
    let folder = with("t.csv", csv, &[]);
    let manifest = read_with(&folder, ReadOptions::default()).unwrap();
    assert_eq!(classes(&manifest), ["x", "y"]);
    assert!(manifest.reading.notes.contains(&Note::Metadata { columns: vec!["age".into(), "sex".into()] }));
    let found = columns(&manifest.path, &["sex".to_owned(), "age:60".to_owned()]).unwrap();
    let groups = found.groups(["a", "b"]).unwrap();
    assert_eq!(groups.iter().map(|group| group.value.as_str()).collect::<Vec<_>>(), ["F", "M", "<60", ">=60"]);
    // They change nothing of what is trained on.
    assert_eq!(manifest.digest(), read("path,label\na,x\nb,y\n").unwrap().digest());
}

#[test]
fn text_beside_findings_is_metadata_and_half_written_findings_are_refused() {
    let manifest = read("path,Edema,scanner,age,PatientID\na,1,GE,63,p1\nb,0,Siemens,50,p2\n").unwrap();
    assert_eq!(manifest.classes, ["Edema"]);
    for value in ["-1", "", "uncertain", "2"] {
        let refused = read(format!("path,Edema,Effusion\na,1,0\nb,0,{value}\n"));
        assert_refused!(refused, Error::NotBinary { line: 3, .. }, "\"Effusion\"");
    }
}

#[test]
fn a_table_beside_it_that_lists_nothing_names_both_sides() {
    let folder = with("t.csv", "path,sex\nx/1.png,F\nx/2.png,M\n", &[]);
    let found = columns(&folder.path().join("t.csv"), &["sex".to_owned()]).unwrap();
    assert_refused!(
        found.groups(["1.png", "2.png"]),
        Error::NothingMatched { images: 2, .. },
        "\"1.png\"",
        "\"x/1.png\""
    );
    assert_eq!(found.groups(["x\\1.png"]).unwrap().len(), 1);
}

#[test]
fn every_separator_and_encoding_gives_one_manifest() {
    let plain = read("path,split,label,age\nä.png,train,x,6\nb.png,test,y,5\n").unwrap();
    let text = |separator: &str| "path,split,label,age\nä.png,train,x,6\nb.png,test,y,5\n".replace(',', separator);
    let utf_16 = |text: &str| -> Vec<u8> {
        std::iter::once(0xfeff).chain(text.encode_utf16()).flat_map(u16::to_le_bytes).collect()
    };
    let latin = |text: &str| -> Vec<u8> { text.chars().map(|letter| letter as u8).collect() };
    let variants: [Vec<u8>; 12] = [
        text(";").into_bytes(),
        text("\t").into_bytes(),
        text("|").into_bytes(),
        format!("sep=;\r\n{}", text(";")).into_bytes(),
        format!("\u{feff}{}", text(",")).into_bytes(),
        text(",").replace('\n', "\r\n").into_bytes(),
        text(",").replace('\n', "\r").into_bytes(),
        utf_16(&text("\t")),
        utf_16(&text("\t"))[2..].to_vec(),
        latin(&text(";")),
        format!("{}\n\n;;;\n", text(";")).into_bytes(),
        text(",").replace('\n', ",,\n").into_bytes(),
    ];
    for variant in variants {
        let manifest = read(&variant).unwrap_or_else(|error| panic!("{error}: {}", variant.escape_ascii()));
        assert_eq!(manifest.digest(), plain.digest(), "{}", variant.escape_ascii());
    }
    let note = |bytes: Vec<u8>| read(bytes).unwrap().reading.notes[0].to_string();
    assert_eq!(note(latin(&text(";"))), "not UTF-8, read as Windows-1252: \"ä.png\" on line 2");
    assert_eq!(note(utf_16(&text("\t"))), "read as UTF-16");
    // The line of a separator counts.
    let said = read("sep=;\npath;label\na;x\nb;y\n").unwrap();
    assert_eq!(said.rows.iter().map(|row| row.line).collect::<Vec<_>>(), [3, 4]);
}

#[test]
fn decimal_commas() {
    let folder = with("t.csv", "path;label;age\na;x;39,5\nb;y;40,0\n", &[]);
    let found = columns(&folder.path().join("t.csv"), &["age:40".to_owned()]).unwrap();
    let groups: Vec<String> = found.groups(["a", "b"]).unwrap().into_iter().map(|group| group.value).collect();
    assert_eq!(groups, ["<40", ">=40"]);
    let manifest = read("path;A;B\na;1,0;0,0\nb;0,0;0,0\n").unwrap();
    assert_eq!(manifest.rows[0].labels, Labels::Multi(vec![1, 0]));
}

#[test]
fn lines_of_spreadsheets_that_are_too_short_or_too_long() {
    // Empty fields at the end are left out, or one too many is written.
    let manifest = read("path,label,patient_id,note\na,x,p1\nb,y\nc,x,p2,n,,\n").unwrap();
    assert_eq!(
        manifest.rows.iter().map(|row| row.patient_id.as_deref()).collect::<Vec<_>>(),
        [Some("p1"), None, Some("p2")]
    );
    assert_refused!(read("path,label\na,x,more\nb,y\n"), Error::FieldCount { line: 2, .. }, "found 3");
    // pandas numbers the lines.
    let manifest = read(",path,label\n0,a,x\n1,b,y\n").unwrap();
    assert!(manifest.reading.notes.contains(&Note::LineNumbers));
    // Tables that were joined repeat their header.
    let manifest = read("path,label\na,x\npath,label\nb,y\n").unwrap();
    assert_eq!(manifest.classes, ["x", "y"]);
    assert!(manifest.reading.notes.contains(&Note::HeaderAgain { lines: vec![3] }));
}

#[test]
fn columns_by_other_names() {
    let folder = with("t.csv", "Bild;Befund;PatNr;Set\na;x;1;train\nb;y;2;test\n", &[]);
    let options = ReadOptions {
        path_column: Some("bild".into()),
        label_columns: vec!["Befund".into()],
        patient_column: Some("PatNr".into()),
        split_column: Some("Set".into()),
        mask_column: None,
        images: None,
    };
    let manifest = read_with(&folder, options.clone()).unwrap();
    assert_eq!(classes(&manifest), ["x", "y"]);
    assert_eq!((manifest.rows[1].split, manifest.rows[1].patient_id.as_deref()), (Some(Split::Test), Some("2")));
    let asked = ReadOptions { label_columns: vec!["Diagnose".into()], ..options };
    assert_refused!(read_with(&folder, asked), Error::NoColumn { .. }, "\"Diagnose\"", "\"Befund\"");
    assert_refused!(read_with(&folder, ReadOptions::default()), Error::NoPathColumn { .. }, "Bild,Befund");
}

#[test]
fn contests_and_their_folders() {
    let files = ["img/a.PNG", "img/b.jpg", "img/more/c.png", "img/notes.txt"];
    let apart = |folder: &TempDir| ReadOptions { images: Some(folder.path().join("img")), ..ReadOptions::default() };
    // Kaggle: `id_code,diagnosis`.
    let folder = with("t.csv", "id_code,diagnosis\na,0\nb,4\nc,0\n", &files);
    let manifest = read_with(&folder, apart(&folder)).unwrap();
    assert_eq!(manifest.classes, ["0", "4"]);
    assert_eq!(places(&folder, &manifest), ["img/a.PNG", "img/b.jpg", "img/more/c.png"]);
    assert_eq!(manifest.rows[0].name, "a");
    let column = |role: &str, column: &str| Note::Column { role: role.into(), column: column.into() };
    let said = [column("path", "id_code"), column("label", "diagnosis")];
    assert!(said.iter().all(|note| manifest.reading.notes.contains(note)));
    // ISIC: a column a class, as fractions.
    let folder = with("t.csv", "image,MEL,NV,BCC\na,1.0,0.0,0.0\nb,0.0,1.0,0.0\nc,1.0,0.0,0.0\n", &files);
    let manifest = read_with(&folder, apart(&folder)).unwrap();
    assert_eq!(classes(&manifest), ["MEL", "NV", "MEL"]);
    let decided = manifest.reading.notes.iter().map(ToString::to_string).find(|note| note.contains("exactly one"));
    assert_eq!(
        decided.as_deref(),
        Some("each image shows exactly one of 3 columns of 0 and 1, read as classes, one an image; no image shows BCC")
    );
    // NIH: findings between bars.
    let nih = "Image Index,Finding Labels,Patient ID\na.png,Edema|Mass,1\nb.png,No Finding,2\nc.png,Mass,3\n";
    let manifest = read(nih).unwrap();
    assert_eq!(manifest.classes, ["Edema", "Mass"]);
    assert_eq!(
        manifest.rows.iter().map(|row| row.labels.clone()).collect::<Vec<_>>(),
        [vec![1, 1], vec![0, 0], vec![0, 1]].map(Labels::Multi)
    );
    // HAM10000.
    let ham =
        "lesion_id,image_id,dx,dx_type,age,sex,localization\nl1,a,bkl,histo,80,male,scalp\nl2,b,nv,histo,75,male,ear\n";
    assert_eq!(classes(&read(ham).unwrap()), ["bkl", "nv"]);
}

#[test]
fn classes_and_findings_side_by_side_are_asked_about() {
    let csv = "path,diagnosis,smoker,Edema\na,x,True,1\nb,y,False,0\n";
    assert_refused!(read(csv), Error::TwoReadings { .. }, "\"diagnosis\"", "\"smoker\", \"Edema\"");
    let folder = with("t.csv", csv, &[]);
    let asked = ReadOptions { label_columns: vec!["diagnosis".into()], ..ReadOptions::default() };
    assert_eq!(classes(&read_with(&folder, asked).unwrap()), ["x", "y"]);
    // What only describes the patient asks nothing.
    assert_eq!(classes(&read("image,diagnosis,sex,age\na,x,0,50\nb,y,1,40\n").unwrap()), ["x", "y"]);
}

#[test]
fn images_of_two_files_or_of_no_folder_are_refused() {
    let folder = with("t.csv", "image,label\na,x\nb,y\n", &["img/a.png", "img/a.jpg", "img/b.png"]);
    let apart = ReadOptions { images: Some(folder.path().join("img")), ..ReadOptions::default() };
    assert_refused!(read_with(&folder, apart), Error::Ambiguous { line: 2, .. }, "a.png", "a.jpg");
    let nowhere = ReadOptions { images: Some(folder.path().join("none")), ..ReadOptions::default() };
    assert_refused!(read_with(&folder, nowhere), Error::Read { .. }, "none");
}

#[test]
fn columns_of_0_and_1_that_exclude_each_other() {
    let csv = "path,A,B,C\na,1,0,0\nb,0,1,0\nc,0,0,1\n";
    let manifest = read(csv).unwrap();
    assert!(manifest.multi_label);
    assert!(manifest.reading.notes.iter().any(|note| matches!(note, Note::ExactlyOne { as_classes: false, .. })));
    let folder = with("t.csv", csv, &[]);
    let asked = ReadOptions { label_columns: ["A", "B", "C"].map(String::from).to_vec(), ..ReadOptions::default() };
    assert_eq!(classes(&read_with(&folder, asked).unwrap()), ["A", "B", "C"]);
    let manifest = read("path,A,B\na,True,False\nb,False,True\nc,True,True\n").unwrap();
    assert_eq!(manifest.rows[2].labels, Labels::Multi(vec![1, 1]));
    assert!(manifest.reading.notes.contains(&Note::Words { columns: vec!["A".into(), "B".into()] }));
}

#[test]
fn paths_of_other_machines_are_found_by_their_ends() {
    let files = ["img/a.png", "img/deep/b.png", "c.png"];
    let csv = "path,label\nC:\\data\\img\\a.png,x\n\\\\server\\share\\img\\deep\\b.png,y\n/home/me/c.png,x\n";
    let folder = with("t.csv", csv, &files);
    let manifest = read_with(&folder, ReadOptions::default()).unwrap();
    assert_eq!(places(&folder, &manifest), files);
    let told = manifest.reading.notes.iter().map(ToString::to_string).find(|note| note.contains("not where written"));
    assert!(
        told.is_some_and(|told| told.starts_with("3 images are") && told.contains("line 2, C:\\data\\img\\a.png is"))
    );
    // Of a project's root.
    let folder = with("t.csv", "path,label\ndata/img/a.png,x\ndata/c.png,y\n", &files);
    assert_eq!(places(&folder, &read_with(&folder, ReadOptions::default()).unwrap()), ["img/a.png", "c.png"]);
    // Plain paths of which some are there stay as they are written.
    let folder = with("t.csv", "path,label\nimg/a.png,x\nother/c.png,y\n", &files);
    assert_eq!(places(&folder, &read_with(&folder, ReadOptions::default()).unwrap()), ["img/a.png", "other/c.png"]);
    // Two paths that end in one file are no way to tell which is meant.
    let folder = with("t.csv", "path,label\nC:\\a\\c.png,x\nC:\\b\\c.png,y\n", &files);
    assert_refused!(
        read_with(&folder, ReadOptions::default()),
        Error::DuplicatePath { line: 3, first: 2, .. },
        "C:\\b\\c.png"
    );
}

#[test]
fn several_lines_of_one_image() {
    let manifest = read("path,label\na,x\nb,y\na,x\n./b,y\n").unwrap();
    assert_eq!(manifest.rows.len(), 2);
    assert!(manifest.reading.notes.contains(&Note::Merged { rows: 2, lines: vec![4, 5], adds: false }));
    let manifest = read("path,A,B\na,1,0\nb,0,0\na,0,1\n").unwrap();
    assert_eq!(manifest.rows[0].labels, Labels::Multi(vec![1, 1]));
    assert!(manifest.reading.notes.contains(&Note::Merged { rows: 1, lines: vec![4], adds: true }));
    assert_refused!(
        read("path,label\na,x\nb,y\na,y\n"),
        Error::DuplicatePath { line: 4, first: 2, .. },
        "\"x\"",
        "\"y\""
    );
    let split = "path,split,label\na,train,x\nb,train,y\na,test,x\n";
    assert_refused!(read(split), Error::DuplicatePath { line: 4, .. }, "in another split");
    let patient = "path,patient_id,label\na,1,x\nb,2,y\na,2,x\n";
    assert_refused!(read(patient), Error::DuplicatePath { line: 4, .. }, "of another patient");
}

/// A workbook of these cells, as XML, and how many sheets it has.
fn workbook(rows: &str, sheets: usize) -> Vec<u8> {
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let mut add = |name: &str, text: &str| {
        zip.start_file(name, zip::write::SimpleFileOptions::default()).unwrap();
        zip.write_all(text.as_bytes()).unwrap();
    };
    let spaces = "xmlns=\"http://schemas.openxmlformats.org/spreadsheetml/2006/main\" \
        xmlns:r=\"http://schemas.openxmlformats.org/officeDocument/2006/relationships\"";
    let each = |text: &dyn Fn(usize) -> String| (1..=sheets).map(text).collect::<String>();
    let kinds = "application/vnd.openxmlformats-officedocument.spreadsheetml";
    let overrides = each(&|sheet| {
        format!("<Override PartName=\"/xl/worksheets/sheet{sheet}.xml\" ContentType=\"{kinds}.worksheet+xml\"/>")
    });
    add(
        "[Content_Types].xml",
        &format!(
            "<Types xmlns=\"http://schemas.openxmlformats.org/package/2006/content-types\">\
             <Override PartName=\"/xl/workbook.xml\" ContentType=\"{kinds}.sheet.main+xml\"/>{overrides}</Types>"
        ),
    );
    let relations = "http://schemas.openxmlformats.org/package/2006/relationships";
    let office = "http://schemas.openxmlformats.org/officeDocument/2006/relationships";
    add(
        "_rels/.rels",
        &format!(
            "<Relationships xmlns=\"{relations}\">\
             <Relationship Id=\"rId1\" Type=\"{office}/officeDocument\" Target=\"xl/workbook.xml\"/></Relationships>"
        ),
    );
    let named = each(&|sheet| format!("<sheet name=\"S{sheet}\" sheetId=\"{sheet}\" r:id=\"rId{sheet}\"/>"));
    add("xl/workbook.xml", &format!("<workbook {spaces}><sheets>{named}</sheets></workbook>"));
    let targets = each(&|sheet| {
        format!("<Relationship Id=\"rId{sheet}\" Type=\"{office}/worksheet\" Target=\"worksheets/sheet{sheet}.xml\"/>")
    });
    add("xl/_rels/workbook.xml.rels", &format!("<Relationships xmlns=\"{relations}\">{targets}</Relationships>"));
    for sheet in 1..=sheets {
        let rows = if sheet == 1 { rows } else { "" };
        let text = format!("<worksheet {spaces}><sheetData>{rows}</sheetData></worksheet>");
        add(&format!("xl/worksheets/sheet{sheet}.xml"), &text);
    }
    zip.finish().unwrap().into_inner()
}

#[test]
fn workbooks() {
    let text = |at: &str, text: &str| format!("<c r=\"{at}\" t=\"inlineStr\"><is><t>{text}</t></is></c>");
    let number = |at: &str, value: &str| format!("<c r=\"{at}\"><v>{value}</v></c>");
    let rows = [
        format!(
            "<row r=\"1\">{}{}{}{}</row>",
            text("A1", "path"),
            text("B1", "label"),
            text("C1", "patient_id"),
            text("D1", "age")
        ),
        format!("<row r=\"2\">{}{}{}</row>", text("A2", "a.png"), text("B2", "x"), number("C2", "7")),
        format!(
            "<row r=\"4\">{}{}{}{}</row>",
            text("A4", "b.png"),
            text("B4", "y"),
            text("C4", "007"),
            number("D4", "63.5")
        ),
    ];
    let folder = with("t.xlsx", workbook(&rows.concat(), 2), &[]);
    let path = folder.path().join("t.xlsx");
    let manifest = Manifest::read(&path).unwrap();
    assert_eq!(classes(&manifest), ["x", "y"]);
    assert_eq!(manifest.rows.iter().map(|row| row.line).collect::<Vec<_>>(), [2, 4]);
    assert_eq!(manifest.rows.iter().filter_map(|row| row.patient_id.as_deref()).collect::<Vec<_>>(), ["7", "007"]);
    assert_eq!(manifest.reading.notes[0], Note::Sheet { read: "S1".into(), of: 2 });
    let found = columns(&path, &["age:60".to_owned()]).unwrap();
    assert_eq!(found.of("b.png").unwrap(), [Some(">=60".to_owned())]);
    // A cell at the far corner takes no memory for those between.
    let corner = format!("{}<row r=\"1048576\">{}</row>", rows.concat(), text("XFD1048576", "far"));
    assert_refused!(
        Manifest::read(&with("t.xlsx", workbook(&corner, 1), &[]).path().join("t.xlsx")),
        Error::FieldCount { line: 1048576, .. },
        "16384"
    );
    // Cut short.
    let whole = workbook(&rows.concat(), 1);
    for length in [4, 30, whole.len() / 2, whole.len() - 1] {
        let folder = with("t.xlsx", &whole[..length], &[]);
        assert_refused!(Manifest::read(&folder.path().join("t.xlsx")), Error::Workbook { .. }, "t.xlsx");
    }
}

#[test]
fn a_pack_remembers_its_columns() {
    let folder = with("t.csv", "Bild,Befund\na.png,x\nb.png,y\n", &[]);
    (0..2).for_each(|seed| crate::write_image(&folder.path().join(["a.png", "b.png"][seed]), 8, 8, seed as u32));
    let options = ReadOptions {
        path_column: Some("Bild".into()),
        label_columns: vec!["Befund".into()],
        ..ReadOptions::default()
    };
    let manifest = read_with(&folder, options).unwrap();
    let out = folder.path().join("t.pack");
    let spec = melo_vit::Preprocess::base(16);
    let how = melo_data::PackOptions { depth: 8, overwrite: false, leave_out_unreadable: false };
    melo_data::pack(&manifest, &spec, &out, how, &|_, _| ()).unwrap();
    assert_eq!(Manifest::read(&out).unwrap().digest(), manifest.digest());
}
