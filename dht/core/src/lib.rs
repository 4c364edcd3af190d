//! Placement of blocks among peers, without IO.
