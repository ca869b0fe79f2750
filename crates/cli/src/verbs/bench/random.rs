//! A backbone and plug-ins without a download: everything random, and a function of a seed.

use super::super::task::PrecisionArg;
use crate::{Failure, machine};
use melo::train::{SOFTWARE, TrainConfig};
use melo::vit::{
    Adapter, Checkpoint, Description, Engine, Head, LoraConfig, Plugin, Provenance, TaskCard, TaskKind, VitConfig,
};
use std::sync::Arc;

/// The backbone of a measurement.
#[derive(clap::Args)]
pub(crate) struct ArchArgs {
    /// Architecture by timm's name of a plain ViT, or vit_SIZE_patchP_S with any patch and image side
    #[arg(long, default_value = "vit_base_patch16_224", value_name = "NAME")]
    pub(crate) arch: String,
    /// Numbers that go into the backbone's matrix products
    #[arg(long, value_enum, default_value_t = PrecisionArg::F32)]
    precision: PrecisionArg,
}

impl ArchArgs {
    /// A name that is none is wrong usage.
    pub(crate) fn description(&self) -> Result<Description, Failure> {
        described(&self.arch)
    }

    pub(crate) fn engine(&self) -> Result<Arc<dyn Engine>, Failure> {
        Ok(machine::device(self.precision.into()).load(Checkpoint::random(self.description()?, 0).freeze())?)
    }
}

pub(crate) fn described(arch: &str) -> Result<Description, Failure> {
    Description::named(arch).map_err(|error| Failure::Usage(format!("--arch: {error}")))
}

/// The plug-ins of a measurement.
#[derive(clap::Args)]
pub(crate) struct PluginArgs {
    /// Rank of the low-rank updates of q and v in every block; 0 is a head alone
    #[arg(long, default_value_t = 4, value_name = "R")]
    pub(crate) rank: usize,
    /// Classes of a head
    #[arg(long, default_value_t = 3, value_name = "C", value_parser = classes)]
    pub(crate) classes: usize,
}

fn classes(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|classes| (2..=100_000).contains(classes)).ok_or_else(|| "expected 2 to 100000".to_owned())
}

impl PluginArgs {
    /// The method's default updates at this rank.
    pub(crate) fn lora(&self, vit: &VitConfig) -> Result<LoraConfig, Failure> {
        let usual = TrainConfig::new(vit.depth).lora;
        let lora = match self.rank {
            0 => LoraConfig::none(),
            rank => LoraConfig { rank, alpha: rank as f32, ..usual },
        };
        lora.check(vit).map_err(|error| Failure::Usage(format!("--rank: {error}")))?;
        Ok(lora)
    }

    /// Plug-in `number`: low-rank matrices that change every answer, a head, and a card that says that nobody trained it.
    /// Every fourth answers many findings an image.
    pub(crate) fn plugin(&self, engine: &dyn Engine, number: usize) -> Result<Plugin, Failure> {
        let backbone = engine.backbone();
        let (vit, seed) = (backbone.config(), number as u64);
        let kind = if number % 4 == 3 { TaskKind::MultiLabel } else { TaskKind::SingleLabel };
        let classes = (0..self.classes).map(|class| format!("class_{class}")).collect();
        let task = format!("random_{number:04}");
        let card = TaskCard::new(task, kind, classes, backbone.preprocess().clone(), backbone.reference());
        let provenance = Provenance {
            software: SOFTWARE.to_owned(),
            seed,
            precision: engine.info().precision,
            settings: serde_json::json!({"random": true}),
            ..Provenance::default()
        };
        let lora = self.lora(vit)?;
        Ok(Plugin {
            adapter: Adapter::random(&lora, vit, seed),
            head: Head::random(self.classes, vit.feature_width(), seed),
            further: Vec::new(),
            bag: None,
            volume: None,
            scope: None,
            card: TaskCard { lora, provenance, ..card },
            digest: String::new(),
        })
    }
}

/// Images of a batch.
pub(crate) fn batch(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|batch| (1..=4096).contains(batch)).ok_or_else(|| "expected 1 to 4096".to_owned())
}
