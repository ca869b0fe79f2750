//! A plug-in: card, adapter and head, in one safetensors file. The format is specified in `docs/plugin-format.md`.

use crate::adapter::Adapter;
use crate::backbone::BackboneInfo;
use crate::bag::BagHead;
use crate::bottleneck::Bottlenecks;
use crate::card::TaskCard;
use crate::config::VitConfig;
use crate::digest::hex;
use crate::engine::PluginRef;
use crate::ensemble::Member;
use crate::error::Error;
use crate::head::Head;
use crate::scope::Scope;
use crate::task_kind::TaskKind;
use crate::tensor_file::{
    CARD_KEY, NamedTensor, Storage, TensorFile, check_storable, require, write_atomically, write_tensors,
};
use crate::volume::VolumeEmbedding;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

/// One clinical task on a frozen backbone.
#[derive(Clone, Debug)]
pub struct Plugin {
    /// How to use it.
    pub card: TaskCard,
    /// Low-rank matrices and bottlenecks; of an ensemble the first member's.
    pub adapter: Adapter,
    /// Classifier; of an ensemble the first member's.
    pub head: Head,
    /// The other members of an ensemble of folds; empty of a single plug-in.
    pub further: Vec<Member>,
    /// What pools the images of a bag, where it answers for bags.
    pub bag: Option<BagHead>,
    /// What makes patches of voxels, where it answers for volumes.
    pub volume: Option<VolumeEmbedding>,
    /// What the images looked like that it was trained on, where it knows.
    pub scope: Option<Scope>,
    /// SHA-256 (hex) of the file it was read from; empty for one that was never written.
    pub digest: String,
}

/// What a plug-in file says of itself, readable without its backbone.
#[derive(Debug)]
pub struct PluginInfo {
    /// The card.
    pub card: TaskCard,
    /// Shapes by tensor name.
    pub shapes: BTreeMap<String, Vec<usize>>,
    /// SHA-256 (hex) of the file.
    pub digest: String,
    /// Size of the file.
    pub bytes: usize,
    /// Of it, what describes the training images; 0 where nothing does.
    pub scope_bytes: usize,
}

impl PluginInfo {
    /// Trained numbers in the file; the description of its training images is none.
    pub fn parameters(&self) -> usize {
        let trained = self.shapes.iter().filter(|(name, _)| !name.starts_with(Scope::PREFIX));
        trained.map(|(_, shape)| shape.iter().product::<usize>()).sum()
    }

    /// Reads card and shapes.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::NotSafetensors`], [`Error::Card`].
    pub fn read(path: &Path) -> Result<Self, Error> {
        let file = TensorFile::open(path)?;
        Ok(PluginInfo {
            card: read_card(path, &file)?,
            shapes: file.shapes()?,
            digest: hex(&Sha256::digest(file.bytes())),
            bytes: file.bytes().len(),
            scope_bytes: file.bytes_of(Scope::PREFIX)?,
        })
    }
}

fn read_card(path: &Path, file: &TensorFile) -> Result<TaskCard, Error> {
    let wrong = |reason: String| Error::Card { path: path.to_owned(), reason };
    let metadata = file.metadata()?;
    let json = metadata.get(CARD_KEY).ok_or_else(|| wrong(format!("no `{CARD_KEY}` in its metadata")))?;
    let card = TaskCard::parse(json).map_err(|reason| wrong(format!("card: {reason}")))?;
    card.check().map_err(|error| wrong(format!("card: {error}")))?;
    Ok(card.with_thresholds_of_its_time())
}

impl Plugin {
    /// Reads a plug-in for a backbone, and refuses one that does not belong to it or is damaged.
    ///
    /// # Errors
    /// [`Error::BackboneMismatch`] first, then every defect of card and tensors by its name.
    pub fn load(path: &Path, backbone: &BackboneInfo) -> Result<Self, Error> {
        Plugin::from_file(&TensorFile::open(path)?, backbone)
    }

