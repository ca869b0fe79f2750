//! Requests and answers of the protocol in bytes: JSON, and behind it the data of binary tensors.

mod elements;

use crate::error::Refusal;
use crate::shortest;
use axum::Json;
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use elements::{Elements, FILES};
use melo_vit::TaskKind;
use serde::Deserialize;
use serde_json::{Value, json};

/// Length of the JSON before binary data.
pub(in crate::http) const HEADER_LENGTH: HeaderName = HeaderName::from_static("inference-header-content-length");
/// Sides of a shape.
const SIDES: usize = 8;

/// Of every pixel of a mask.
pub(super) const SCORES: &str = "scores";

/// Of a plug-in that makes prediction sets.
pub(super) const SET: &str = "set";

/// Of an ensemble of folds.
pub(super) const SPREAD: &str = "spread";

/// What every answer of this kind may hold, the first by default.
pub(super) fn outputs_of(kind: TaskKind) -> [&'static str; 2] {
    match kind {
        TaskKind::Segmentation => ["values", SCORES],
        TaskKind::Regression => ["values", "logits"],
        _ => ["probabilities", "logits"],
    }
}

/// A request that was read.
pub(in crate::http) struct Infer {
    pub(in crate::http) id: Option<String>,
    pub(in crate::http) inputs: Vec<Tensor>,
    /// Those asked for; `probabilities` where none is named.
    pub(in crate::http) outputs: Vec<Output>,
}

/// An output that was asked for.
pub(in crate::http) struct Output {
    pub(in crate::http) name: String,
    pub(in crate::http) binary: bool,
}

/// An input.
pub(in crate::http) struct Tensor {
    pub(in crate::http) name: String,
    pub(in crate::http) shape: Vec<usize>,
    datatype: String,
    data: Data,
}

enum Data {
    Json(Elements),
    Binary(Vec<u8>),
}

/// Of the request, an input or an output: those that mean something here.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Parameters {
    binary_data_size: Option<u64>,
    binary_data: Option<bool>,
    binary_data_output: bool,
}

#[derive(Deserialize)]
struct RawInfer {
    id: Option<String>,
    #[serde(default)]
    parameters: Parameters,
    inputs: Vec<RawTensor>,
    #[serde(default)]
    outputs: Vec<RawOutput>,
}

#[derive(Deserialize)]
struct RawTensor {
    name: String,
    shape: Vec<usize>,
    datatype: String,
    #[serde(default)]
    parameters: Parameters,
    data: Option<Elements>,
}

#[derive(Deserialize)]
struct RawOutput {
    name: String,
    #[serde(default)]
    parameters: Parameters,
}

fn bad(message: impl Into<String>) -> Refusal {
    Refusal::BadRequest(message.into())
}

pub(in crate::http) fn read(headers: &HeaderMap, body: &[u8], kind: TaskKind) -> Result<Infer, Refusal> {
    if headers.contains_key(header::CONTENT_ENCODING) {
        return Err(bad("compressed bodies are not taken"));
    }
    let length = match headers.get(HEADER_LENGTH) {
        Some(value) => {
            let length = value.to_str().ok().and_then(|text| text.parse().ok());
            length.filter(|&length| length <= body.len()).ok_or_else(|| bad(format!("{HEADER_LENGTH} is wrong")))?
        }
        None => body.len(),
    };
    let (json, mut binary) = body.split_at(length);
    let raw: RawInfer = serde_json::from_slice(json).map_err(|error| bad(format!("the request: {error}")))?;
    let mut inputs = Vec::new();
    for tensor in raw.inputs {
        if tensor.shape.len() > SIDES {
            return Err(bad(format!("`{}`: its shape has more than {SIDES} sides", tensor.name)));
        }
        let data = match (tensor.parameters.binary_data_size, tensor.data) {
            (Some(size), None) => {
                let size = usize::try_from(size).ok().filter(|&size| size <= binary.len());
                let size = size.ok_or_else(|| bad(format!("`{}`: binary data ends early", tensor.name)))?;
                let (own, rest) = binary.split_at(size);
                binary = rest;
                Data::Binary(own.to_vec())
            }
            (None, Some(elements)) => Data::Json(elements),
            _ => return Err(bad(format!("`{}`: expected either data or binary_data_size", tensor.name))),
        };
        inputs.push(Tensor { name: tensor.name, shape: tensor.shape, datatype: tensor.datatype, data });
    }
    if !binary.is_empty() {
        return Err(bad(format!("{} bytes of binary data belong to no input", binary.len())));
    }
    let all = raw.parameters.binary_data_output;
    let mut outputs: Vec<Output> = raw
        .outputs
        .into_iter()
        .map(|output| Output { binary: output.parameters.binary_data.unwrap_or(all), name: output.name })
        .collect();
    if outputs.is_empty() {
        outputs.push(Output { name: outputs_of(kind)[0].to_owned(), binary: all });
    }
    Ok(Infer { id: raw.id, inputs, outputs })
}

