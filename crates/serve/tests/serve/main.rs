//! The server: its queue and its registry, and through its doors on loopback.

mod batch;
mod common;
mod dicom;
mod encrypted;
mod hostile;
mod http;
mod openapi;
mod page;
mod registry;
mod signed;
mod trust;
