//! Presets on miniature trees of the same shape as the sets that their sites give.

use std::io::Write;
use std::path::Path;

use melo_data::{Applied, Labels, Manifest, Policy, Preset, RemarkKind, Split};
use tempfile::TempDir;

use super::{folder, write_image};

/// Writes a text file, with the folders that it needs.
fn write(folder: &TempDir, name: &str, text: &str) {
    let path = folder.path().join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

/// Writes tiny images: whatever their names say, presets open none.
fn images(folder: &TempDir, names: &[&str]) {
    for (seed, name) in names.iter().enumerate() {
        write_image(&folder.path().join(name), 8, 8, seed as u32);
    }
}

fn apply(preset: &str, folder: &TempDir) -> Applied {
    Preset::named(preset).unwrap().apply(folder.path(), None).unwrap()
}

fn refusal(preset: &str, folder: &TempDir, policy: Option<Policy>) -> String {
    Preset::named(preset).unwrap().apply(folder.path(), policy).unwrap_err().to_string()
}

/// `name split labels patient` of every row, as the CSV that is written says it.
fn rows(applied: &Applied, folder: &TempDir) -> Vec<String> {
    assert_eq!(applied.report.problems, []);
    let csv = folder.path().join("labels.csv");
    applied.write(&csv).unwrap();
    let manifest = Manifest::read(&csv).unwrap();
    assert_eq!(manifest.digest(), applied.manifest.digest());
    let row = |row: &melo_data::Row| {
        let labels = match &row.labels {
            Labels::Single(class) => manifest.classes[*class].clone(),
            Labels::Multi(findings) => {
                let shown = manifest.classes.iter().zip(findings).filter(|(_, shown)| **shown == 1);
                shown.map(|(finding, _)| finding.as_str()).collect::<Vec<_>>().join("+")
            }
            Labels::Values(_) => panic!("no presets"),
        };
        let split = row.split.map_or("-", Split::word);
        format!("{} {split} {labels} {}", row.name, row.patient_id.as_deref().unwrap_or("-"))
    };
    manifest.rows.iter().map(row).collect()
}

/// What was remarked: kind, subject and count.
fn remarks(applied: &Applied) -> Vec<(RemarkKind, &str, usize)> {
    let all = applied.report.problems.iter().chain(&applied.report.warnings);
    all.map(|remark| (remark.kind, remark.subject.as_str(), remark.count)).collect()
}

const NIH: &str = "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,\
    OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y],\n";

fn nih(folder: &TempDir) {
    let row = |image: &str, findings: &str, patient: usize| {
        format!("{image},{findings},0,{patient},058Y,M,PA,1,1,0.1,0.1,\n")
    };
    let table = [
        NIH.to_owned(),
        row("00000001_000.png", "Cardiomegaly|Emphysema", 1),
        row("00000001_001.png", "No Finding", 1),
        row("00000002_000.png", "Pleural_Thickening", 2),
    ];
    write(folder, "Data_Entry_2017_v2020.csv", &table.concat());
    write(folder, "train_val_list.txt", "00000001_000.png\n00000001_001.png\n");
    write(folder, "test_list.txt", "00000002_000.png");
    images(folder, &["images_001/images/00000001_000.png", "images_001/images/00000001_001.png"]);
    images(folder, &["images_002/images/00000002_000.png"]);
}

#[test]
fn every_preset_is_whole() {
    let all = Preset::all();
    assert!(all.len() >= 30);
    for preset in &all {
        for text in [preset.title(), preset.url(), preset.citation(), preset.licence()] {
            assert!(!text.is_empty(), "{}", preset.name());
        }
        let melo_data::Expect { images, train, val, test, .. } = preset.expect();
        if let (Some(images), Some(train)) = (images, train) {
            assert_eq!(images, train + val.unwrap_or(0) + test.unwrap_or(0), "{}", preset.name());
        }
        assert_eq!(Preset::named(preset.name()).unwrap().title(), preset.title());
    }
}

#[test]
fn the_documentation_lists_every_preset_with_its_counts() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/presets.md");
    let docs = std::fs::read_to_string(docs).unwrap();
    for preset in Preset::all() {
        let start = format!("| `{}` |", preset.name());
        let line = docs.lines().find(|line| line.starts_with(&start)).unwrap_or_else(|| panic!("no line {start}"));
        for count in [preset.expect().images, preset.expect().patients].into_iter().flatten() {
            assert!(line.replace(',', "").contains(&count.to_string()), "expected {count} in {line}");
        }
    }
}

