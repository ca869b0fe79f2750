//! Tasks that answer for bags: which files of a request are one, and what is said of it.
//!
//! A file of several images (a volume, frames, pages) is a bag of its own; all others of a request are one together, those of one DICOM
//! series by their place along the slice normal, else in the order in which they were sent.

use crate::answer::{Answer, BagAnswers, LeadingHeatmap};
use crate::error::Refusal;
use crate::request::{Image, Request, Slices};
use crate::service::{Chosen, Service, Tasks, blocking};
use melo_imaging::dicom::Series;
use melo_predict::{Bag, BagImage, BagPrediction, LEADING};
use melo_vit::rendering::Plane;
use melo_vit::{BoundPlugin, Engine, Given, hex};
use sha2::{Digest, Sha256};
use std::path::Path;
use std::sync::Arc;

/// A bag of a request.
#[derive(Clone)]
pub(crate) struct Gathered {
    name: String,
    digest: String,
    names: Vec<String>,
    bag: Arc<Bag>,
    series_instance_uid: Option<String>,
}

/// Bags, and what is asked about each of them: tasks that cut volumes in one plane.
pub(crate) struct BagTasks<T = Tasks> {
    bags: Vec<Gathered>,
    tasks: T,
}

/// Images that are computed, and heat maps that are drawn.
pub(crate) fn rows_of(bags: &[BagTasks<Vec<Chosen>>], heatmap: bool) -> (usize, usize) {
    let each = bags.iter().flat_map(|BagTasks { bags, tasks }| bags.iter().map(|bag| (bag.names.len(), tasks.len())));
    let maps = |images: usize| if heatmap { images.min(LEADING) } else { 0 };
    each.fold((0, 0), |(rows, drawn), (images, tasks)| (rows + images * tasks, drawn + maps(images) * tasks))
}

/// What the batcher is asked.
pub(crate) fn asked_of(bags: &[BagTasks]) -> Vec<(Arc<Bag>, Arc<BoundPlugin>)> {
    let of = |BagTasks { bags, tasks }: &BagTasks| -> Vec<_> {
        let each = bags.iter().flat_map(|bag| tasks.iter().map(move |(_, plugin)| (bag, plugin)));
        each.map(|(bag, plugin)| (Arc::clone(&bag.bag), Arc::clone(plugin))).collect()
    };
    bags.iter().flat_map(of).collect()
}

/// What it computed, in the order of [`asked_of`], as answers.
pub(crate) fn answers_of(bags: &[BagTasks], engine: &dyn Engine, found: Vec<BagPrediction>) -> Vec<BagAnswers> {
    let mut found = found.into_iter();
    let mut all = Vec::new();
    for BagTasks { bags, tasks } in bags {
        for bag in bags {
            let answers = tasks.iter().zip(found.by_ref()).map(|((version, plugin), found)| Answer {
                leading: found.leading(LEADING),
                attention: found.attention,
                ..Answer::new(version, plugin, engine, Given { logits: found.logits, distances: None })
            });
            all.push(BagAnswers {
                name: bag.name.clone(),
                digest: bag.digest.clone(),
                images: bag.names.clone(),
                answers: answers.collect(),
                series_instance_uid: bag.series_instance_uid.clone(),
            });
        }
    }
    all
}

impl Service {
    /// The bags of a request as each of these tasks wants them.
    pub(crate) async fn gather(
        self: &Arc<Self>,
        request: &Request,
        chosen: Vec<Chosen>,
    ) -> Result<Vec<BagTasks<Vec<Chosen>>>, Refusal> {
        let mut by_plane: Vec<(Plane, Vec<Chosen>)> = Vec::new();
        for task in chosen {
            let plane = task.version.card.preprocess.rendering.plane;
            match by_plane.iter_mut().find(|(known, _)| *known == plane) {
                Some((_, tasks)) => tasks.push(task),
                None => by_plane.push((plane, vec![task])),
            }
        }
        let mut gathered = Vec::new();
        for (plane, tasks) in by_plane {
            let turn = Arc::clone(&self.decoders).acquire_owned().await.map_err(|_| Refusal::Stopping)?;
            let (service, images, slices) = (Arc::clone(self), request.images.clone(), request.slices.clone());
            let gather = move || {
                let _turn = turn;
                match slices {
                    Some(slices) => Ok(vec![service.of_slices(slices)]),
                    None => service.decode_memory.within(|| service.of_images(&images, plane)),
                }
            };
            let bags = blocking(gather).await?;
            let most = self.limits.bag_images;
            if let Some(bag) = bags.iter().find(|bag| bag.names.len() > most) {
                let (name, images) = (&bag.name, bag.names.len());
                return Err(Refusal::TooLarge(format!("{name}: a bag of {images} images, at most {most} are taken")));
            }
            gathered.push(BagTasks { bags, tasks });
        }
        Ok(gathered)
    }

    /// With the weights.
    pub(crate) async fn with_plugins(
        self: &Arc<Self>,
        bags: Vec<BagTasks<Vec<Chosen>>>,
    ) -> Result<Vec<BagTasks>, Refusal> {
        let mut all = Vec::new();
        for BagTasks { bags, tasks } in bags {
            all.push(BagTasks { bags, tasks: self.plugins(tasks).await? });
        }
        Ok(all)
    }

