//! The durable block store and its cache.
