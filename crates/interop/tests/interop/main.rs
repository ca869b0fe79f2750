//! Files of others: backbones and adapters in and out, against their own libraries, as round trips, and hostile.

mod adapters;
mod families;
mod hostile;
mod pooling;
mod wrapped;
