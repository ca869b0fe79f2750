//! `adapter_config.json`: the settings that decide what an adapter computes, and a refusal of those that a plug-in cannot carry.
//!
//! Meanings as in PEFT's `LoraConfig` and `tuners_utils.check_target_module_exists` (0.21).

use crate::error::Error;
use regex_lite::Regex;
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};

/// Settings without meaning for what is computed.
const SILENT: [&str; 17] = [
    "auto_mapping",
    "base_model_name_or_path",
    "ensure_weight_tying",
    "eva_config",
    "inference_mode",
    "init_lora_weights",
    "lora_dropout",
    "megatron_core",
    "peft_version",
    "qalora_group_size",
    "revision",
    "runtime_config",
    "task_type",
    "modules_to_save",
    "layers_pattern",
    "exclude_modules",
    "peft_type",
];

/// Settings that are read.
const READ: [&str; 9] = [
    "r",
    "lora_alpha",
    "use_rslora",
    "rank_pattern",
    "alpha_pattern",
    "target_modules",
    "layers_to_transform",
    "fan_in_fan_out",
    "bias",
];

/// Why some settings cannot be carried; any other that is neither off nor known is refused too.
const REASONS: [(&str, &str); 17] = [
    ("use_dora", "DoRA rescales the rows of the adapted weights, which no low-rank update can say"),
    ("lora_bias", "a plug-in's low-rank updates have no bias of their own"),
    ("fan_in_fan_out", "the model's weights are stored the other way round; Vision Transformers store them [out, in]"),
    ("bias", "biases of the frozen backbone were trained; a plug-in leaves the backbone as it is"),
    ("trainable_token_indices", "rows of an embedding were trained; a plug-in adapts projections of blocks only"),
    ("target_parameters", "single parameters are adapted; a plug-in adapts projections of blocks only"),
    ("megatron_config", "the layers are Megatron's parallel ones, which Vision Transformers here do not have"),
    ("layer_replication", "blocks of the backbone are repeated; a plug-in leaves the backbone as it is"),
    ("loftq_config", "LoftQ changes the base weights: the adapter fits those changed weights only"),
    ("corda_config", "CorDA changes the base weights: the adapter fits those changed weights only"),
    ("lora_ga_config", "LoRA-GA changes the base weights: the adapter fits those changed weights only"),
    ("use_qalora", "QALoRA pools the inputs of its updates"),
    ("use_bdlora", "block-diagonal LoRA computes another update"),
    ("alora_invocation_tokens", "activated LoRA depends on tokens of a text"),
    ("arrow_config", "Arrow mixes several adapters"),
    ("monteclora_config", "MonteCLoRA computes another update"),
    ("velora_config", "VeLoRA computes another update"),
];

/// Beginnings of `init_lora_weights` that change the base weights.
const CHANGES_WEIGHTS: [&str; 5] = ["pissa", "olora", "corda", "loftq", "lora_ga"];
/// Values of `init_lora_weights` that do not.
const KEEPS_WEIGHTS: [&str; 3] = ["gaussian", "eva", "orthogonal"];

/// The modules that are adapted.
enum Targets {
    /// Paths, or ends of paths.
    Names(Vec<String>),
    /// A regular expression over the whole path; `None` where it uses what is not understood here.
    Pattern(Option<Regex>),
    /// Every linear layer; which those are, the tensors say.
    AllLinear,
}

/// Numbers of blocks, and the patterns whose first group finds the number in a path.
type Layers = (Vec<u64>, Vec<Regex>);

/// What an adapter's settings say of one module.
pub(super) struct PeftConfig {
    path: PathBuf,
    rank: usize,
    alpha: f64,
    pub(super) rslora: bool,
    ranks: Vec<(Regex, f64)>,
    alphas: Vec<(Regex, f64)>,
    targets: Targets,
    excluded: Option<Targets>,
    layers: Option<Layers>,
    pub(super) modules_to_save: Vec<String>,
    /// The model that the adapter was made for, where it is said.
    pub(super) base_model: Option<String>,
}

