//! Which items of TRIPOD+AI (Collins et al., BMJ 385:e078378, 2024; topics in our words) this page reports, and which its authors have to.

use melo_report::Element;

use super::part::{Part, note};
use super::table::{Table, name, words};

/// Where an item is found.
enum Where {
    /// In a part of the report, if it is there: its anchor, and what to look for.
    Here(&'static str, &'static str),
    /// Nowhere: what only people know.
    Authors,
}
use Where::{Authors, Here};

const ITEMS: [(&str, &str, Where); 52] = [
    ("1", "Title: developed or evaluated, in whom, for what outcome", Authors),
    ("2", "Abstract", Authors),
    ("3a", "The clinical question, and what models there are", Authors),
    ("3b", "Whom the model is for, and who uses it", Authors),
    ("3c", "Known inequalities of health between groups", Authors),
    ("4", "Objectives", Here("comparison", "the question that the study answers, its reference and its margin")),
    (
        "5a",
        "Sources of the data, for training and evaluation",
        Here("audit", "images, patients and splits; where they come from is for the authors"),
    ),
    ("5b", "Dates of the data", Authors),
    ("6a", "Setting: centres, their number and place", Authors),
    ("6b", "Who was eligible", Authors),
    ("6c", "Treatments received", Authors),
    (
        "7",
        "Preparation of the data, and whether alike in all groups",
        Here("method", "settings of the trainings: size, crop, augmentation, the same for all"),
    ),
    ("8a", "The outcome and how it was assessed", Authors),
    ("8b", "Who assessed it", Authors),
    ("8c", "Blinding of the assessment", Authors),
    ("9a", "Choice of predictors", Here("audit", "what size and brightness alone tell; predictors are the pixels")),
    ("9b", "Definition of all predictors", Here("method", "preprocessing, backbone and its digest")),
    ("9c", "Who assessed predictors", Authors),
    ("10", "How the sample size came about", Authors),
    ("11", "Missing data", Here("audit", "images that cannot be read, classes without cases")),
    ("12a", "How data were used: splits, sample sizes", Here("audit", "images, patients and classes of each split")),
    ("12b", "Handling of predictors", Here("method", "settings of the trainings")),
    (
        "12c",
        "Type of model, all steps of building, internal validation",
        Here("method", "methods, settings, seeds and folds"),
    ),
    ("12d", "Heterogeneity between centres or places", Here("tasks", "groups of a column, where the study names one")),
    (
        "12e",
        "Measures of performance, and how models are compared",
        Here("method", "statistics of intervals, differences and verdicts"),
    ),
    (
        "12f",
        "Updating of the model, such as recalibration",
        Here("method", "temperatures, fitted on the validation split"),
    ),
    (
        "12g",
        "How predictions of the evaluation were computed",
        Here("method", "the plug-ins' files compute them; software and digests"),
    ),
    (
        "13",
        "Imbalance of classes, and what was done about it",
        Here("method", "class weights, among the settings; counts are in the data audit"),
    ),
    (
        "14",
        "What was done for fairness, and why",
        Here("tasks", "fairness, where the study names columns; why is for the authors"),
    ),
    ("15", "What the model's output is", Here("method", "calibrated probabilities, and decisions at thresholds")),
    ("16", "Differences between training and evaluation data", Here("audit", "the splits side by side")),
    ("17", "Ethical approval, consent", Authors),
    ("18a", "Funding", Authors),
    ("18b", "Conflicts of interest", Authors),
    ("18c", "Protocol", Authors),
    ("18d", "Registration", Authors),
    ("18e", "Availability of the data", Authors),
    ("18f", "Availability of the code", Here("method", "software and version; the study file repeats all of it")),
    ("19", "Involvement of patients and the public", Authors),
    (
        "20a",
        "Flow of participants, cases with and without the outcome",
        Here("audit", "images and patients of each class"),
    ),
    ("20b", "Characteristics of participants, by centre, missing data", Authors),
    ("20c", "Training and evaluation data compared", Here("audit", "the splits side by side")),
    ("21", "Participants and events of each analysis", Here("tasks", "test images of each class")),
    (
        "22",
        "The full model, so that others can use it",
        Here("costs", "the plug-ins: files that compute the answers, with their sizes"),
    ),
    (
        "23a",
        "Performance with intervals, of key groups too",
        Here("tasks", "AUC, sensitivity, specificity, calibration, net benefit, groups"),
    ),
    (
        "23b",
        "Heterogeneity of performance between places",
        Here("tasks", "groups of a column, where the study names one"),
    ),
    ("24", "Results of updating", Here("tasks", "calibration before and after")),
    ("25", "Interpretation, fairness included", Authors),
    ("26", "Limitations", Authors),
    ("27a", "What to do with input that is poor or missing", Authors),
    ("27b", "What users have to do and to know", Authors),
    ("27c", "What is to come", Authors),
];

/// `others` are the parts that are there.
pub(super) fn part(others: &[Part]) -> Part {
    let mut table = Table::of_words("Items and where they are found", &["item", "asks for", "found in"]);
    let mut here = 0;
    for (item, asks, place) in &ITEMS {
        let found = match place {
            Here(id, what) => others.iter().find(|part| part.id == *id).map(|part| (part, what)),
            Authors => None,
        };
        let cell = match found {
            Some((part, what)) => {
                here += 1;
                let link = Element::new("a").with("href", format!("#{}", part.id)).text(part.heading);
                Element::new("td").child(link).text(format!(": {what}"))
            }
            None => words("the authors"),
        };
        table.row(name(item), [words(*asks), cell]);
    }
    let all = ITEMS.len();
    let said = format!(
        "{here} of the {all} items of TRIPOD+AI are reported here, wholly or in part; the others are known to the authors alone. Topics are in short \
         words; what each asks for is in Collins et al., BMJ 385:e078378 (2024)."
    );
    Part {
        id: "tripod",
        heading: "Reporting items: TRIPOD+AI",
        content: [note(said)].into_iter().chain(table.draw()).collect(),
    }
}
