//! Discovery over UDP and the block plane over TCP.
