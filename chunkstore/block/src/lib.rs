//! Block ids and the index block format.
