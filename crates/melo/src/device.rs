//! The way to a device by a word: this machine's processor, or one of its GPUs.

use melo_vit::{Device, DeviceSpec, Error};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// A device by the word that asks for it: `cpu`, `cuda` or `cuda:N`, `auto`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeviceName {
    /// The processor.
    #[default]
    Processor,
    /// The NVIDIA GPU of this number, from 0. Experimental: no kernel of it has run on a card yet.
    Cuda(usize),
    /// The first GPU that can be used, else the processor.
    Auto,
}

/// A word that asks for no device.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no device: cpu, cuda, cuda:N and auto are")]
pub struct UnknownDevice(String);

impl FromStr for DeviceName {
    type Err = UnknownDevice;

    fn from_str(word: &str) -> Result<Self, UnknownDevice> {
        let digits = |number: &&str| number.bytes().all(|byte| byte.is_ascii_digit());
        match word {
            "cpu" => Ok(DeviceName::Processor),
            "auto" => Ok(DeviceName::Auto),
            "cuda" => Ok(DeviceName::Cuda(0)),
            _ => {
                let number = word.strip_prefix("cuda:").filter(digits).and_then(|number| number.parse().ok());
                number.map(DeviceName::Cuda).ok_or_else(|| UnknownDevice(word.to_owned()))
            }
        }
    }
}

/// The word, with the GPU's number.
impl fmt::Display for DeviceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DeviceName::Processor => f.write_str("cpu"),
            DeviceName::Cuda(number) => write!(f, "cuda:{number}"),
            DeviceName::Auto => f.write_str("auto"),
        }
    }
}

impl DeviceName {
    /// The device; threads of `spec` are the processor's.
    ///
    /// # Errors
    /// [`Error::Device`] for a GPU that cannot be used, or a build without the feature `cuda`.
    pub fn open(self, spec: &DeviceSpec) -> Result<Arc<dyn Device>, Error> {
        match self {
            DeviceName::Processor => Ok(spec.open()),
            DeviceName::Cuda(number) => cuda(number, spec),
            DeviceName::Auto => Ok(cuda(0, spec).unwrap_or_else(|_| spec.open())),
        }
    }
}

#[cfg(feature = "cuda")]
fn cuda(number: usize, spec: &DeviceSpec) -> Result<Arc<dyn Device>, Error> {
    Ok(Arc::new(melo_cuda::Cuda::open(number, spec.precision)?))
}

#[cfg(not(feature = "cuda"))]
fn cuda(number: usize, _: &DeviceSpec) -> Result<Arc<dyn Device>, Error> {
    let reason = "this build computes on processors alone; one with the feature `cuda` has GPUs".to_owned();
    Err(Error::Device { device: DeviceName::Cuda(number).to_string(), reason })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_devices() {
        for (word, device) in [
            ("cpu", DeviceName::Processor),
            ("auto", DeviceName::Auto),
            ("cuda:0", DeviceName::Cuda(0)),
            ("cuda:12", DeviceName::Cuda(12)),
        ] {
            assert_eq!(word.parse::<DeviceName>(), Ok(device));
            assert_eq!(device.to_string(), word);
        }
        assert_eq!("cuda".parse::<DeviceName>(), Ok(DeviceName::Cuda(0)));
        for word in ["", "gpu", "cuda:", "cuda:-1", "cuda:+1", "cuda:a", "CUDA", "cuda: 1"] {
            let error = word.parse::<DeviceName>().expect_err(word).to_string();
            assert_eq!(error, format!("`{word}` is no device: cpu, cuda, cuda:N and auto are"));
        }
    }
}
