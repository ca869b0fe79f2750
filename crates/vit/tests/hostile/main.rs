//! Files that must be refused, each by the name of its defect, and failed writes that must leave nothing behind.

#![allow(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

mod backbones;
mod bytes;
mod cards;
mod plugins;
mod raw;
mod settings;
#[path = "../tiny/mod.rs"]
mod tiny;
mod writing;
