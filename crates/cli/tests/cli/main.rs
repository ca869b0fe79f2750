//! The real binary on real files, and the house's own rules.

mod adapters;
mod archive_queue;
mod archive_run;
mod archive_store;
mod arrows;
mod assets;
mod audit_archive;
mod bags;
mod bench;
mod bench_load;
mod bucket;
mod data_verbs;
mod disk_full;
mod embed;
#[path = "../../../serve/tests/serve/common/form.rs"]
mod form;
mod intended_use;
mod kinds;
mod main_job;
mod masks;
mod methods;
mod mixed;
mod one_answer;
mod others_files;
mod packed;
#[path = "../../../serve/tests/serve/common/peer.rs"]
mod peer;
mod recalibrate;
mod resume;
mod seen;
mod serve;
mod server;
mod signed;
mod study;
mod sweep;
mod trust;
mod volumes;
mod workplace;
mod wrong_inputs;
