//! What several replicators do together (`docs/protocol.md` §12, file `core`).

mod comings_and_goings;
mod damage_and_lies;
mod deletion;
mod digests;
mod pace;
mod refusals;
mod room;
mod surplus;
mod world;
