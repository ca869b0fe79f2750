//! What holds where nobody says otherwise: flags, variables and the settings' file overlay these.

use std::time::Duration;

/// Address and port.
pub const LISTEN: &str = "127.0.0.1:8080";
/// Folder for what must outlive the process.
pub const STATE: &str = "melo-serve";
/// Images times tasks that are computed at once.
pub const MAX_BATCH: usize = 32;
/// How long the first request of a batch waits for others.
pub const MAX_WAIT: Duration = Duration::from_millis(5);
/// Images times tasks that may be waiting or in work.
pub const QUEUE: usize = 1024;
/// Share of the queue from which on it counts as pressed.
pub const PRESSED_SHARE: f64 = 0.9;
/// How long it is pressed before the server is not ready.
pub const PRESSED_FOR: Duration = Duration::from_secs(5);
/// How long requests are still taken after the server was asked to stop.
pub const LAME_DUCK: Duration = Duration::ZERO;
/// Images of one request.
pub const MAX_IMAGES: usize = 64;
/// Images of one bag.
pub const MAX_BAG_IMAGES: usize = 1024;
/// Size of one request, bytes.
pub const BODY_BYTES: usize = 256 << 20;
/// Time from a request to its answer.
pub const TIMEOUT: Duration = Duration::from_secs(120);
/// Memory for plug-ins, bytes.
pub const RESIDENT_BYTES: usize = 1024 << 20;
/// Versions of a task that can be named beside the current one.
pub const KEEP_VERSIONS: usize = 8;
/// Connections at a time.
pub const MAX_CONNECTIONS: usize = 1024;
/// How long requests that were begun are waited for when the server stops.
pub const DRAIN: Duration = Duration::from_secs(30);
/// Memory of all image decoders together, by what headers claim, bytes.
pub const DECODE_BYTES: u64 = 2 << 30;
/// Age of an audit's checkpoint behind which records were added.
pub const CHECKPOINT: Duration = Duration::from_secs(60);
