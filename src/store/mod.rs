//! Where images are: the store (an OCI layout) and containers-storage.

pub mod layout;