    /// As [`Plugin::load`], of a file that is open.
    ///
    /// # Errors
    /// As [`Plugin::load`].
    pub fn from_file(file: &TensorFile, backbone: &BackboneInfo) -> Result<Self, Error> {
        let path = file.path();
        let card = read_card(path, file)?;
        if card.backbone.digest != backbone.digest() {
            return Err(Error::BackboneMismatch {
                path: path.to_owned(),
                expected_name: card.backbone.name.clone(),
                expected: short(&card.backbone.digest),
                found_name: backbone.name().to_owned(),
                found: short(backbone.digest()),
            });
        }
        let wrong = |reason: String| Error::Card { path: path.to_owned(), reason };
        card.lora.check(backbone.config()).map_err(|error| wrong(error.to_string()))?;
        card.bottleneck.check(backbone.config()).map_err(|error| wrong(error.to_string()))?;
        let fits = match &card.volume {
            None => backbone.check_size(card.preprocess.size),
            Some(volume) => backbone.config().check_volume(card.preprocess.size, volume.layers(&card.preprocess)),
        };
        fits.map_err(|error| wrong(format!("task `{}`: {error}", card.task)))?;
        if let Some(decoder) = &card.decoder {
            decoder.check(backbone.config(), card.classes.len()).map_err(|error| wrong(error.to_string()))?;
        }
        if let Some(scope) = &card.scope {
            scope.check_network(backbone.config()).map_err(|error| wrong(error.to_string()))?;
        }
        let shared = card.shared_blocks();
        if shared > backbone.config().depth || (shared > 0 && card.bottleneck.width > 0) {
            return Err(wrong(format!("ensemble: shared: {shared} blocks of {}", backbone.config().depth)));
        }
        let mut head = Head::of_card(&card, backbone.config());
        require(file, &of_members(&card, head.shapes()))?;
        let bottlenecks = Bottlenecks::zeros(&card.bottleneck, backbone.config());
        let mut adapter = Adapter { bottlenecks, ..Adapter::zeros(&card.lora, backbone.config()) };
        let mut bag = card.bag.map(|config| BagHead::zeros(config, backbone.config().feature_width()));
        let shapes = tensor_shapes(&card, &adapter, &head, bag.as_ref(), backbone.config());
        let shapes = of_members(&card, shapes);
        if let Some(name) = file.shapes()?.into_keys().find(|name| !shapes.iter().any(|(known, _)| known == name)) {
            let hint = "the card's ranks, widths, targets and blocks do not call for it".to_owned();
            return Err(Error::UnexpectedTensor { path: path.to_owned(), name, hint });
        }
        // Before room is made for what a card claims.
        let of_volumes = |config| VolumeEmbedding::tensor_shapes(config, &card.preprocess, backbone.config());
        require(file, &card.volume.map(of_volumes).unwrap_or_default())?;
        let of_scope = |config| Scope::tensor_shapes(config, backbone.config());
        require(file, &card.scope.as_ref().map(of_scope).unwrap_or_default())?;
        let mut volume = card.volume.map(|config| VolumeEmbedding::zeros(config, &card.preprocess, backbone.config()));
        let mut scope = card.scope.as_ref().map(|config| Scope::zeros(config, backbone.config()));
        // Before room is made for further members.
        require(file, &shapes)?;
        let member = Member { adapter: adapter.clone(), head: head.clone() };
        let mut further = vec![member; card.members() - 1];
        let tensors = adapter.tensors_mut().into_iter().chain(head.tensors_mut());
        let tensors = tensors.chain(further.iter_mut().flat_map(|member| member.tensors_mut(shared)));
        let tensors = tensors.chain(bag.iter_mut().flat_map(BagHead::tensors_mut));
        let tensors = tensors.chain(volume.iter_mut().flat_map(VolumeEmbedding::tensors_mut));
        file.read_all(&shapes, tensors.chain(scope.iter_mut().flat_map(Scope::tensors_mut)).collect())?;
        let digest = hex(&Sha256::digest(file.bytes()));
        let mut plugin = Plugin { card, adapter, head, further, bag, volume, scope, digest };
        plugin.share_blocks();
        Ok(plugin)
    }

    /// Makes the first blocks' updates, which the card says are the same in every member, one and the same.
    pub fn share_blocks(&mut self) {
        let shared = self.card.shared_blocks();
        self.further.iter_mut().for_each(|member| member.adapter.share(&self.adapter, shared));
    }

    /// A plug-in for single images, of one member, without a description of its training images, and from no file.
    pub fn new(card: TaskCard, adapter: Adapter, head: Head) -> Self {
        let (further, digest) = (Vec::new(), String::new());
        Plugin { card, adapter, head, further, bag: None, volume: None, scope: None, digest }
    }

