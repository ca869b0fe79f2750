//! Every kernel on every instruction set against naive f64 oracles, every backward against central differences of the
//! f64 forward, and every view that must be refused.

mod attention;
mod bf16;
mod exact;
mod gelu;
mod int8;
mod linear;
mod lowrank;
mod matmul;
mod norm;
mod peak;
mod problem;
mod resample;
mod softmax;
mod swiglu;
mod views;