impl PeftConfig {
    /// Reads the settings of a folder.
    ///
    /// # Errors
    /// [`Error::Json`], [`Error::Setting`].
    pub(super) fn read(path: &Path) -> Result<Self, Error> {
        let source = std::fs::read_to_string(path);
        let text = source.map_err(|source| Error::File(melo_vit::Error::Io { path: path.to_owned(), source }))?;
        let json = |reason: String| Error::Json { path: path.to_owned(), reason };
        let fields: Map<String, Value> =
            melo_vit::parse_json(&text).and_then(serde_json::from_value).map_err(|error| json(error.to_string()))?;
        let fields = Fields { path, fields: &fields };
        fields.refuse_what_cannot_be_carried()?;
        let rank = fields.number("r")?;
        if !(1.0..=65536.0).contains(&rank) || rank.fract() != 0.0 {
            return Err(fields.wrong("r", "expected a whole number from 1"));
        }
        let names = |name: &str| fields.texts(name);
        Ok(PeftConfig {
            path: path.to_owned(),
            rank: rank as usize,
            alpha: fields.positive("lora_alpha")?,
            rslora: fields.is_true("use_rslora"),
            ranks: fields.patterns("rank_pattern")?,
            alphas: fields.patterns("alpha_pattern")?,
            targets: fields.targets("target_modules")?,
            excluded: match fields.is_off("exclude_modules") {
                true => None,
                false => Some(fields.targets("exclude_modules")?),
            },
            layers: fields.layers()?,
            modules_to_save: names("modules_to_save")?,
            base_model: fields.get("base_model_name_or_path").as_str().filter(|n| !n.is_empty()).map(str::to_owned),
        })
    }

    /// `(rank, alpha)` of a module.
    pub(super) fn settings_of(&self, module: &str) -> (usize, f64) {
        let of = |patterns: &[(Regex, f64)]| patterns.iter().find(|(regex, _)| regex.is_match(module)).map(|(_, x)| *x);
        (of(&self.ranks).map_or(self.rank, |rank| rank as usize), of(&self.alphas).unwrap_or(self.alpha))
    }

    /// Whether the settings ask for a module; `None` where they cannot be told to.
    pub(super) fn asks_for(&self, module: &str) -> Option<bool> {
        match &self.excluded {
            Some(Targets::Names(names)) if names.iter().any(|name| is_end(name, module)) => return Some(false),
            Some(Targets::Pattern(Some(regex))) if regex.is_match(module) => return Some(false),
            Some(Targets::Pattern(None)) => return None,
            _ => {}
        }
        match &self.targets {
            Targets::AllLinear | Targets::Pattern(None) => None,
            Targets::Pattern(Some(regex)) => Some(regex.is_match(module)),
            Targets::Names(names) if names.iter().any(|name| name == module) => Some(true),
            Targets::Names(names) => Some(names.iter().any(|name| is_end(name, module)) && self.is_in_layers(module)),
        }
    }

    /// Names of `target_modules` that none of these modules has.
    pub(super) fn unmet<'a>(&self, modules: impl Iterator<Item = &'a String> + Clone) -> Vec<&str> {
        let Targets::Names(names) = &self.targets else { return Vec::new() };
        let met = |name: &String| modules.clone().any(|module| module == name || is_end(name, module));
        names.iter().filter(|name| !met(name)).map(String::as_str).collect()
    }

    /// Whether a path lies in `layers_to_transform`.
    fn is_in_layers(&self, module: &str) -> bool {
        let Some((layers, patterns)) = &self.layers else { return true };
        let found = patterns.iter().find_map(|regex| regex.captures(module));
        let number = found.and_then(|found| found.get(1)?.as_str().parse::<u64>().ok());
        number.is_some_and(|number| layers.contains(&number))
    }

    /// The file.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

/// `name` is a path, or the end of it that begins after a dot.
fn is_end(name: &str, module: &str) -> bool {
    module.strip_suffix(name).is_some_and(|before| before.is_empty() || before.ends_with('.'))
}

/// The entries of the file, with words for what is wrong with them.
struct Fields<'a> {
    path: &'a Path,
    fields: &'a Map<String, Value>,
}