    /// The classifier that came with the weights, as a plug-in that adapts nothing; classes are named by their index.
    pub fn own_classifier(backbone: &BackboneInfo) -> Option<Self> {
        let head = backbone.classifier()?.clone();
        let classes = (0..head.rows()).map(|class| class.to_string()).collect();
        let preprocess = backbone.preprocess().clone();
        let card =
            TaskCard::new(backbone.name().to_owned(), TaskKind::SingleLabel, classes, preprocess, backbone.reference());
        let adapter = Adapter::none(backbone.config());
        Some(Plugin::new(card, adapter, head))
    }

    /// Writes the plug-in atomically, in [`TaskCard::format_written`].
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::NonFinite`] for one that holds NaN or an infinity, also by rounding to f16, and
    /// [`Error::Card`] for a card that could not be read back: these are never written.
    pub fn save(&self, path: &Path, vit: &VitConfig, storage: Storage) -> Result<(), Error> {
        if self.card.scope.as_ref() != self.scope.as_ref().map(|scope| &scope.config) {
            let reason = "card: scope: another than that of the plug-in".to_owned();
            return Err(Error::Card { path: path.to_owned(), reason });
        }
        let tensors = self.named_tensors(vit);
        check_storable(path, &tensors, storage)?;
        let json = card_json(&self.card, path)?;
        write_tensors(path, &tensors, HashMap::from([(CARD_KEY.to_owned(), json)]), storage)
    }

    /// Writes the plug-in file at `from` to `to` with another card, atomically; its tensors stay as they are, bit for bit.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::NotSafetensors`]; [`Error::Card`] for a card that could not be read back.
    pub fn replace_card(from: &Path, card: &TaskCard, to: &Path) -> Result<(), Error> {
        let json = card_json(card, to)?;
        let bytes = TensorFile::open(from)?.with_metadata(CARD_KEY, json)?;
        write_atomically(to, &bytes)
    }

    fn named_tensors(&self, vit: &VitConfig) -> Vec<NamedTensor<'_>> {
        assert_eq!(self.card.members(), 1 + self.further.len(), "a record of each member");
        let shapes = tensor_shapes(&self.card, &self.adapter, &self.head, self.bag.as_ref(), vit);
        let shapes = of_members(&self.card, shapes);
        let tensors = self.tensors().chain(self.scope.iter().flat_map(Scope::tensors));
        shapes.into_iter().zip(tensors).map(|((name, shape), values)| (name, shape, values.as_slice())).collect()
    }

    /// Adapters and heads, what pools bags, and what embeds volumes.
    fn tensors(&self) -> impl Iterator<Item = &Vec<f32>> {
        let parts = self.adapter.tensors().into_iter().chain(self.head.tensors());
        let shared = self.card.shared_blocks();
        let parts = parts.chain(self.further.iter().flat_map(move |member| member.tensors(shared)));
        let parts = parts.chain(self.bag.iter().flat_map(BagHead::tensors));
        parts.chain(self.volume.iter().flat_map(VolumeEmbedding::tensors))
    }

    /// Trained numbers: adapters, heads, what pools bags, and what embeds volumes.
    pub fn parameters(&self) -> usize {
        self.tensors().map(Vec::len).sum()
    }

    /// What passes take: the plug-in itself, or each member of an ensemble.
    pub fn members(&self) -> impl Iterator<Item = PluginRef<'_>> {
        let further = self.further.iter().map(|Member { adapter, head }| PluginRef { adapter: Some(adapter), head });
        std::iter::once(PluginRef::from(self)).chain(further)
    }

    /// A member of an ensemble, 0 the first, as a plug-in of its own, see [`TaskCard::of_member`]; none where there is no such member.
    pub fn member(&self, member: usize) -> Option<Plugin> {
        let card = self.card.of_member(member)?;
        let PluginRef { adapter, head } = self.members().nth(member)?;
        let (adapter, head) = (adapter?.clone(), head.clone());
        Some(Plugin { scope: self.scope.clone(), ..Plugin::new(card, adapter, head) })
    }

    /// Writes one member of the ensemble at `from`, 0 the first, as a plug-in of its own, atomically: its tensors as they are, bit for bit, see
    /// [`TaskCard::of_member`] for its card.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::NotSafetensors`], [`Error::Card`]; [`Error::NoMember`] where there is none of that number.
    pub fn write_member(from: &Path, member: usize, to: &Path) -> Result<TaskCard, Error> {
        let file = TensorFile::open(from)?;
        let card = read_card(from, &file)?;
        let shared = card.shared_blocks();
        let of_member = card.of_member(member);
        let Some(card) = of_member else {
            return Err(Error::NoMember {
                path: from.to_owned(),
                member,
                members: card.ensemble.map_or(0, |of| of.members.len()),
            });
        };
        let [own, first] = [member, 0].map(member_prefix);
        let json = card_json(&card, to)?;
        let of_member = |name: &str| {
            let of_first = || name.strip_prefix(&first).filter(|name| is_shared(name, shared));
            let of_all = || name.starts_with(Scope::PREFIX).then_some(name);
            name.strip_prefix(&own).or_else(of_first).or_else(of_all).map(str::to_owned)
        };
        let bytes = file.renamed(of_member, CARD_KEY, json)?;
        write_atomically(to, &bytes)?;
        Ok(card)
    }

    /// Refuses an ensemble, where only a single plug-in can be asked.
    ///
    /// # Errors
    /// [`Error::IsEnsemble`].
    pub fn refuse_ensembles(&self) -> Result<(), Error> {
        match self.card.members() {
            1 => Ok(()),
            members => Err(Error::IsEnsemble { task: self.card.task.clone(), members }),
        }
    }

    /// Refuses a plug-in that answers for volumes, where only images can be asked.
    ///
    /// # Errors
    /// [`Error::AnswersForVolumes`].
    pub fn refuse_volumes(&self) -> Result<(), Error> {
        match self.volume {
            Some(_) => Err(Error::AnswersForVolumes { task: self.card.task.clone() }),
            None => Ok(()),
        }
    }

    /// Refuses a plug-in that answers for bags, where only single images can be asked.
    ///
    /// # Errors
    /// [`Error::AnswersForBags`].
    pub fn refuse_bags(&self) -> Result<(), Error> {
        match self.bag {
            Some(_) => Err(Error::AnswersForBags { task: self.card.task.clone() }),
            None => Ok(()),
        }
    }
}

