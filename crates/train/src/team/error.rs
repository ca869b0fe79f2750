//! What can go wrong between ranks.

/// Errors of a [`crate::Team`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TeamError {
    /// A rank failed, for a reason of its own.
    #[error("rank {rank} on {host}: {message}")]
    Failed {
        /// The rank.
        rank: usize,
        /// Its machine.
        host: String,
        /// Its reason.
        message: String,
    },
    /// A rank was given, or has come to, something else than rank 0.
    #[error("rank {rank} on {host} differs from rank 0 in {what}: {found}, rank 0 has {expected}")]
    Differs {
        /// The rank.
        rank: usize,
        /// Its machine.
        host: String,
        /// What differs.
        what: String,
        /// Of rank 0.
        expected: String,
        /// Of the rank.
        found: String,
    },
    /// Ranks are at different places of the program, which is a defect.
    #[error("rank {rank} on {host} is at {there}, rank 0 at {here}")]
    Apart {
        /// The rank.
        rank: usize,
        /// Its machine.
        host: String,
        /// Where it is.
        there: String,
        /// Where rank 0 is.
        here: String,
    },
    /// Other ranks cannot be reached, or are not understood.
    #[error("the other ranks: {reason}")]
    Lost {
        /// Why.
        reason: String,
    },
}

impl From<TeamError> for melo_vit::Error {
    fn from(error: TeamError) -> Self {
        melo_vit::Error::Elsewhere(Box::new(error))
    }
}