#[test]
fn nih_chestxray14() {
    let folder = folder();
    nih(&folder);
    let applied = apply("nih-chestxray14", &folder);
    assert_eq!(
        rows(&applied, &folder),
        [
            "images_001/images/00000001_000.png train Cardiomegaly+Emphysema 1",
            "images_001/images/00000001_001.png train  1",
            "images_002/images/00000002_000.png test Pleural_Thickening 2",
        ]
    );
    assert_eq!(applied.manifest.classes.len(), 14);
    assert_eq!(remarks(&applied), []);
    let text = applied.report.to_string();
    assert!(
        text.contains("images    3 (published: 112120)") && text.contains("train     2 (published: 86524)"),
        "{text}"
    );
}

#[test]
fn what_is_missing_is_counted_and_explained() {
    let folder = folder();
    nih(&folder);
    std::fs::remove_file(folder.path().join("images_002/images/00000002_000.png")).unwrap();
    images(&folder, &["images_003/images/00000009_000.png", "images_003/images/00000001_000.png"]);
    let applied = apply("nih-chestxray14", &folder);
    assert_eq!(
        remarks(&applied),
        [
            (RemarkKind::RowWithoutImage, "Data_Entry_2017_v2020.csv", 1),
            (RemarkKind::RowWithoutImage, "train_val_list.txt, test_list.txt", 1),
            (RemarkKind::ImageWithoutRow, "Data_Entry_2017_v2020.csv", 1),
            (RemarkKind::Copy, "", 1),
        ]
    );
    let text = applied.report.to_string();
    assert!(text.contains("1 row of Data_Entry_2017_v2020.csv without an image"), "{text}");
    assert!(text.contains("such as Data_Entry_2017_v2020.csv, line 4 (00000002_000)"), "{text}");
}

#[test]
fn unknown_labels_and_broken_rows_stop_training() {
    let folder = folder();
    nih(&folder);
    let table =
        format!("{NIH}00000001_000.png,Sunburn,0,1,058Y,M,PA,1,1,0.1,0.1,\nnonsense,Mass,0,1,058Y,M,PA,1,1,0.1,0.1,\n");
    write(&folder, "Data_Entry_2017_v2020.csv", &table);
    let applied = apply("nih-chestxray14", &folder);
    let problems: Vec<String> = applied.report.problems.iter().map(ToString::to_string).collect();
    assert!(
        problems[0].contains("unknown label: Finding Labels \"Sunburn\", 1 image, such as images_001"),
        "{problems:?}"
    );
    assert!(
        problems[1].contains("line 3: column \"Image Index\": expected {image}.png, found \"nonsense\""),
        "{problems:?}"
    );
    let error = applied.write(&folder.path().join("x.csv")).unwrap_err().to_string();
    assert!(error.contains("nih-chestxray14 found 3 problems that would stop training"), "{error}");
    assert!(!folder.path().join("x.csv").exists());
}

#[test]
fn a_wrong_folder_says_what_was_looked_for_and_what_is_there() {
    let folder = folder();
    let empty = refusal("nih-chestxray14", &folder, None);
    assert!(
        empty.contains("looked for **/Data_Entry_2017_v2020.csv or **/Data_Entry_2017*.csv, found no file"),
        "{empty}"
    );
    write(&folder, "train.csv", "Sex,Age\n");
    images(&folder, &["scans/1.png"]);
    let wrong = refusal("nih-chestxray14", &folder, None);
    assert!(wrong.contains("found scans/, train.csv; name the folder"), "{wrong}");
    let busi = refusal("busi", &folder, None);
    assert!(busi.contains("busi: looked for images **/{class}/{class} (*).png, found scans/, train.csv"), "{busi}");
    let column = refusal("chexpert", &folder, None);
    assert!(column.contains("train.csv: expected a column \"Path\", found \"Sex\", \"Age\""), "{column}");
    assert!(Preset::named("nih").unwrap_err().to_string().contains("no preset \"nih\"; there are adrenalmnist3d"));
    let gone = Preset::named("busi").unwrap().apply(&folder.path().join("gone"), None).unwrap_err().to_string();
    assert!(gone.contains("gone: cannot be read"), "{gone}");

    nih(&folder);
    write(&folder, "copy/Data_Entry_2017_v2020.csv", NIH);
    let two = refusal("nih-chestxray14", &folder, None);
    assert!(
        two.contains("expected one file **/Data_Entry_2017_v2020.csv, found \"Data_Entry_2017_v2020.csv\" and \"copy/"),
        "{two}"
    );
}

