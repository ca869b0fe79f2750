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
mod deploy;
mod disk_full;
mod embed;
mod folds;
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
mod ranks;
mod recalibrate;
mod replicas;
mod resume;
mod scope;
mod seen;
mod serve;
mod server;
mod sets;
mod signed;
mod study;
mod study_slurm;
mod sweep;
mod trust;
mod volumes;
mod workplace;
mod wrong_inputs;