impl Fields<'_> {
    fn get(&self, name: &str) -> &Value {
        self.fields.get(name).unwrap_or(&Value::Null)
    }

    fn wrong(&self, setting: &str, reason: &str) -> Error {
        let found: String = self.get(setting).to_string().chars().take(80).collect();
        Error::Setting { path: self.path.to_owned(), setting: setting.to_owned(), found, reason: reason.to_owned() }
    }

    /// True for what PEFT takes as not said.
    fn is_off(&self, name: &str) -> bool {
        match self.get(name) {
            Value::Null | Value::Bool(false) => true,
            Value::String(text) => text.is_empty(),
            Value::Array(items) => items.is_empty(),
            Value::Object(items) => items.is_empty(),
            _ => false,
        }
    }

    fn is_true(&self, name: &str) -> bool {
        self.get(name) == &Value::Bool(true)
    }

    fn refuse_what_cannot_be_carried(&self) -> Result<(), Error> {
        if self.get("peft_type").as_str() != Some("LORA") {
            return Err(self.wrong("peft_type", "only LORA is low-rank updates beside frozen weights"));
        }
        match self.get("init_lora_weights") {
            Value::Null | Value::Bool(_) => {}
            Value::String(kind) if KEEPS_WEIGHTS.contains(&kind.to_lowercase().as_str()) => {}
            Value::String(kind) if CHANGES_WEIGHTS.iter().any(|begin| kind.to_lowercase().starts_with(begin)) => {
                let reason = "this initialisation changes the base weights, and the adapter fits those changed weights only; \
                              save it with PEFT's path_initial_model_for_weight_conversion";
                return Err(self.wrong("init_lora_weights", reason));
            }
            _ => {
                return Err(
                    self.wrong("init_lora_weights", "not known whether this leaves the base weights as they are")
                );
            }
        }
        for name in self.fields.keys().filter(|name| !self.is_off(name)) {
            let name = name.as_str();
            let known = match name {
                "bias" => self.get(name).as_str() == Some("none"),
                "fan_in_fan_out" => false,
                "use_rslora" => self.is_true(name),
                _ => SILENT.contains(&name) || READ.contains(&name),
            };
            if !known {
                let reason = REASONS.iter().find(|(known, _)| *known == name).map(|(_, reason)| *reason);
                return Err(
                    self.wrong(name, reason.unwrap_or("a setting that is not known here may change what is computed"))
                );
            }
        }
        Ok(())
    }

    fn number(&self, name: &str) -> Result<f64, Error> {
        self.get(name).as_f64().ok_or_else(|| self.wrong(name, "expected a number"))
    }

    fn positive(&self, name: &str) -> Result<f64, Error> {
        let value = self.number(name)?;
        match value > 0.0 && (value as f32).is_normal() {
            true => Ok(value),
            false => Err(self.wrong(name, "expected a positive number")),
        }
    }

    /// A text, or a list of them.
    fn texts(&self, name: &str) -> Result<Vec<String>, Error> {
        if self.is_off(name) {
            return Ok(Vec::new());
        }
        let texts = match self.get(name) {
            Value::String(text) => Some(vec![text.clone()]),
            Value::Array(items) => items.iter().map(|item| item.as_str().map(str::to_owned)).collect(),
            _ => None,
        };
        texts.ok_or_else(|| self.wrong(name, "expected texts"))
    }

    fn targets(&self, name: &str) -> Result<Targets, Error> {
        match self.get(name) {
            Value::String(text) if text.eq_ignore_ascii_case("all-linear") => Ok(Targets::AllLinear),
            Value::String(text) => Ok(Targets::Pattern(Regex::new(&format!("^(?:{text})$")).ok())),
            Value::Array(items) if !items.is_empty() => Ok(Targets::Names(self.texts(name)?)),
            _ => Err(self.wrong(name, "expected a list of modules, a regular expression, or \"all-linear\"")),
        }
    }

    /// Numbers by pattern: an end of a path, as a regular expression.
    fn patterns(&self, name: &str) -> Result<Vec<(Regex, f64)>, Error> {
        if self.is_off(name) {
            return Ok(Vec::new());
        }
        let Value::Object(entries) = self.get(name) else {
            return Err(self.wrong(name, "expected an object of module to number"));
        };
        let read = |(key, value): (&String, &Value)| {
            let number = value.as_f64().filter(|x| *x > 0.0 && (*x as f32).is_normal());
            let number = number.filter(|x| name != "rank_pattern" || x.fract() == 0.0 && *x <= 65536.0);
            let number =
                number.ok_or_else(|| self.wrong(name, "expected positive numbers, and whole ones for ranks"))?;
            let regex = Regex::new(&format!("^(?:.*\\.)?(?:{key})$"));
            Ok((regex.map_err(|error| self.wrong(name, &format!("`{key}` is not understood: {error}")))?, number))
        };
        entries.iter().map(read).collect()
    }

    fn layers(&self) -> Result<Option<Layers>, Error> {
        let name = "layers_to_transform";
        if self.is_off(name) {
            return match self.is_off("layers_pattern") {
                true => Ok(None),
                false => Err(self.wrong("layers_pattern", "means nothing without layers_to_transform")),
            };
        }
        let layers: Option<Vec<u64>> = match self.get(name) {
            Value::Array(items) => items.iter().map(Value::as_u64).collect(),
            one => one.as_u64().map(|layer| vec![layer]),
        };
        let layers = layers.ok_or_else(|| self.wrong(name, "expected numbers of layers"))?;
        let mut patterns: Vec<String> =
            self.texts("layers_pattern")?.iter().map(|name| format!(r"^(?:.*?\.)?(?:{name})\.(\d+)\.")).collect();
        if patterns.is_empty() {
            patterns.push(r"^.*?\.[^.]*\.(\d+)\.".to_owned());
        }
        let compile =
            |pattern: &String| Regex::new(pattern).map_err(|error| self.wrong("layers_pattern", &error.to_string()));
        Ok(Some((layers, patterns.iter().map(compile).collect::<Result<_, _>>()?)))
    }
}
