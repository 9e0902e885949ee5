//! From images to what runs them, as text: pure functions.

pub mod cdi;
pub mod collection;
pub mod imageset;
pub mod podman;
pub mod quote;
