//! The server: its queue and its registry, and through its doors on loopback.

mod bags;
mod batch;
mod common;
mod counted;
mod dicom;
mod drift;
mod encrypted;
mod hostile;
mod http;
mod openapi;
mod page;
mod ready;
mod registry;
mod scope;
mod series;
mod sets;
mod signed;
mod trust;