#[test]
fn images_that_no_table_knows_are_an_error() {
    let folder = folder();
    nih(&folder);
    write(&folder, "Data_Entry_2017_v2020.csv", &format!("{NIH}00000777_000.png,Mass,0,1,058Y,M,PA,1,1,0.1,0.1,\n"));
    let error = refusal("nih-chestxray14", &folder, None);
    assert!(error.contains("none of 3 images has its row in Data_Entry_2017_v2020.csv"), "{error}");
    assert!(error.contains("look like \"00000002_000\", the rows like \"00000777_000\""), "{error}");
}

#[test]
fn chexpert_and_its_policies() {
    let folder = folder();
    let findings = "No Finding,Enlarged Cardiomediastinum,Cardiomegaly,Lung Opacity,Lung Lesion,Edema,Consolidation,\
        Pneumonia,Atelectasis,Pneumothorax,Pleural Effusion,Pleural Other,Fracture,Support Devices";
    let header = format!("Path,Sex,Age,Frontal/Lateral,AP/PA,{findings}\n");
    let path = |set: &str, patient: &str| format!("CheXpert-v1.0-small/{set}/{patient}/study1/view1_frontal.jpg");
    let train = format!(
        "{header}{},Male,68,Frontal,AP,1.0,,,,,,,,,0.0,,,,1.0\n{},Male,68,Frontal,AP,,,-1.0,,,,,,,,,,,\n",
        path("train", "patient00001"),
        path("train", "patient00002")
    );
    write(&folder, "train.csv", &train);
    let valid =
        format!("{header}{},Male,68,Frontal,AP,0.0,0.0,1.0,0.0,0,0,0,0,0,0,0,0,0,0\n", path("valid", "patient64541"));
    write(&folder, "valid.csv", &valid);
    images(&folder, &["train/patient00001/study1/view1_frontal.jpg", "train/patient00002/study1/view1_frontal.jpg"]);
    images(&folder, &["valid/patient64541/study1/view1_frontal.jpg"]);
    let zeros = apply("chexpert", &folder);
    assert_eq!(
        rows(&zeros, &folder),
        [
            "train/patient00001/study1/view1_frontal.jpg train No Finding+Support Devices patient00001",
            "train/patient00002/study1/view1_frontal.jpg train  patient00002",
            "valid/patient64541/study1/view1_frontal.jpg val Cardiomegaly patient64541",
        ]
    );
    assert_eq!(remarks(&zeros), [(RemarkKind::Uncertain, "zeros", 1)]);
    let preset = Preset::named("chexpert").unwrap();
    let ones = preset.apply(folder.path(), Some(Policy::Ones)).unwrap();
    assert!(rows(&ones, &folder)[1].contains("train Cardiomegaly patient00002"));
    let ignore = refusal("chexpert", &folder, Some(Policy::Ignore));
    assert!(
        ignore.contains("policy ignore: a manifest holds 0 or 1") && ignore.contains("use zeros or ones"),
        "{ignore}"
    );
}

#[test]
fn mimic_cxr_jpg_reads_packed_tables() {
    let folder = folder();
    let packed = |name: &str, text: &str| {
        let file = std::fs::File::create(folder.path().join(name)).unwrap();
        let mut encoder = flate2::write::GzEncoder::new(file, flate2::Compression::fast());
        encoder.write_all(text.as_bytes()).unwrap();
        encoder.finish().unwrap();
    };
    packed(
        "mimic-cxr-2.0.0-split.csv.gz",
        "dicom_id,study_id,subject_id,split\nab-1,50,10000032,train\nab-2,50,10000032,train\nab-3,51,10000033,validate\n",
    );
    let findings = "Atelectasis,Cardiomegaly,Consolidation,Edema,Enlarged Cardiomediastinum,Fracture,Lung Lesion,Lung Opacity,\
        No Finding,Pleural Effusion,Pleural Other,Pneumonia,Pneumothorax,Support Devices";
    packed(
        "mimic-cxr-2.0.0-chexpert.csv.gz",
        &format!("subject_id,study_id,{findings}\n10000032,50,,1.0,,,,,,,,,,,,\n10000033,51,,,,,,,,,1.0,,,-1.0,,\n"),
    );
    images(
        &folder,
        &["files/p10/p10000032/s50/ab-1.jpg", "files/p10/p10000032/s50/ab-2.jpg", "files/p10/p10000033/s51/ab-3.jpg"],
    );
    assert_eq!(
        rows(&apply("mimic-cxr-jpg", &folder), &folder),
        [
            "files/p10/p10000032/s50/ab-1.jpg train Cardiomegaly 10000032",
            "files/p10/p10000032/s50/ab-2.jpg train Cardiomegaly 10000032",
            "files/p10/p10000033/s51/ab-3.jpg val No Finding 10000033",
        ]
    );
    std::fs::write(folder.path().join("mimic-cxr-2.0.0-chexpert.csv.gz"), b"\x1f\x8bnothing").unwrap();
    assert!(refusal("mimic-cxr-jpg", &folder, None).contains("chexpert.csv.gz: damaged gzip file"));
}

