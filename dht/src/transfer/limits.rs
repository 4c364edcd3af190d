//! What connections may cost (`docs/protocol.md` §11).

use std::time::Duration;

/// What a node gives to those who ask it.
#[derive(Clone, Debug)]
pub struct ServerLimits {
    /// Connections of members at a time. An idle one holds a few KB, one under way up to 128 KiB besides its bodies.
    pub connections: usize,
    /// Connections of one member at a time: a little more than what our own client opens.
    pub connections_per_member: usize,
    /// Bodies that are received or sent, with the buffers they are encrypted in. 64 MiB are 50 blocks under way.
    pub body_bytes: usize,
    /// The same for one member.
    pub body_bytes_per_member: usize,
    /// How long a request waits for room for its bodies before it is answered with `busy`.
    pub room: Duration,
    /// An idle connection is closed after this; the client opens another when it needs one.
    pub idle: Duration,
    /// A frame whose first byte has come is there by then: 1 MiB at 50 KB/s, with room.
    pub frame: Duration,
    /// A peer that takes longer to take one answer is too slow to serve: 1 MiB at 35 KB/s.
    pub send: Duration,
    /// How long requests under way may take at shutdown.
    pub drain: Duration,
}

impl Default for ServerLimits {
    fn default() -> Self {
        Self {
            connections: 512,
            connections_per_member: 8,
            body_bytes: 64 << 20,
            body_bytes_per_member: 8 << 20,
            room: Duration::from_secs(5),
            idle: Duration::from_secs(60),
            frame: Duration::from_secs(25),
            send: Duration::from_secs(30),
            drain: Duration::from_secs(3),
        }
    }
}

/// What a node takes up at another.
#[derive(Clone, Debug)]
pub struct ClientLimits {
    /// Connections to one peer that carry blocks; two more carry what is short, so that it does not wait behind blocks.
    /// With several, the peer answers several requests at a time.
    pub connections_per_peer: usize,
    /// Requests under way on each, 1 to 16: while one block is on its way, the next is encrypted and the one before hashed.
    /// More than two wait in vain. A guess: it was not measured.
    pub under_way: usize,
}

impl Default for ClientLimits {
    fn default() -> Self {
        Self { connections_per_peer: 4, under_way: 4 }
    }
}
