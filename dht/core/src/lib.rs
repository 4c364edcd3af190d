//! Which nodes a block belongs on (white paper 4.2, `docs/protocol.md` §2).
//!
//! A pure core: no clock, no randomness, no IO, no libp2p, so that the simulator and the daemon run the same code.

mod placement;
mod position;

pub use placement::{Placement, closest};
pub use position::{Distance, Position};