    fn of_slices(&self, Slices { series_instance_uid, files }: Slices) -> Gathered {
        let images = files.iter().map(|file| BagImage::of_file(&file.path)).collect();
        Gathered {
            name: series_instance_uid.clone(),
            digest: digest_of_bag(files.iter().map(|file| file.digest.as_str())),
            names: files.into_iter().map(|file| file.sop_instance_uid).collect(),
            bag: Arc::new(Bag { images, memory: Some(Arc::clone(&self.decode_memory)) }),
            series_instance_uid: Some(series_instance_uid),
        }
    }

    /// The bags among files, in the order of their first ones.
    fn of_images(&self, images: &[Image], plane: Plane) -> Result<Vec<Gathered>, Refusal> {
        let unusable = |error: melo_imaging::Error| Refusal::Unusable(error.to_string());
        let (mut bags, mut single): (Vec<Option<Gathered>>, Vec<&Image>) = (Vec::new(), Vec::new());
        let mut place = 0;
        for image in images {
            let name = named_as_array(image);
            let parts = melo_imaging::parts_of_bytes(&image.bytes, Path::new(&name), plane).map_err(unusable)?;
            if parts.len() > 1 {
                let of = |part| BagImage::of_bytes(part, Arc::clone(&image.bytes));
                bags.push(Some(self.gathered(&[image], parts.into_iter().map(of).collect())));
                continue;
            }
            if single.is_empty() {
                place = bags.len();
                bags.push(None);
            }
            single.push(image);
        }
        if !single.is_empty() {
            let single = in_order(single)?;
            let of = |image: &&Image| BagImage::of_bytes(&image.name, Arc::clone(&image.bytes));
            bags[place] = Some(self.gathered(&single, single.iter().map(of).collect()));
        }
        Ok(bags.into_iter().flatten().collect())
    }

    fn gathered(&self, files: &[&Image], images: Vec<BagImage>) -> Gathered {
        let digests: Vec<String> = files.iter().map(|file| hex(&Sha256::digest(&file.bytes))).collect();
        Gathered {
            name: files[0].name.clone(),
            digest: digest_of_bag(digests.iter().map(String::as_str)),
            names: images.iter().map(|image| image.name().to_string_lossy().into_owned()).collect(),
            bag: Arc::new(Bag { images, memory: Some(Arc::clone(&self.decode_memory)) }),
            series_instance_uid: None,
        }
    }

    /// The heat maps of the leading images, each decoded when it is drawn; ended early by an error of `waited_for`.
    pub(crate) fn draw_bags(
        &self,
        bags: &[BagTasks],
        answers: &mut [BagAnswers],
        waited_for: impl Fn() -> Result<(), Refusal>,
    ) -> Result<(), Refusal> {
        let each = bags.iter().flat_map(|BagTasks { bags, tasks }| bags.iter().map(move |bag| (bag, tasks)));
        for ((bag, tasks), answers) in each.zip(answers) {
            for ((_, plugin), answer) in tasks.iter().zip(&mut answers.answers) {
                for image in answer.leading.clone() {
                    waited_for()?;
                    let of = &bag.bag.images[image];
                    let prepared = self.decode_memory.within(|| of.prepared(&plugin.card.preprocess));
                    let prepared = prepared.map_err(|error| Refusal::Unusable(error.to_string()))?;
                    let heatmap = self.explained(&prepared, 0, plugin, answer)?;
                    answer.heatmaps.extend(heatmap.map(|heatmap| LeadingHeatmap { image, heatmap }));
                }
            }
        }
        Ok(())
    }
}

/// The name, with the ending of NumPy's files where it is one without: images of arrays are named behind it.
fn named_as_array(image: &Image) -> String {
    let has = |end: &str| image.name.to_ascii_lowercase().contains(end);
    match &*image.bytes {
        [0x93, b'N', b'U', b'M', b'P', b'Y', ..] if !has(".npy") => format!("{}.npy", image.name),
        [b'P', b'K', ..] if !has(".npz") => format!("{}.npz", image.name),
        _ => image.name.clone(),
    }
}

/// Files of one DICOM series by their place in it; others as they are.
fn in_order(files: Vec<&Image>) -> Result<Vec<&Image>, Refusal> {
    let named = files.iter().map(|file| (Path::new(&file.name), &*file.bytes));
    let series = Series::of(named).map_err(|error| Refusal::Unusable(error.to_string()))?;
    let [(series, places)] = &series[..] else { return Ok(files) };
    if places.len() < files.len() {
        return Ok(files);
    }
    match series.of_two_sizes(|instance| instance.path.display().to_string()) {
        None => Ok(places.iter().map(|&place| files[place]).collect()),
        Some(two) => Err(Refusal::Unusable(format!("series {}: {two}", series.uid))),
    }
}

/// SHA-256 of hexadecimal digests, in their order, each with a line feed behind it.
pub(crate) fn digest_of_bag<'a>(digests: impl Iterator<Item = &'a str>) -> String {
    let mut digest = Sha256::new();
    digests.for_each(|one| digest.update(format!("{one}\n")));
    hex(&digest.finalize())
}
