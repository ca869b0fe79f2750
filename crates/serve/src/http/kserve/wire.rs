//! Requests and answers of the protocol in bytes: JSON, and behind it the data of binary tensors.

use crate::error::Refusal;
use axum::Json;
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use serde::Deserialize;
use serde_json::{Map, Value, json};

/// Length of the JSON before binary data.
const HEADER_LENGTH: HeaderName = HeaderName::from_static("inference-header-content-length");

/// A request that was read.
pub(super) struct Infer {
    pub(super) id: Option<String>,
    pub(super) inputs: Vec<Tensor>,
    /// Those asked for; `probabilities` where none is named.
    pub(super) outputs: Vec<Output>,
}

/// An output that was asked for.
pub(super) struct Output {
    pub(super) name: String,
    pub(super) binary: bool,
}

/// An input.
pub(super) struct Tensor {
    pub(super) name: String,
    pub(super) shape: Vec<usize>,
    datatype: String,
    data: Data,
}

enum Data {
    Json(Vec<Value>),
    Binary(Vec<u8>),
}

#[derive(Deserialize)]
struct RawInfer {
    id: Option<String>,
    #[serde(default)]
    parameters: Map<String, Value>,
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
    parameters: Map<String, Value>,
    data: Option<Vec<Value>>,
}

#[derive(Deserialize)]
struct RawOutput {
    name: String,
    #[serde(default)]
    parameters: Map<String, Value>,
}

fn bad(message: impl Into<String>) -> Refusal {
    Refusal::BadRequest(message.into())
}

pub(super) fn read(headers: &HeaderMap, body: &[u8]) -> Result<Infer, Refusal> {
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
        let size = tensor.parameters.get("binary_data_size").map(|size| size.as_u64().unwrap_or(u64::MAX));
        let data = match (size, tensor.data) {
            (Some(size), None) => {
                let size = usize::try_from(size).ok().filter(|&size| size <= binary.len());
                let size = size.ok_or_else(|| bad(format!("`{}`: binary data ends early", tensor.name)))?;
                let (own, rest) = binary.split_at(size);
                binary = rest;
                Data::Binary(own.to_vec())
            }
            (None, Some(values)) => {
                let mut flat = Vec::new();
                flatten(values, &mut flat);
                Data::Json(flat)
            }
            _ => return Err(bad(format!("`{}`: expected either data or binary_data_size", tensor.name))),
        };
        inputs.push(Tensor { name: tensor.name, shape: tensor.shape, datatype: tensor.datatype, data });
    }
    if !binary.is_empty() {
        return Err(bad(format!("{} bytes of binary data belong to no input", binary.len())));
    }
    let flag = |parameters: &Map<String, Value>, name: &str| parameters.get(name).and_then(Value::as_bool);
    let all = flag(&raw.parameters, "binary_data_output").unwrap_or(false);
    let mut outputs: Vec<Output> = raw
        .outputs
        .into_iter()
        .map(|output| Output { binary: flag(&output.parameters, "binary_data").unwrap_or(all), name: output.name })
        .collect();
    if outputs.is_empty() {
        outputs.push(Output { name: super::OUTPUTS[0].to_owned(), binary: all });
    }
    Ok(Infer { id: raw.id, inputs, outputs })
}

/// Data may come as nested arrays.
fn flatten(values: Vec<Value>, flat: &mut Vec<Value>) {
    for value in values {
        match value {
            Value::Array(inner) => flatten(inner, flat),
            value => flat.push(value),
        }
    }
}

impl Tensor {
    fn expect(&self, datatype: &str) -> Result<usize, Refusal> {
        if self.datatype != datatype {
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
    pub(super) fn files(self) -> Result<Vec<Vec<u8>>, Refusal> {
        let count = self.expect("BYTES")?;
        let mut files = Vec::new();
        match &self.data {
            Data::Json(values) => {
                for value in values {
                    let text = value.as_str().ok_or_else(|| bad(format!("`{}`: expected base64", self.name)))?;
                    let bytes = base64::engine::general_purpose::STANDARD.decode(text);
                    files.push(bytes.map_err(|error| bad(format!("`{}`: base64: {error}", self.name)))?);
                }
            }
            Data::Binary(bytes) => {
                let mut rest = &bytes[..];
                while let Some((length, after)) = rest.split_first_chunk::<4>() {
                    let file = after.get(..u32::from_le_bytes(*length) as usize);
                    let file = file.ok_or_else(|| bad(format!("`{}`: an element ends early", self.name)))?;
                    files.push(file.to_vec());
                    rest = &after[file.len()..];
                }
                if !rest.is_empty() {
                    return Err(bad(format!("`{}`: {} bytes are left over", self.name, rest.len())));
                }
            }
        }
        self.found(files.len(), count)?;
        Ok(files)
    }

    /// The elements of an `FP32` tensor.
    pub(super) fn floats(self) -> Result<Vec<f32>, Refusal> {
        let count = self.expect("FP32")?;
        let values: Vec<f32> = match &self.data {
            Data::Json(values) => {
                let number = |value: &Value| value.as_f64().map(|value| value as f32);
                let values: Option<Vec<f32>> = values.iter().map(number).collect();
                values.ok_or_else(|| bad(format!("`{}`: expected numbers", self.name)))?
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
pub(super) fn write(
    (model, version): (&str, &str),
    id: Option<String>,
    shape: [usize; 2],
    outputs: &[(Output, &[f32])],
) -> Response {
    let mut binary = Vec::new();
    let mut described = Vec::new();
    for (output, values) in outputs {
        let mut one = json!({ "name": output.name, "datatype": "FP32", "shape": shape });
        if output.binary {
            one["parameters"] = json!({ "binary_data_size": size_of_val(*values) });
            values.iter().for_each(|value| binary.extend_from_slice(&value.to_le_bytes()));
        } else {
            one["data"] = json!(values);
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