#[test]
fn tuberculosis_is_in_the_name() {
    for (preset, prefix) in [("shenzhen", "CHNCXR"), ("montgomery", "MCUCXR")] {
        let folder = folder();
        images(&folder, &[&format!("CXR_png/{prefix}_0001_0.png"), &format!("CXR_png/{prefix}_0327_1.png")]);
        images(&folder, &[&format!("mask/{prefix}_0327_1_mask.png")]);
        let expected = [
            format!("CXR_png/{prefix}_0001_0.png - normal 0001"),
            format!("CXR_png/{prefix}_0327_1.png - tuberculosis 0327"),
        ];
        assert_eq!(rows(&apply(preset, &folder), &folder), expected);
    }
}

#[test]
fn inbreast_leaves_out_bi_rads_3_unless_told() {
    let folder = folder();
    let table = "Patient ID;Patient age;Laterality;View;Acquisition date;File Name;Acession Number;ACR;Bi-Rads\n\
        removed;removed;R;CC;201001;22678622;removed;4;1\nremoved;removed;L;CC;201001;22678646;removed;4;4a\n\
        removed;removed;R;ML;201001;22678670;removed;4;3\n";
    write(&folder, "INbreast.csv", table);
    let names = ["22678622_61b1_MG_R_CC_ANON", "22678646_61b1_MG_L_CC_ANON", "22678670_77c2_MG_R_ML_ANON"];
    names.iter().for_each(|name| images(&folder, &[&format!("AllDICOMs/{name}.dcm")]));
    let applied = apply("inbreast", &folder);
    assert_eq!(
        rows(&applied, &folder),
        [
            "AllDICOMs/22678622_61b1_MG_R_CC_ANON.dcm - benign 61b1",
            "AllDICOMs/22678646_61b1_MG_L_CC_ANON.dcm - malignant 61b1",
        ]
    );
    assert_eq!(
        remarks(&applied),
        [(RemarkKind::LeftOut, "Bi-Rads \"3\", uncertain", 1), (RemarkKind::Uncertain, "ignore", 1)]
    );
    let ones = Preset::named("inbreast").unwrap().apply(folder.path(), Some(Policy::Ones)).unwrap();
    assert!(rows(&ones, &folder)[2].contains("malignant 77c2"));
}

#[test]
fn cbis_ddsm_is_malignant_if_any_lesion_is() {
    let folder = folder();
    let header = "patient_id,breast_density,left or right breast,image view,abnormality id,pathology,image file path,ROI mask file path\n";
    let row = |patient: &str, case: &str, pathology: &str| {
        format!("{patient},3,LEFT,CC,1,{pathology},{case}/1.3.6/1.3.7/000000.dcm,\"{case}_1/1/2/000001.dcm\n\"\n")
    };
    let case = |kind: &str, patient: &str| format!("{kind}_{patient}_LEFT_CC");
    let (mass, calc, test) =
        (case("Mass-Training", "P_00001"), case("Calc-Training", "P_00005"), case("Mass-Test", "P_00001"));
    let text = format!("{header}{}{}", row("P_00001", &mass, "BENIGN"), row("P_00001", &mass, "MALIGNANT"));
    write(&folder, "mass_case_description_train_set.csv", &text);
    let calc_header = header.replace("breast_density", "breast density");
    let text = format!("{calc_header}{}", row("P_00005", &calc, "BENIGN_WITHOUT_CALLBACK"));
    write(&folder, "calc_case_description_train_set.csv", &text);
    write(&folder, "mass_case_description_test_set.csv", &format!("{header}{}", row("P_00001", &test, "BENIGN")));
    write(&folder, "calc_case_description_test_set.csv", &calc_header);
    let full = |case: &str| format!("CBIS-DDSM/{case}/07-20-2016-DDSM-NA-1/1.000000-full mammogram images-2/1-1.dcm");
    images(&folder, &[&full(&mass), &full(&test), &format!("CBIS-DDSM/{calc}/1.3.6/1.3.7/000000.dcm")]);
    images(&folder, &[&full(&format!("{mass}_1")), &format!("CBIS-DDSM/{calc}_1/1.3.6/1.3.7/000000.dcm")]);
    let applied = apply("cbis-ddsm", &folder);
    assert_eq!(
        rows(&applied, &folder),
        [
            format!("CBIS-DDSM/{calc}/1.3.6/1.3.7/000000.dcm train benign P_00005"),
            format!("{} test benign P_00001", full(&test)),
            format!("{} train malignant P_00001", full(&mass)),
        ]
    );
    assert_eq!(remarks(&applied), [(RemarkKind::PatientAcrossSplits, "", 1)]);
}

