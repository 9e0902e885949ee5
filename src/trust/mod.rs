//! Trust: keys and signatures, in the two forms that are read today. All of it works without the network.
//!
//! ```text
//! simple   the image NAME:sha256-<hex>.sig, one layer per signature       podman, CRI-O, OpenShift, oc-mirror, cosign
//! bundle   a referrer of the image, a sigstore bundle v0.3 with a DSSE envelope                         cosign 3
//! ```
//!
//! A simple signature names the repository that it is for. A bundle signs the digest alone, so whoever can write to a repository
//! can serve there what was signed for another one: what an image says it is has to be compared with what was asked for, too.
//!
//! Attestations are bundles with statements of other types; what they state is made in `attest/`.

pub mod attestation;
pub mod bundle;
pub mod by;
pub mod check;
pub mod edit;
pub mod identity;
pub mod key;
#[cfg_attr(not(feature = "keyless"), path = "without_keyless.rs")]
pub mod keyless;
pub mod names;
pub mod noted;
pub mod podman;
pub mod policy;
pub mod private_key;
pub mod read;
pub mod signer;
pub mod simple;
pub mod verify;