/// A card as it goes into a file, in [`TaskCard::format_written`].
fn card_json(card: &TaskCard, path: &Path) -> Result<String, Error> {
    let card = TaskCard { format: card.format_written(), ..card.clone() };
    card.check().map_err(|error| Error::Card { path: path.to_owned(), reason: format!("card: {error}") })?;
    Ok(serde_json::to_string(&card).expect("a card is plain data"))
}

fn tensor_shapes(
    card: &TaskCard,
    adapter: &Adapter,
    head: &Head,
    bag: Option<&BagHead>,
    vit: &VitConfig,
) -> Vec<(String, Vec<usize>)> {
    let mut shapes = adapter.tensor_shapes(vit);
    shapes.extend(head.shapes());
    shapes.extend(bag.into_iter().flat_map(|bag| BagHead::tensor_shapes(bag.config, vit.feature_width())));
    let of_volumes = |config| VolumeEmbedding::tensor_shapes(config, &card.preprocess, vit);
    shapes.extend(card.volume.into_iter().flat_map(of_volumes));
    shapes.extend(card.scope.iter().flat_map(|config| Scope::tensor_shapes(config, vit)));
    shapes
}

/// What the tensors of a member of an ensemble are called by, before the names of a single plug-in's.
fn member_prefix(member: usize) -> String {
    format!("members.{member}.")
}

/// True of a tensor of one of the first `shared` blocks.
fn is_shared(name: &str, shared: usize) -> bool {
    let block = name.strip_prefix("blocks.").and_then(|rest| rest.split('.').next()?.parse::<usize>().ok());
    block.is_some_and(|block| block < shared)
}

/// The tensors of a card's members, those of shared blocks with the first, and the scope of all at the end: a single plug-in's as they are.
fn of_members(card: &TaskCard, shapes: Vec<(String, Vec<usize>)>) -> Vec<(String, Vec<usize>)> {
    if card.ensemble.is_none() {
        return shapes;
    }
    let shared = card.shared_blocks();
    let (of_all, shapes): (Vec<_>, Vec<_>) = shapes.into_iter().partition(|(name, _)| name.starts_with(Scope::PREFIX));
    let of_member = |member: usize| {
        let prefix = member_prefix(member);
        let own = shapes.iter().filter(move |(name, _)| member == 0 || !is_shared(name, shared));
        own.map(move |(name, shape)| (format!("{prefix}{name}"), shape.clone()))
    };
    (0..card.members()).flat_map(of_member).chain(of_all).collect()
}

/// The first digits of a digest, enough to tell two apart in a message.
fn short(digest: &str) -> String {
    digest.chars().take(12).collect()
}