#[test]
fn blood_cells_keep_copies_of_a_photograph_together() {
    let folder = folder();
    let base = "dataset2-master/dataset2-master/images";
    images(
        &folder,
        &[&format!("{base}/TRAIN/EOSINOPHIL/_0_1169.jpeg"), &format!("{base}/TRAIN/EOSINOPHIL/_0_207.jpeg")],
    );
    images(
        &folder,
        &[&format!("{base}/TEST/MONOCYTE/_7_1.jpeg"), &format!("{base}/TEST_SIMPLE/MONOCYTE/_0_5231.jpeg")],
    );
    let applied = apply("blood-cells", &folder);
    assert_eq!(
        rows(&applied, &folder),
        [
            format!("{base}/TEST/MONOCYTE/_7_1.jpeg test monocyte TEST/MONOCYTE/7"),
            format!("{base}/TRAIN/EOSINOPHIL/_0_1169.jpeg train eosinophil TRAIN/EOSINOPHIL/0"),
            format!("{base}/TRAIN/EOSINOPHIL/_0_207.jpeg train eosinophil TRAIN/EOSINOPHIL/0"),
        ]
    );
    assert_eq!(remarks(&applied), [(RemarkKind::LeftOut, "set \"TEST_SIMPLE\"", 1)]);
}

#[test]
fn bccd_lists_the_white_cells() {
    let folder = folder();
    write(&folder, "labels.csv", ",Image,Category\n0,0,NEUTROPHIL\n1,1,\"NEUTROPHIL, EOSINOPHIL\"\n2,12,\n");
    images(
        &folder,
        &["JPEGImages/BloodImage_00000.jpg", "JPEGImages/BloodImage_00001.jpg", "JPEGImages/BloodImage_00012.jpg"],
    );
    let applied = apply("bccd", &folder);
    std::fs::remove_file(folder.path().join("labels.csv")).unwrap();
    assert_eq!(
        rows(&applied, &folder),
        [
            "JPEGImages/BloodImage_00000.jpg - NEUTROPHIL -",
            "JPEGImages/BloodImage_00001.jpg - EOSINOPHIL+NEUTROPHIL -",
            "JPEGImages/BloodImage_00012.jpg -  -",
        ]
    );
}

#[test]
fn oai_knees_of_one_patient_stay_together() {
    let folder = folder();
    images(
        &folder,
        &["kneeKL224/train/0/9003175L.png", "kneeKL224/train/4/9003175R.png", "kneeKL224/val/1/9000099L.png"],
    );
    images(&folder, &["kneeKL224/test/2/9000296R.png", "kneeKL224/auto_test/2/9000296R.png"]);
    assert_eq!(
        rows(&apply("oai-knee", &folder), &folder),
        [
            "kneeKL224/test/2/9000296R.png test KL2 9000296",
            "kneeKL224/train/0/9003175L.png train KL0 9003175",
            "kneeKL224/train/4/9003175R.png train KL4 9003175",
            "kneeKL224/val/1/9000099L.png val KL1 9000099",
        ]
    );
}

#[test]
fn pad_ufes_20() {
    let folder = folder();
    write(
        &folder,
        "metadata.csv",
        "patient_id,lesion_id,smoke,diagnostic,img_id,biopsed\nPAT_1,1,False,NEV,PAT_1_1_530.png,False\nPAT_2,2,,MEL,PAT_2_2_9.png,True\n",
    );
    images(
        &folder,
        &["images/imgs_part_1/imgs_part_1/PAT_1_1_530.png", "images/imgs_part_2/imgs_part_2/PAT_2_2_9.png"],
    );
    assert_eq!(
        rows(&apply("pad-ufes-20", &folder), &folder),
        [
            "images/imgs_part_1/imgs_part_1/PAT_1_1_530.png - NEV PAT_1",
            "images/imgs_part_2/imgs_part_2/PAT_2_2_9.png - MEL PAT_2",
        ]
    );
}

