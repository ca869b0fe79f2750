//! A graph of ONNX being built: nodes, each with one output that bears its name, and constants.

use melo_vit::{Linear, Norm};

/// An attribute's value.
#[derive(Clone)]
pub(super) enum Attribute {
    Int(i64),
    Ints(Vec<i64>),
    Float(f32),
}

impl From<i64> for Attribute {
    fn from(value: i64) -> Self {
        Attribute::Int(value)
    }
}

impl From<&[i64]> for Attribute {
    fn from(values: &[i64]) -> Self {
        Attribute::Ints(values.to_vec())
    }
}

impl From<f32> for Attribute {
    fn from(value: f32) -> Self {
        Attribute::Float(value)
    }
}

/// One operation.
pub(super) struct Node {
    pub(super) operator: &'static str,
    pub(super) inputs: Vec<String>,
    pub(super) output: String,
    pub(super) attributes: Vec<(&'static str, Attribute)>,
}

/// Numbers of a constant, little-endian.
pub(super) enum Numbers {
    F32(Vec<u8>),
    I64(Vec<u8>),
}

/// A constant.
pub(super) struct Constant {
    pub(super) name: String,
    pub(super) shape: Vec<usize>,
    pub(super) numbers: Numbers,
}

/// Nodes in the order they run, and what they need.
pub(super) struct Graph {
    /// Name, and shape without the batch.
    pub(super) input: (&'static str, Vec<usize>),
    pub(super) classes: usize,
    pub(super) nodes: Vec<Node>,
    pub(super) constants: Vec<Constant>,
    pub(super) outputs: Vec<String>,
}

impl Graph {
    pub(super) fn new((name, shape): (&'static str, &[usize]), classes: usize) -> Self {
        let input = (name, shape.to_vec());
        Graph { input, classes, nodes: Vec::new(), constants: Vec::new(), outputs: Vec::new() }
    }

    /// Adds an operation and returns its output.
    pub(super) fn node(
        &mut self,
        operator: &'static str,
        inputs: &[&str],
        output: &str,
        attributes: &[(&'static str, Attribute)],
    ) -> String {
        let attributes = attributes.to_vec();
        let inputs = inputs.iter().map(|&input| input.to_owned()).collect();
        self.nodes.push(Node { operator, inputs, output: output.to_owned(), attributes });
        output.to_owned()
    }

    /// As [`Graph::node`], for one of the graph's outputs.
    pub(super) fn output(
        &mut self,
        operator: &'static str,
        inputs: &[&str],
        output: &str,
        attributes: &[(&'static str, Attribute)],
    ) {
        let output = self.node(operator, inputs, output, attributes);
        self.outputs.push(output);
    }

    pub(super) fn floats(&mut self, name: &str, shape: &[usize], values: &[f32]) {
        let numbers = Numbers::F32(values.iter().flat_map(|x| x.to_le_bytes()).collect());
        self.constants.push(Constant { name: name.to_owned(), shape: shape.to_vec(), numbers });
    }

    pub(super) fn integers(&mut self, name: &str, values: &[i64]) {
        let numbers = Numbers::I64(values.iter().flat_map(|x| x.to_le_bytes()).collect());
        self.constants.push(Constant { name: name.to_owned(), shape: vec![values.len()], numbers });
    }

    /// `x` with one number added, multiplied, or divided by.
    pub(super) fn scaled(&mut self, x: &str, name: &str, operator: &'static str, value: f32) -> String {
        let constant = format!("{name}.value");
        self.floats(&constant, &[], &[value]);
        self.node(operator, &[x, &constant], name, &[])
    }

    /// In another shape; 0 keeps an axis.
    pub(super) fn reshape(&mut self, x: &str, name: &str, shape: &[i64]) -> String {
        let constant = format!("{name}.shape");
        self.integers(&constant, shape);
        self.node("Reshape", &[x, &constant], name, &[])
    }

    /// One index of an axis, which is then gone.
    pub(super) fn pick(&mut self, x: &str, name: &str, index: i64, axis: i64) -> String {
        let constant = format!("{name}.index");
        let numbers = Numbers::I64(index.to_le_bytes().to_vec());
        self.constants.push(Constant { name: constant.clone(), shape: Vec::new(), numbers });
        self.node("Gather", &[x, &constant], name, &[("axis", axis.into())])
    }

    /// `x · gamma`; `x` itself where there is no `gamma`.
    pub(super) fn layer_scale(&mut self, x: &str, name: &str, gamma: &[f32]) -> String {
        if gamma.is_empty() {
            return x.to_owned();
        }
        let constant = format!("{name}.gamma");
        self.floats(&constant, &[gamma.len()], gamma);
        self.node("Mul", &[x, &constant], name, &[])
    }

    /// A range of an axis.
    pub(super) fn slice(&mut self, x: &str, name: &str, axis: i64, (start, end): (i64, i64)) -> String {
        let [starts, ends, axes] = ["starts", "ends", "axes"].map(|part| format!("{name}.{part}"));
        self.integers(&starts, &[start]);
        self.integers(&ends, &[end]);
        self.integers(&axes, &[axis]);
        self.node("Slice", &[x, &starts, &ends, &axes], name, &[])
    }

    pub(super) fn layernorm(&mut self, x: &str, name: &str, norm: &Norm, eps: f32) -> String {
        let [gamma, beta] = ["weight", "bias"].map(|part| format!("{name}.{part}"));
        self.floats(&gamma, &[norm.gamma.len()], &norm.gamma);
        self.floats(&beta, &[norm.beta.len()], &norm.beta);
        let attributes = [("axis", (-1).into()), ("epsilon", eps.into())];
        self.node("LayerNormalization", &[x, &gamma, &beta], name, &attributes)
    }

    /// `x Wᵀ + b`, with `W [out, in]` stored as `[in, out]`.
    pub(super) fn linear(&mut self, x: &str, name: &str, linear: &Linear, input: usize) -> String {
        let out = linear.weight.len() / input;
        let column = |i: usize| linear.weight.iter().skip(i).step_by(input).copied();
        let transposed: Vec<f32> = (0..input).flat_map(column).collect();
        let [weight, bias] = ["weight", "bias"].map(|part| format!("{name}.{part}"));
        self.floats(&weight, &[input, out], &transposed);
        if linear.bias.is_empty() {
            return self.node("MatMul", &[x, &weight], name, &[]);
        }
        self.floats(&bias, &[out], &linear.bias);
        let product = self.node("MatMul", &[x, &weight], &format!("{name}.product"), &[]);
        self.node("Add", &[&product, &bias], name, &[])
    }
}