impl Tensor {
    pub(in crate::http) fn is(&self, datatype: &str) -> bool {
        self.datatype == datatype
    }

    fn taken(&mut self) -> Data {
        std::mem::replace(&mut self.data, Data::Binary(Vec::new()))
    }

    fn expect(&self, datatype: &str) -> Result<usize, Refusal> {
        if !self.is(datatype) {
            return Err(bad(format!("`{}` is {}, expected {datatype}", self.name, self.datatype)));
        }
        let count = self.shape.iter().try_fold(1_usize, |count, &side| count.checked_mul(side));
        count.ok_or_else(|| bad(format!("`{}`: shape {:?} is too large", self.name, self.shape)))
    }

    fn found(&self, found: usize, count: usize) -> Result<(), Refusal> {
        match found == count {
            true => Ok(()),
            false => Err(bad(format!("`{}`: {found} elements, but shape {:?} has {count}", self.name, self.shape))),
        }
    }

    /// The elements of a `BYTES` tensor: in JSON as base64, in binary each behind its length in four bytes.
    pub(in crate::http) fn files(mut self) -> Result<Vec<Vec<u8>>, Refusal> {
        let count = self.expect("BYTES")?;
        let files = match self.taken() {
            Data::Json(elements) => self.decoded(elements)?,
            Data::Binary(bytes) => self.behind_lengths(&bytes)?,
        };
        self.found(files.len(), count)?;
        Ok(files)
    }

    /// A text is let go of when its file is there.
    fn decoded(&self, elements: Elements) -> Result<Vec<Vec<u8>>, Refusal> {
        let texts = elements.texts().ok_or_else(|| bad(format!("`{}`: expected base64", self.name)))?;
        let file = |text: String| base64::engine::general_purpose::STANDARD.decode(text);
        let files: Result<_, _> = texts.into_iter().map(file).collect();
        files.map_err(|error| bad(format!("`{}`: base64: {error}", self.name)))
    }

    fn behind_lengths(&self, bytes: &[u8]) -> Result<Vec<Vec<u8>>, Refusal> {
        let (mut files, mut rest) = (Vec::new(), bytes);
        while let Some((length, after)) = rest.split_first_chunk::<4>() {
            let file = after.get(..u32::from_le_bytes(*length) as usize);
            let file = file.ok_or_else(|| bad(format!("`{}`: an element ends early", self.name)))?;
            if files.len() == FILES {
                return Err(bad(format!("`{}`: more than {FILES} elements", self.name)));
            }
            files.push(file.to_vec());
            rest = &after[file.len()..];
        }
        match rest.len() {
            0 => Ok(files),
            left => Err(bad(format!("`{}`: {left} bytes are left over", self.name))),
        }
    }

    /// The elements of an `FP32` tensor.
    pub(in crate::http) fn floats(mut self) -> Result<Vec<f32>, Refusal> {
        let count = self.expect("FP32")?;
        let values: Vec<f32> = match self.taken() {
            Data::Json(elements) => {
                elements.numbers().ok_or_else(|| bad(format!("`{}`: expected numbers", self.name)))?
            }
            Data::Binary(bytes) => {
                let (values, rest) = bytes.as_chunks();
                if !rest.is_empty() {
                    return Err(bad(format!("`{}`: {} bytes are no FP32 data", self.name, bytes.len())));
                }
                values.iter().map(|&value| f32::from_le_bytes(value)).collect()
            }
        };
        self.found(values.len(), count)?;
        Ok(values)
    }
}

/// The answer, with binary data behind the JSON where an output was asked for so.
pub(in crate::http) fn write(
    (model, version): (&str, &str),
    id: Option<String>,
    outputs: &[(Output, Value, Vec<f32>)],
) -> Response {
    let mut binary = Vec::new();
    let mut described = Vec::new();
    for (output, shape, values) in outputs {
        let mut one = json!({ "name": output.name, "datatype": "FP32", "shape": shape });
        if output.binary {
            one["parameters"] = json!({ "binary_data_size": size_of_val(values.as_slice()) });
            values.iter().for_each(|value| binary.extend_from_slice(&value.to_le_bytes()));
        } else {
            one["data"] = shortest::value(values);
        }
        described.push(one);
    }
    let mut answer = json!({ "model_name": model, "model_version": version, "outputs": described });
    if let Some(id) = id {
        answer["id"] = json!(id);
    }
    if binary.is_empty() {
        return Json(answer).into_response();
    }
    let mut body = answer.to_string().into_bytes();
    let length = HeaderValue::from(body.len());
    body.extend(binary);
    ([(HEADER_LENGTH, length), (header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"))], body)
        .into_response()
}
