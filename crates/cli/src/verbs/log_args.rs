//! Where else trainings are logged.

use super::train::usage;
use crate::{Failure, note};
use melo::log::{Destination, Logs, Run, Server, ServerAccess, Status};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The variable of MLflow's clients that holds a server's address.
const TRACKING_URI: &str = "MLFLOW_TRACKING_URI";

/// Flags of logs.
#[derive(clap::Args)]
pub(crate) struct LogArgs {
    /// Log to other tools too: `tensorboard[:DIR]` into event files, `mlflow[:URI]` to a server [default: $MLFLOW_TRACKING_URI]; may be
    /// repeated
    #[arg(long = "log", value_name = "WHERE", value_parser = LogArg::parse)]
    logs: Vec<LogArg>,
}

#[derive(Clone)]
enum LogArg {
    TensorBoard(Option<PathBuf>),
    MlFlow(Option<String>),
}

impl LogArg {
    fn parse(text: &str) -> Result<Self, String> {
        let (tool, place) = text.split_once(':').map_or((text, None), |(tool, place)| (tool, Some(place)));
        match (tool, place) {
            (_, Some("")) => Err("nothing follows the colon".to_owned()),
            ("tensorboard", place) => Ok(LogArg::TensorBoard(place.map(PathBuf::from))),
            ("mlflow", place) => Ok(LogArg::MlFlow(place.map(str::to_owned))),
            _ => Err("expected tensorboard, tensorboard:DIR, mlflow or mlflow:http://HOST:PORT".to_owned()),
        }
    }
}

impl LogArgs {
    /// The logs of a run: event files are in `own`, or in a folder of the run's name where a place for them was given.
    pub(super) fn open(&self, run: Run, own: &Path) -> Result<Logs, Failure> {
        let to = |log: &LogArg| match log {
            LogArg::TensorBoard(None) => Ok(Destination::TensorBoard(own.to_owned())),
            LogArg::TensorBoard(Some(folder)) => Ok(Destination::TensorBoard(folder.join(&run.name))),
            LogArg::MlFlow(address) => {
                let address = address.clone().or_else(|| std::env::var(TRACKING_URI).ok());
                let address =
                    address.ok_or_else(|| usage(format!("--log mlflow: name a server, or set {TRACKING_URI}")))?;
                let server = Server::new(&address, ServerAccess::from_env());
                Ok(Destination::MlFlow(server.map_err(|error| usage(format!("--log mlflow: {error}")))?))
            }
        };
        let destinations = self.logs.iter().map(to).collect::<Result<Vec<_>, Failure>>()?;
        Ok(Logs::new(destinations, run, Arc::new(|warning| note(format_args!("warning: {warning}")))))
    }

    /// The same flags for another process, wherever it is started.
    pub(super) fn words(&self) -> Result<Vec<String>, Failure> {
        let mut words = Vec::new();
        for log in &self.logs {
            let place = match log {
                LogArg::TensorBoard(None) | LogArg::MlFlow(None) => None,
                LogArg::TensorBoard(Some(folder)) => Some(std::path::absolute(folder)?.display().to_string()),
                LogArg::MlFlow(Some(address)) => Some(address.clone()),
            };
            let tool = if matches!(log, LogArg::TensorBoard(_)) { "tensorboard" } else { "mlflow" };
            words.extend(["--log".to_owned(), place.map_or(tool.to_owned(), |place| format!("{tool}:{place}"))]);
        }
        Ok(words)
    }
}

/// Ends the logs of a training as it ended.
pub(super) fn end<T>(logs: Logs, result: &Result<T, Failure>, plugin: Option<&Path>) {
    match result {
        Ok(_) => logs.end(Status::Finished, plugin),
        Err(Failure::Interrupted(_)) => logs.end(Status::Killed, None),
        Err(_) => logs.end(Status::Failed, None),
    }
}
