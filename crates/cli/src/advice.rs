//! What to do about an error: libraries state facts, the binary knows its flags.

use crate::Failure;
use melo::eval::{Collapse, Counts};
use melo::vit::{SetBy, TaskCard, TaskKind};
use melo::{data, embed, interop, predict, serve, share, study, train, vit};
use std::error::Error;
use std::path::Path;

/// A failure with the library's sentence, and what to do where the binary knows it.
pub(crate) fn failure(error: &(dyn Error + 'static)) -> Failure {
    if let Some(train::Error::Interrupted { folder, .. }) = error.downcast_ref() {
        let goes_on = if folder.is_some() { " and --resume continues" } else { "" };
        return Failure::Interrupted(format!("{error}{goes_on}"));
    }
    if let Some(study::Error::Interrupted { .. }) = error.downcast_ref() {
        return Failure::Interrupted(format!("{error} and the same command goes on"));
    }
    if let Some(study::Error::LeftToSlurm { jobs, .. }) = error.downcast_ref() {
        let ends = if jobs.is_empty() { String::new() } else { format!("; scancel {} ends them", jobs.join(" ")) };
        return Failure::Interrupted(format!("{error}; the same command watches again{ends}"));
    }
    if let Some(embed::Error::Interrupted { .. }) = error.downcast_ref() {
        return Failure::Interrupted(format!("{error}; the same command goes on"));
    }
    #[cfg(feature = "archive")]
    if let Some(melo::archive::Error::Interrupted { .. }) = error.downcast_ref() {
        return Failure::Interrupted(format!("{error}; the same command goes on"));
    }
    let message = match hint(error) {
        Some(hint) => format!("{error}; {hint}"),
        None => error.to_string(),
    };
    match is_usage(error) {
        true => Failure::Usage(message),
        false => Failure::Message(message),
    }
}

/// True for settings out of their range, which come from the command line.
fn is_usage(error: &(dyn Error + 'static)) -> bool {
    use train::Error::{Card, ForeignSetting, Setting};
    let of_training = |error: &train::Error| match error {
        Setting { .. } | ForeignSetting { .. } | Card { .. } => true,
        train::Error::Vit(error) => of_network(error),
        train::Error::Images(data::Error::Augment { .. }) => true,
        _ => false,
    };
    let of_embedding = |error: &embed::Error| match error {
        embed::Error::Format { .. } | embed::Error::NoParquet { .. } | embed::Error::ParquetF16 { .. } => true,
        embed::Error::Engine(error) => of_network(error),
        _ => false,
    };
    let of_settings = error.downcast_ref().is_some_and(of_training) || error.downcast_ref().is_some_and(of_embedding);
    let of_names = matches!(error.downcast_ref(), Some(share::Error::Reference { .. }));
    of_settings || of_names || error.downcast_ref().is_some_and(of_network)
}

/// True for settings that a network cannot carry.
fn of_network(error: &vit::Error) -> bool {
    matches!(
        error,
        vit::Error::Lora(_)
            | vit::Error::Bottleneck(_)
            | vit::Error::ImageSize { .. }
            | vit::Error::ImageWork { .. }
            | vit::Error::Features(_)
    )
}

fn hint(error: &(dyn Error + 'static)) -> Option<String> {
    let own = of_train(error).or_else(|| of_mpi(error)).or_else(|| of_vit(error)).or_else(|| of_study(error));
    // A library passes on what another one below it says: the advice is the same.
    #[cfg(feature = "archive")]
    let own = own.or_else(|| of_archive(error));
    let own = own
        .or_else(|| of_embed(error))
        .or_else(|| of_data(error))
        .or_else(|| of_interop(error))
        .or_else(|| of_serve(error))
        .or_else(|| of_share(error));
    own.or_else(|| hint(passed_on(error)?))
}

/// The error of a library below that this one passes on word for word.
fn passed_on<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a (dyn Error + 'static)> {
    if let Some(error) = error.downcast_ref() {
        return Some(match error {
            train::Error::Vit(error) => error,
            train::Error::Images(error) => error,
            _ => return None,
        });
    }
    if let Some(error) = error.downcast_ref() {
        return Some(match error {
            study::Error::Vit(error) => error,
            study::Error::Manifest(error) => error,
            study::Error::Train(error) => error,
            _ => return None,
        });
    }
    if let Some(share::Error::Plugin(error)) = error.downcast_ref() {
        return Some(error);
    }
    match error.downcast_ref() {
        Some(interop::Error::File(error)) => Some(error),
        _ => match error.downcast_ref() {
            Some(predict::Error::Engine(error)) => Some(error),
            #[cfg(feature = "archive")]
            _ => embed_passes_on(error).or_else(|| archive_passes_on(error)),
            #[cfg(not(feature = "archive"))]
            _ => embed_passes_on(error),
        },
    }
}

/// What a person should know before trusting the figures of a test split, and what to try: of each class against the rest,
/// `counts [c]`.
pub(crate) fn of_figures(counts: &[Counts], classes: &[String]) -> Vec<String> {
    let collapse = Collapse::of(counts).map(|collapse| {
        format!(
            "WARNING: {}. The AUC does not show that; try --class-weights balanced, a lower --lr or more --epochs, and look at \
             the labels (`melo data check`)",
            collapse.sentence(classes)
        )
    });
    let few = melo::eval::too_few(counts, classes);
    let few = few.map(|few| format!("note: {few}; figures of so few say little, whatever they are"));
    collapse.into_iter().chain(few).collect()
}

/// The test split of a card in lines: what was measured, its figures with their intervals, [`of_sets`] and [`of_figures`]. [`of_sets`] alone
/// where the card has no record of one.
pub(crate) fn of_test(card: &TaskCard) -> Vec<String> {
    let Some(test) = &card.test else { return of_sets(card) };
    let patients = test.patients.map_or(String::new(), |patients| format!(" of {patients} patients"));
    let figure = |(name, title): (&str, &str)| {
        let value = card.metrics.get(name)?;
        let interval = card.metric_intervals.get(name).map(|[low, high]| format!(" [{low:.3}, {high:.3}]"));
        Some(format!("{title} {value:.3}{}", interval.unwrap_or_default()))
    };
    let figures = [
        ("test_auc_macro", "macro AUC"),
        ("test_acc", "accuracy"),
        ("test_balanced_acc", "balanced accuracy"),
        ("test_f1_macro", "macro F1"),
        ("test_kappa_quadratic", "quadratic weighted kappa"),
        ("test_mae", "mean distance in grades"),
        ("test_dice", "mean Dice"),
        ("test_iou", "mean intersection over union"),
    ];
    let of_numbers = card.classes.iter().filter(|_| card.kind == TaskKind::Regression).flat_map(|number| {
        let figures = [
            ("mae", format!("mean absolute error of {number}")),
            ("baseline_mae", "that of one answer to all".to_owned()),
            ("r2", "R2".to_owned()),
        ];
        figures.map(|(figure, title)| (format!("test_{figure}/{number}"), title))
    });
    let of_numbers: Vec<_> = of_numbers.collect();
    let of_numbers = of_numbers.iter().map(|(name, title)| (name.as_str(), title.as_str()));
    let figures: Vec<String> = figures.into_iter().chain(of_numbers).filter_map(figure).collect();
    let head = format!("test split, {} images{patients}: {}", test.images, figures.join(", "));
    let of_figures = of_figures(&melo::train::test_counts(card), &card.classes);
    std::iter::once(head).chain(of_sets(card)).chain(melo::train::scope_in_words(card)).chain(of_figures).collect()
}

/// What a card's prediction sets promise, how they kept it on the test split, and [`of_open_sets`].
pub(crate) fn of_sets(card: &TaskCard) -> Vec<String> {
    let seen = melo::train::sets_in_words(card).map(|seen| format!("prediction sets: {seen}"));
    seen.into_iter().chain(of_open_sets(card)).collect()
}

/// What to do where patients were too few for the promise of a card's prediction sets.
pub(crate) fn of_open_sets(card: &TaskCard) -> Option<String> {
    let rule = card.sets.as_ref()?;
    let open = melo::train::open_in_words(&card.classes, card.kind, rule);
    let together = if rule.by == SetBy::All { "" } else { ", or --sets-by all" };
    open.map(|open| format!("WARNING: {open}; more patients in the validation split, or a lower --coverage{together}"))
}

fn of_train(error: &(dyn Error + 'static)) -> Option<String> {
    Some(match error.downcast_ref()? {
        train::Error::RunExists { .. } => "--resume continues it, --overwrite starts anew".to_owned(),
        train::Error::NotARun { .. } => "name another folder with --run".to_owned(),
        train::Error::NoBags { .. } => {
            "--bag-column NAME names the column, --bag-axis axial cuts volumes into bags of slices".to_owned()
        }
        train::Error::Diverged { .. } => "try a lower --lr".to_owned(),
        _ => return None,
    })
}

fn of_mpi(error: &(dyn Error + 'static)) -> Option<String> {
    use melo::mpi::Error::{Apart, Foreign, Load, NoLibrary};
    Some(match error.downcast_ref()? {
        NoLibrary { .. } if cfg!(target_feature = "crt-static") => {
            "this binary is static and loads none: `cargo install --path crates/cli --locked` makes one that does; \
             --mpi off trains in every process by itself"
                .to_owned()
        }
        NoLibrary { .. } => "--mpi FILE names it, --mpi off trains in every process by itself".to_owned(),
        Load { .. } | Foreign { .. } => "--mpi FILE names another".to_owned(),
        Apart { .. } => {
            "--mpi FILE names the launcher's; with Slurm, srun --mpi=pmix or --mpi=pmi2 tells it".to_owned()
        }
        _ => return None,
    })
}

/// What an [`embed::Error`] passes on.
fn embed_passes_on<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a (dyn Error + 'static)> {
    match error.downcast_ref()? {
        embed::Error::Engine(error) => Some(error),
        embed::Error::Data(error) => Some(error),
        _ => None,
    }
}

fn of_embed(error: &(dyn Error + 'static)) -> Option<String> {
    Some(match error.downcast_ref()? {
        embed::Error::NoParquet { .. } => {
            "`cargo build --release -p melo-vit --features parquet` makes one that does, or name an .npy or .safetensors".to_owned()
        }
        embed::Error::ParquetF16 { .. } => "leave --dtype away, or name an .npy or .safetensors".to_owned(),
        embed::Error::Value { dtype: "f16", .. } => "--dtype f32 holds it".to_owned(),
        embed::Error::Partial { path, .. } => {
            format!("remove {} to begin anew", vit::folder_of(path).display())
        }
        _ => return None,
    })
}

/// What an [`melo::archive::Error`] passes on.
#[cfg(feature = "archive")]
fn archive_passes_on<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a (dyn Error + 'static)> {
    match error.downcast_ref()? {
        melo::archive::Error::Engine(error) => Some(error),
        melo::archive::Error::Predict(error) => Some(&**error),
        _ => None,
    }
}

#[cfg(feature = "archive")]
fn of_archive(error: &(dyn Error + 'static)) -> Option<String> {
    use melo::archive::Error::{self, Damaged, Differs, Foreign, Lost, NoStores, Store};
    Some(match error.downcast_ref()? {
        NoStores { .. } => "`cargo build --release -p melo-vit --features object-store` makes one that does".to_owned(),
        Store { .. } => {
            "AWS_ENDPOINT_URL, AWS_REGION, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY say where it is and who asks"
                .to_owned()
        }
        Lost { .. } => "what is done is kept, and the same command goes on".to_owned(),
        Error::NotPlanned { .. } => "--backbone, --plugin and --patient-key name the planned ones".to_owned(),
        Error::Taken { .. } => "--name gives this archive another, `melo archive collect` ends that one".to_owned(),
        Error::NotQueued { .. } => "`melo archive plan` does".to_owned(),
        Error::Gone { .. } => "`melo archive plan` queues what is missing".to_owned(),
        Error::Incomplete { failures, .. } if failures.is_empty() => {
            "`melo archive work` computes them, `melo archive status` tells how far it is".to_owned()
        }
        Error::Incomplete { .. } => "`melo archive plan` queues them again, `melo archive run` computes them here".to_owned(),
        Error::Refused { .. } => {
            "NATS_USER and NATS_PASSWORD, NATS_TOKEN, --nats-creds or --nats-nkey give others".to_owned()
        }
        Error::NoJetStream { .. } => "`nats-server --jetstream` has it".to_owned(),
        Error::NoFile { .. } => {
            "mount their storage here as it was where they were planned; `melo archive run` writes rows for files that are gone".to_owned()
        }
        Error::Elsewhere { .. } => "start it there, or plan with absolute paths".to_owned(),
        Differs { .. } | Foreign { .. } => "name another --out".to_owned(),
        Damaged { path, .. } if path.extension().is_some_and(|ending| ending == "parquet") => {
            "remove it, and `melo archive run` computes it again".to_owned()
        }
        _ => return None,
    })
}

fn of_vit(error: &(dyn Error + 'static)) -> Option<String> {
    Some(match error.downcast_ref()? {
        vit::Error::NoSelfTest { .. } => {
            "`melo plugin certify FILE --backbone BACKBONE` adds one to the file".to_owned()
        }
        vit::Error::IsEnsemble { .. } => {
            "`melo plugin fold` writes one of its folds as a plug-in of its own".to_owned()
        }
        vit::Error::NotCalibrated { on, .. } => recalibrates(on.precision),
        vit::Error::NoDescription { .. } => "`melo backbone import --statistics` does without".to_owned(),
        vit::Error::Io { path, source } if source.kind() == std::io::ErrorKind::NotFound && is_model_name(path) => {
            let name = path.display();
            format!("timm/{name} is the model of that name on the hub, hf:OWNER/{name} another owner's")
        }
        vit::Error::WeightsKey { .. } => "--weights-key names one".to_owned(),
        vit::Error::Described { .. } => "leave --statistics away".to_owned(),
        _ => return None,
    })
}

/// What mends a plug-in whose answers are others in this precision.
fn recalibrates(precision: vit::Precision) -> String {
    format!(
        "`melo plugin recalibrate PLUGIN --backbone BACKBONE --data MANIFEST --precision {precision}` fits its temperature and \
         thresholds for that, and adds them to the file"
    )
}

/// What to do about a plug-in that a server refuses.
pub(crate) fn of_plugin(error: &vit::Error) -> Option<String> {
    of_vit(error)
}

/// True for what looks like a model's name and no file's: `vit_base_patch16_224`.
fn is_model_name(path: &Path) -> bool {
    let text = path.to_string_lossy();
    let weights = ["safetensors", "pth", "pt", "bin", "npz", "ckpt", "json"];
    let is_file = path.extension().is_some_and(|extension| weights.iter().any(|known| extension == *known));
    !is_file && !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || "_-.".contains(c))
}

fn of_study(error: &(dyn Error + 'static)) -> Option<String> {
    Some(match error.downcast_ref()? {
        study::Error::Busy { .. } => "wait for it, or name another --out".to_owned(),
        study::Error::NoSlurm { .. } => {
            "run this where Slurm's commands are; --cell and --list-cells serve other schedulers, --launcher local this machine"
                .to_owned()
        }
        study::Error::Record { path, .. } => format!("remove {} to submit anew", vit::folder_of(path).display()),
        study::Error::Foreign { .. } => "name another --out, or remove this file to compute the cell again".to_owned(),
        study::Error::Result { .. } => "remove it to compute the cell again".to_owned(),
        _ => return None,
    })
}

fn of_data(error: &(dyn Error + 'static)) -> Option<String> {
    Some(match error.downcast_ref()? {
        data::Error::Unreadable { broken, images, .. } if broken.len() == *images && broken.len() > 1 => {
            "--images DIR names the folder that they are in; `melo data check` lists all".to_owned()
        }
        data::Error::Unreadable { .. } => "mend or remove them; `melo data check` lists all".to_owned(),
        data::Error::NoPathColumn { .. } => "--path-column NAME names it".to_owned(),
        data::Error::NoLabelColumn { .. } => "--label-column NAME names it".to_owned(),
        data::Error::NoMaskColumn { .. } => "--mask-column NAME names it".to_owned(),
        data::Error::MaskClasses { .. } => {
            "--mask-values V,V,... lists the values that are classes, --mask-classes NAME,NAME,... names them"
                .to_owned()
        }
        data::Error::GradesWithoutOrder { .. } => "--grades LOWEST,...,HIGHEST names it".to_owned(),
        data::Error::TwoReadings { .. } => "--label-column NAME, or A,B,..., says which".to_owned(),
        data::Error::NotBinary { .. } => {
            "--label-column A,B,... names the columns of findings, others are then kept as metadata".to_owned()
        }
        data::Error::Pack(error) => of_pack(error)?.to_owned(),
        _ => return None,
    })
}

/// What to do about a doubt.
pub(crate) fn of_warning(warning: &data::Warning) -> Option<String> {
    Some(match warning {
        data::Warning::NoPatientColumn { suggested } => format!("--patient-column {} takes it", quoted(&suggested[0])),
        data::Warning::NoSplitColumn { suggested } => format!("--split-column {} takes it", quoted(&suggested[0])),
        data::Warning::SeveralInOne { column, .. } => {
            format!("--label-column {} reads them as several findings", quoted(column))
        }
        data::Warning::MetadataAsFinding { .. } => "--label-column A,B,... names the columns of findings".to_owned(),
        _ => return None,
    })
}

/// A name as a shell takes it.
fn quoted(name: &str) -> String {
    let plain = name.chars().all(|letter| letter.is_alphanumeric() || "_-.".contains(letter));
    if plain { name.to_owned() } else { format!("\"{name}\"") }
}

fn of_pack(error: &data::PackError) -> Option<&'static str> {
    Some(match error {
        data::PackError::Stale { .. } => "pack it again with --overwrite",
        data::PackError::Preprocess { .. } => "pack again for that, or ask for what was packed",
        data::PackError::OtherShards { .. } => "--overwrite replaces them",
        _ => return None,
    })
}

fn of_interop(error: &(dyn Error + 'static)) -> Option<String> {
    Some(match error.downcast_ref()? {
        interop::Error::NoHead { .. } => "--head names a safetensors file that holds it".to_owned(),
        interop::Error::TwoHeads { .. } => "leave --head away".to_owned(),
        interop::Error::Unsaid { setting, .. } => format!("--{setting} says it"),
        interop::Error::AuthorsBias => "write it with --format unicad".to_owned(),
        interop::Error::NotHuggingFace { .. } => "write it with --layout timm".to_owned(),
        _ => return None,
    })
}

fn of_serve(error: &(dyn Error + 'static)) -> Option<String> {
    Some(match error.downcast_ref()? {
        serve::Error::Open { .. } => {
            "give --keys FILE (`melo keys add`) or [oidc], listen on 127.0.0.1, or say --insecure".to_owned()
        }
        serve::Error::NoCheckpoint { path, checkpoint, .. } => format!(
            "put it back; where there never was one, `melo audit checkpoint {} --key KEY --out {}` makes the first",
            path.display(),
            checkpoint.display()
        ),
        serve::Error::OpenDicom { .. } => {
            "name peers (`[[dicom.peer]]` with `ae-title` and `address`), listen on 127.0.0.1, or say --dicom-any-peer"
                .to_owned()
        }
        _ => return None,
    })
}

fn of_share(error: &(dyn Error + 'static)) -> Option<String> {
    Some(match error.downcast_ref()? {
        share::Error::Tampered { .. } => "nothing of it is used; `melo plugin pull` asks for it again".to_owned(),
        share::Error::Refused { status: 401 | 403, .. } => {
            "HF_TOKEN holds a token for the hub, `docker login` saves a password for a registry".to_owned()
        }
        _ => return None,
    })
}