#[test]
fn ham10000_groups_by_lesion_and_takes_each_image_once() {
    let folder = folder();
    write(
        &folder,
        "HAM10000_metadata.csv",
        "lesion_id,image_id,dx,dx_type,age,sex,localization\nHAM_1,ISIC_0027419,bkl,histo,80.0,male,scalp\n\
         HAM_1,ISIC_0025030,bkl,histo,80.0,male,scalp\nHAM_2,ISIC_0026769,nv,histo,80.0,male,scalp\n",
    );
    images(&folder, &["HAM10000_images_part_1/ISIC_0027419.jpg", "HAM10000_images_part_2/ISIC_0025030.jpg"]);
    images(&folder, &["HAM10000_images_part_2/ISIC_0026769.jpg", "more/ham10000_images_part_1/ISIC_0027419.jpg"]);
    let applied = apply("ham10000", &folder);
    assert_eq!(
        rows(&applied, &folder),
        [
            "HAM10000_images_part_1/ISIC_0027419.jpg - bkl HAM_1",
            "HAM10000_images_part_2/ISIC_0025030.jpg - bkl HAM_1",
            "HAM10000_images_part_2/ISIC_0026769.jpg - nv HAM_2",
        ]
    );
    assert_eq!(remarks(&applied), [(RemarkKind::Copy, "", 1)]);
    assert!(refusal("ham10000", &folder, Some(Policy::Ones)).contains("marks no label as uncertain"));
}

#[test]
fn isic_2018_and_2019_are_one_hot() {
    let folder_2018 = folder();
    let header = "image,MEL,NV,BCC,AKIEC,BKL,DF,VASC\n";
    let table = |part: &str| format!("ISIC2018_Task3_{part}_GroundTruth/ISIC2018_Task3_{part}_GroundTruth.csv");
    write(&folder_2018, &table("Training"), &format!("{header}ISIC_1,0.0,1.0,0.0,0.0,0.0,0.0,0.0\n"));
    write(&folder_2018, &table("Test"), &format!("{header}ISIC_9,1.0,0.0,0.0,0.0,0.0,0.0,0.0\n"));
    let lesions = "image,lesion_id,diagnosis_confirm_type\nISIC_1,HAM_7,histopathology\n";
    write(&folder_2018, "ISIC2018_Task3_Training_LesionGroupings.csv", lesions);
    images(&folder_2018, &["ISIC2018_Task3_Training_Input/ISIC_1.jpg", "ISIC2018_Task3_Test_Input/ISIC_9.jpg"]);
    let expected =
        ["ISIC2018_Task3_Test_Input/ISIC_9.jpg test mel -", "ISIC2018_Task3_Training_Input/ISIC_1.jpg train nv HAM_7"];
    assert_eq!(rows(&apply("isic2018", &folder_2018), &folder_2018), expected);

    let folder = folder();
    let header = "image,MEL,NV,BCC,AK,BKL,DF,VASC,SCC,UNK\n";
    let table = format!(
        "{header}ISIC_1_downsampled,0,0,0,0,0,0,0,1.0,0\nISIC_2,1.0,0,0,0,0,0,0,0,0\nISIC_3,1.0,1.0,0,0,0,0,0,0,0\n"
    );
    write(&folder, "ISIC_2019_Training_GroundTruth.csv", &table);
    let metadata =
        "image,age_approx,anatom_site_general,lesion_id,sex\nISIC_1_downsampled,55.0,,,male\nISIC_2,30,,BCN_1,male\n";
    write(&folder, "ISIC_2019_Training_Metadata.csv", metadata);
    for image in ["ISIC_1_downsampled", "ISIC_2", "ISIC_3"] {
        images(&folder, &[&format!("ISIC_2019_Training_Input/{image}.jpg")]);
    }
    let applied = apply("isic2019", &folder);
    assert_eq!(remarks(&applied), [(RemarkKind::UnknownLabel, "both MEL and NV are 1", 1)]);
    std::fs::remove_file(folder.path().join("ISIC_2019_Training_Input/ISIC_3.jpg")).unwrap();
    let expected =
        ["ISIC_2019_Training_Input/ISIC_1_downsampled.jpg - scc -", "ISIC_2019_Training_Input/ISIC_2.jpg - mel BCN_1"];
    assert_eq!(rows(&apply("isic2019", &folder), &folder), expected);
}

