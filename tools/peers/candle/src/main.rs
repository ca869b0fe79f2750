//! `candle-peer BATCH SECONDS`: forward passes of candle's ViT-B/16 in f32 with random weights, on the threads that
//! `RAYON_NUM_THREADS` says. Prints what `tools/peers/cpu_peers.py` prints: one JSON object.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use candle_core::{DType, Device, Tensor};
use candle_nn::{VarBuilder, VarMap};
use candle_transformers::models::vit::{Config, Model};

const CLASSES: usize = 1000;
const VERSION: &str = "0.11.1";

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let batch: usize = arguments.next().context("images of a batch")?.parse()?;
    let seconds: f64 = arguments.next().context("seconds at least")?.parse()?;

    let weights = VarMap::new();
    let builder = VarBuilder::from_varmap(&weights, DType::F32, &Device::Cpu);
    let model = Model::new(&Config::vit_base_patch16_224(), CLASSES, builder)?;
    // Weights that no gradient is asked of: what a deployed model holds.
    let weights: std::collections::HashMap<_, _> = weights
        .data()
        .lock()
        .expect("one thread")
        .iter()
        .map(|(name, var)| (name.clone(), var.as_detached_tensor()))
        .collect();
    drop(model);
    let builder = VarBuilder::from_tensors(weights, DType::F32, &Device::Cpu);
    let model = Model::new(&Config::vit_base_patch16_224(), CLASSES, builder)?;
    let images = Tensor::randn(0f32, 1f32, (batch, 3, 224, 224), &Device::Cpu)?;

    let step = || model.forward(&images);
    step()?;
    step()?;
    let (mut rates, started) = (Vec::new(), Instant::now());
    while rates.len() < 3 || started.elapsed() < Duration::from_secs_f64(seconds) {
        let before = Instant::now();
        step()?;
        rates.push(batch as f64 / before.elapsed().as_secs_f64());
    }
    rates.sort_by(f64::total_cmp);
    let median = (rates[(rates.len() - 1) / 2] + rates[rates.len() / 2]) / 2.0;
    let peak = peak_rss_bytes()?;
    println!("{{\"images_per_s\":{median},\"peak_rss_bytes\":{peak},\"versions\":{{\"candle\":\"{VERSION}\"}}}}");
    Ok(())
}

/// The most memory that this process held, as Linux counts it.
fn peak_rss_bytes() -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM")?;
    let kib: u64 = line.trim().trim_end_matches("kB").trim().parse()?;
    Ok(kib * 1024)
}
