//! What a skill can be made from, beside a directory and an image of ours.

pub mod foreign;