#[test]
fn busi_without_its_masks() {
    let folder = folder();
    let base = "Dataset_BUSI_with_GT";
    for name in
        ["benign/benign (1).png", "benign/benign (1)_mask.png", "benign/benign (1)_mask_1.png", "normal/normal (7).png"]
    {
        images(&folder, &[&format!("{base}/{name}")]);
    }
    let expected =
        [format!("{base}/benign/benign (1).png - benign -"), format!("{base}/normal/normal (7).png - normal -")];
    assert_eq!(rows(&apply("busi", &folder), &folder), expected);
}

#[test]
fn rsna_pneumonia_has_a_row_a_box() {
    let folder = folder();
    let table = "patientId,x,y,width,height,Target\na-1,,,,,0\nb-2,264,152,213,379,1\nb-2,562,152,256,453,1\n";
    write(&folder, "stage_2_train_labels.csv", table);
    images(&folder, &["stage_2_train_images/a-1.dcm", "stage_2_train_images/b-2.dcm", "stage_2_test_images/c-3.dcm"]);
    let applied = apply("rsna-pneumonia", &folder);
    let expected = ["stage_2_train_images/a-1.dcm - no pneumonia a-1", "stage_2_train_images/b-2.dcm - pneumonia b-2"];
    assert_eq!(rows(&applied, &folder), expected);
    write(&folder, "stage_2_train_labels.csv", &format!("{table}a-1,1,1,1,1,1\n"));
    assert_eq!(remarks(&apply("rsna-pneumonia", &folder))[0], (RemarkKind::RowsDisagree, "Target", 1));
}

/// An `.npy` file of unsigned bytes.
fn npy(shape: &[usize], values: &[u8]) -> Vec<u8> {
    let sides: Vec<String> = shape.iter().map(ToString::to_string).collect();
    let comma = if shape.len() == 1 { "," } else { "" };
    let mut header = format!("{{'descr': '|u1', 'fortran_order': False, 'shape': ({}{comma}), }}", sides.join(", "));
    header += &" ".repeat(63 - (header.len() + 10) % 64);
    header.push('\n');
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend_from_slice(&(header.len() as u16).to_le_bytes());
    bytes.extend_from_slice(header.as_bytes());
    bytes.extend_from_slice(values);
    bytes
}

/// An `.npz` file with `labels` of each split, `columns` wide, and images of `sides`.
fn npz(path: &Path, columns: usize, sides: &[usize], labels: [&[u8]; 3]) {
    let mut archive = zip::ZipWriter::new(std::fs::File::create(path).unwrap());
    let options = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Deflated);
    for (split, labels) in ["train", "val", "test"].into_iter().zip(labels) {
        let n = labels.len() / columns;
        let shape: Vec<usize> = [n].iter().chain(sides).copied().collect();
        archive.start_file(format!("{split}_images.npy"), options).unwrap();
        archive.write_all(&npy(&shape, &vec![7; shape.iter().product()])).unwrap();
        archive.start_file(format!("{split}_labels.npy"), options).unwrap();
        archive.write_all(&npy(&[n, columns], labels)).unwrap();
    }
    archive.finish().unwrap();
}

#[test]
fn medmnist_is_read_as_it_is() {
    let folder = folder();
    npz(&folder.path().join("breastmnist.npz"), 1, &[28, 28], [&[0, 1], &[1], &[0]]);
    let expected = [
        "breastmnist.npz#train_images:0 train malignant -",
        "breastmnist.npz#train_images:1 train normal, benign -",
        "breastmnist.npz#val_images:0 val normal, benign -",
        "breastmnist.npz#test_images:0 test malignant -",
    ];
    assert_eq!(rows(&apply("breastmnist", &folder), &folder), expected);

    let mut labels = [0; 28];
    (labels[1], labels[27]) = (1, 1);
    npz(&folder.path().join("chestmnist.npz"), 14, &[28, 28], [&labels, &labels[..14], &[0; 14]]);
    npz(&folder.path().join("chestmnist_64.npz"), 14, &[64, 64], [&labels, &labels[..14], &[0; 14]]);
    let chest = rows(&apply("chestmnist", &folder), &folder);
    assert_eq!(
        chest[..2],
        ["chestmnist_64.npz#train_images:0 train cardiomegaly -", "chestmnist_64.npz#train_images:1 train hernia -"]
    );

    npz(&folder.path().join("nodulemnist3d.npz"), 1, &[28, 28, 28], [&[0, 1], &[1], &[0]]);
    assert_eq!(rows(&apply("nodulemnist3d", &folder), &folder)[2], "nodulemnist3d.npz#val_images:0 val malignant -");
    for preset in Preset::all().iter().filter(|preset| preset.title().starts_with("MedMNIST")) {
        assert!(
            preset.apply(folder.path(), None).is_ok()
                || refusal(preset.name(), &folder, None).contains("looked for images")
        );
    }
}

#[test]
fn broken_archives_are_refused_by_name() {
    let folder = folder();
    let path = folder.path().join("breastmnist.npz");
    let says = |part: &str| {
        let error = refusal("breastmnist", &folder, None);
        assert!(error.contains("breastmnist.npz: ") && error.contains(part), "{error}");
    };
    std::fs::write(&path, "no archive").unwrap();
    says("expected a NumPy archive (npz)");
    npz(&path, 2, &[28, 28], [&[0, 1], &[0, 1], &[0, 1]]);
    says("train_labels: expected 1 columns, found 2");
    npz(&path, 1, &[28], [&[0, 1], &[0, 1], &[0, 1]]);
    says("train_images: expected 2 images, as labels, found shape [2, 28]");
    let entry = |name: &str, bytes: &[u8]| {
        let mut archive = zip::ZipWriter::new(std::fs::File::create(&path).unwrap());
        archive.start_file(name, zip::write::SimpleFileOptions::default()).unwrap();
        archive.write_all(bytes).unwrap();
        archive.finish().unwrap();
    };
    entry("other.npy", b"");
    says("train_labels: ");
    entry("train_labels.npy", b"\x93NUMPY\x02\x00\xff\xff\xff\xff");
    says("train_labels: the header claims 4294967295 bytes");
    entry("train_labels.npy", &npy(&[usize::MAX, usize::MAX], &[]));
    says("is more than");
    entry("train_labels.npy", &npy(&[9, 1], &[1]));
    says("expected 9 bytes, found 1");
    let text = String::from_utf8_lossy(&npy(&[1, 1], b"1")[10..]).replace("|u1", "<f4");
    let mut floats = npy(&[1, 1], b"1")[..10].to_vec();
    floats.extend_from_slice(text.as_bytes());
    entry("train_labels.npy", &floats);
    says("expected integers, found <f4");
}

#[test]
fn presets_of_ones_own_are_strict() {
    let folder = folder();
    images(&folder, &["sick/1.png", "well/2.png"]);
    let text = "title = \"Mine\"\nurl = \"u\"\ncitation = \"c\"\nlicence = \"l\"\n[images]\nfiles = [\"{class}/*.png\"]\n\
        [labels]\nkind = \"class\"\nfield = \"class\"\n";
    let path = folder.path().join("mine.toml");
    let read = |text: &str| {
        std::fs::write(&path, text).unwrap();
        Preset::named(path.to_str().unwrap())
    };
    let applied = read(text).unwrap().apply(folder.path(), None).unwrap();
    assert_eq!(rows(&applied, &folder), ["sick/1.png - sick -", "well/2.png - well -"]);
    for (old, new, part) in [
        ("title", "titel", "unknown field `titel`"),
        ("[labels]", "[labels]\ncolour = 1", "unknown field `colour`"),
        ("[labels]", "[split]\nfield = \"class\"\nwords = { sick = \"dev\" }\n[labels]", "unknown variant `dev`"),
        ("{class}", "{class", "no }"),
        ("[images]\nfiles = [\"{class}/*.png\"]", "", "expected images or arrays"),
        ("\"class\"\nfield", "\"guess\"\nfield", "unknown variant `guess`"),
    ] {
        let error = read(&text.replacen(old, new, 1)).unwrap_err().to_string();
        assert!(error.contains("mine.toml") && error.contains(part), "expected {part:?} in {error}");
    }
    let error =
        read(&text.replace("field = \"class\"", "field = \"grade\"")).unwrap().apply(folder.path(), None).unwrap_err();
    assert!(error.to_string().contains("field \"grade\" comes from no table"), "{error}");
}

#[test]
fn a_manifest_elsewhere_finds_its_images() {
    let folder = folder();
    images(&folder, &["set/benign/benign (1).png", "set/normal/normal (7).png"]);
    std::fs::create_dir_all(folder.path().join("tables/deep")).unwrap();
    let applied = Preset::named("busi").unwrap().apply(&folder.path().join("set"), None).unwrap();
    for (csv, prefix) in [("labels.csv", "set/"), ("tables/deep/labels.csv", "../../set/"), ("set/labels.csv", "")] {
        applied.write(&folder.path().join(csv)).unwrap();
        let manifest = Manifest::read(&folder.path().join(csv)).unwrap();
        assert_eq!(manifest.rows[0].name, format!("{prefix}benign/benign (1).png"));
        assert!(manifest.rows[0].path.is_file());
    }
}
