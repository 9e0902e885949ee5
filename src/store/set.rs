//! Images with all that belongs to them, as one image layout that any tool reads.
//!
//! ```text
//! index.json
//!   acme/hr:1.0.0        an image, under its whole name
//!   sha256-<hex>.sig     the image of its signatures, as registries name it
//!   sha256-<hex>         the index of what refers to it, as registries have it that list nothing by themselves
//!   (without a name)     each of those, which oras finds by its subject
//!   (without a name)     the set: an index of all images, by which a reader knows that none is missing
//! ```
//!
//! skopeo drops what refers to an image; with the named entries one `skopeo copy --all` for each carries everything.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;

use oci_spec::image::Descriptor;
use serde_json::{Value, json};

use super::attached::{self, Attached, MAX_ATTACHED};
use super::blob::sha256;
use super::index::{REF_NAME, SUBJECT, raw_entries};
use super::layout::{Entry, Layout};
use super::read_only::names;
use super::repository::Manifest;
pub use super::set_read::Source;
pub use super::set_write::{Archive, Directory, Sink, make_empty, write};
use crate::error::Result;
use crate::image::{NAME, NAMESPACE};
use crate::reference::{Reference, is_digest, is_tag};
use crate::trust::simple;

/// What kind of artifact the set itself is.
pub const SET: &str = "application/vnd.skillimage.set.v1";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// Most signatures, attestations and the like of all images together, each counted for every name: ten for each of 10,000 skills.
const MAX_ALL_ATTACHED: usize = 100_000;

/// An image with all that belongs to it.
#[derive(Debug, Clone)]
pub struct Member {
    /// Its name.
    pub name: Reference,
    /// Its manifest, or index.
    pub manifest: Manifest,
    /// What belongs to it and to its images: subjects before what belongs to them.
    pub attached: Vec<Attached>,
}

impl Member {
    /// Returns an image of the store with what the store has of it.
    ///
    /// # Errors
    /// [`crate::error::Error::Damaged`] where something is not what its digest says.
    pub fn of(layout: &Layout, name: Reference, manifest: Manifest) -> Result<Self> {
        let attached = attached::all(layout, Self::subjects(&manifest))?;
        Ok(Self { name, manifest, attached })
    }

    /// Returns the digests that signatures are of: those of a manifest, and of the images that it lists.
    pub fn subjects(manifest: &Manifest) -> Vec<String> {
        let instances = manifest.info.instances.iter().map(|instance| instance.digest().to_string());
        std::iter::once(manifest.digest.clone()).chain(instances).collect()
    }
}

/// A layout that is to be written.
#[derive(Debug, Default)]
pub struct Plan {
    /// Its index.
    pub index: Vec<u8>,
    /// Blobs that are in no store, by digest.
    pub made: BTreeMap<String, Vec<u8>>,
    /// Blobs of the store, by digest.
    pub blobs: BTreeMap<String, Descriptor>,
}

impl Plan {
    /// Returns the number of bytes of all blobs.
    pub fn size(&self) -> u64 {
        let made = self.made.values().map(|bytes| bytes.len() as u64);
        self.blobs.values().map(Descriptor::size).chain(made).fold(0, u64::saturating_add)
    }

    /// Adds all blobs of an image of the store.
    fn add(&mut self, layout: &Layout, manifest: &Manifest) -> Result<()> {
        for blob in names(layout, &manifest.descriptor()?)? {
            self.blobs.insert(blob.digest().to_string(), blob);
        }
        Ok(())
    }

    fn make(&mut self, bytes: Vec<u8>) -> Value {
        let digest = sha256(&bytes);
        let entry = json!({"mediaType": INDEX, "digest": digest, "size": bytes.len()});
        self.made.insert(digest, bytes);
        entry
    }
}

/// Plans a layout of images of the store. The same images give the same bytes. The caller holds [`Layout::writing`].
///
/// # Errors
/// [`crate::error::Error::Damaged`] where an image is not whole.
pub fn plan(layout: &Layout, members: &[Member]) -> Result<Plan> {
    let mut plan = Plan::default();
    let (mut entries, mut listed) = (BTreeMap::new(), BTreeMap::new());
    let mut signatures = BTreeMap::<&str, Arc<Manifest>>::new();
    let mut referrers = BTreeMap::<&str, BTreeMap<&str, &Arc<Manifest>>>::new();
    for Member { name, manifest, attached } in members {
        plan.add(layout, manifest)?;
        let mut entry = manifest.entry();
        entry["annotations"][REF_NAME] = name.to_string().into();
        entries.insert(name.to_string(), entry);
        let own = [("mediaType", json!(manifest.media_type)), ("digest", json!(manifest.digest))];
        let mut own: Value = own.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        own["size"] = manifest.bytes.len().into();
        own["annotations"] = json!({REF_NAME: name.to_string()});
        listed.insert(name.to_string(), own);
        for Attached { subject, is_signatures, manifest } in attached {
            if *is_signatures {
                let image = match signatures.get(&**subject) {
                    Some(other) => {
                        let bytes = attached::merged(layout, &other.bytes, &manifest.bytes)?;
                        Arc::new(Manifest::new(&sha256(&bytes), bytes)?)
                    }
                    None => Arc::clone(manifest),
                };
                signatures.insert(subject, image);
            } else {
                referrers.entry(subject).or_default().insert(&*manifest.digest, manifest);
            }
        }
    }
    let mut index: Vec<Value> = entries.into_values().collect();
    for (subject, image) in signatures {
        plan.add(layout, &image)?;
        let annotations = json!({REF_NAME: simple::tag(subject)});
        index.push(json!({
            "mediaType": image.media_type, "digest": image.digest, "size": image.bytes.len(), "annotations": annotations,
        }));
    }
    for (subject, referrers) in referrers {
        let listing: Vec<Value> = referrers.values().map(|manifest| attached::listing(manifest)).collect();
        for manifest in referrers.values() {
            plan.add(layout, manifest)?;
            index.push(attached::entry(manifest, subject)?);
        }
        let mut fallback = plan.make(index_of(None, listing));
        fallback["annotations"] = json!({REF_NAME: subject.replacen(':', "-", 1)});
        index.push(fallback);
    }
    let mut set = plan.make(index_of(Some(SET), listed.into_values().collect()));
    set["artifactType"] = SET.into();
    index.push(set);
    plan.index = index_of(None, index);
    Ok(plan)
}

fn index_of(artifact_type: Option<&str>, manifests: Vec<Value>) -> Vec<u8> {
    let mut index = json!({"schemaVersion": 2, "mediaType": INDEX});
    if let Some(artifact_type) = artifact_type {
        index["artifactType"] = artifact_type.into();
    }
    index["manifests"] = manifests.into();
    index.to_string().into_bytes()
}

/// What an entry of a layout is.
#[derive(Debug, PartialEq, Eq)]
enum Role {
    Image(String),
    /// The image of the signatures of a digest.
    Signatures(String),
    /// The index of what refers to a digest.
    Referrers,
    /// What has no name: something that refers to something, or the set.
    Nameless,
    /// A tag of a kind that we know nothing of, such as `sha256-….att`.
    Other,
}

fn role(entry: &Entry) -> Role {
    let Some(name) = &entry.name else {
        // As in our own store.
        let subject = entry.descriptor.annotations().as_ref().and_then(|annotations| annotations.get(SUBJECT));
        return match subject {
            Some(subject) if entry.descriptor.artifact_type().is_none() => Role::Signatures(subject.clone()),
            _ => Role::Nameless,
        };
    };
    let Some(rest) = name.strip_prefix("sha256-") else { return Role::Image(name.clone()) };
    let digest = |hex: &str| Some(format!("sha256:{hex}")).filter(|digest| is_digest(digest));
    match (digest(rest), rest.strip_suffix(".sig").and_then(digest)) {
        (Some(_), _) => Role::Referrers,
        (_, Some(subject)) => Role::Signatures(subject),
        _ if rest.get(..64).is_some_and(|hex| digest(hex).is_some()) => Role::Other,
        _ => Role::Image(name.clone()),
    }
}

/// Reads all images of a layout with what belongs to them.
///
/// # Errors
/// Whatever is wrong with it, with its name: what is damaged, what has two meanings, and what the set has and the layout has not.
pub fn read(source: &Source) -> Result<Vec<Member>> {
    let mut images = BTreeMap::<String, (Reference, Manifest)>::new();
    let mut belongings = Belongings::default();
    let mut sets = Vec::new();
    let mut listed = VecDeque::new();
    let entries = |bytes: &[u8]| -> Result<Vec<Entry>> {
        crate::strict::check(bytes).map_err(|reason| source.refused(reason))?;
        let (entries, malformed) = raw_entries(bytes, |_| true).map_err(|e| source.refused(e))?;
        match malformed.first() {
            Some(malformed) => Err(source.refused(malformed)),
            None => Ok(entries.into_iter().map(Entry::new).collect()),
        }
    };
    for entry in entries(&source.index()?)? {
        let manifest = || source.manifest(&entry.descriptor);
        match role(&entry) {
            Role::Image(text) => {
                let manifest = manifest()?;
                let name = name(source, &text, &manifest)?;
                let digest = manifest.digest.clone();
                match images.insert(name.to_string(), (name, manifest)) {
                    Some((name, other)) if other.digest != digest => {
                        return Err(source.refused(format!("{name} is there twice, as {digest} and {}", other.digest)));
                    }
                    _ => {}
                }
            }
            Role::Signatures(subject) => {
                let manifest = Arc::new(manifest()?);
                let digest = manifest.digest.clone();
                let other = belongings.signatures.insert(subject.clone(), manifest);
                if other.is_some_and(|other| other.digest != digest) {
                    return Err(source.refused(format!("the signatures of {subject} are there twice")));
                }
            }
            Role::Referrers => listed.extend(entries(&manifest()?.bytes)?),
            Role::Nameless => listed.push_back(entry),
            Role::Other => {}
        }
    }
    let mut seen = HashSet::new();
    for entry in listed {
        if !seen.insert(entry.digest().to_owned()) {
            continue;
        }
        let manifest = source.manifest(&entry.descriptor)?;
        let value: Value = serde_json::from_slice(&manifest.bytes).map_err(|e| source.refused(e))?;
        match value["subject"]["digest"].as_str() {
            Some(subject) => {
                belongings.referrers.entry(subject.to_owned()).or_default().push(Arc::new(manifest));
            }
            None if value["artifactType"] == SET => sets.push(manifest),
            None => {}
        }
    }
    for listed in sets.iter().flat_map(|set| &set.info.instances) {
        let annotations = listed.annotations().as_ref();
        let name = annotations.and_then(|own| own.get(REF_NAME)).map(String::as_str).unwrap_or_default();
        if images.get(name).is_none_or(|(_, manifest)| manifest.digest != listed.digest().to_string()) {
            return Err(source.refused(format!("it lacks {name}, {}, which was saved with it", listed.digest())));
        }
    }
    let mut count = 0;
    let join = |(name, manifest)| {
        let member = belongings.join(name, manifest);
        let own = member.attached.len();
        count += own;
        match (own > MAX_ATTACHED, count > MAX_ALL_ATTACHED) {
            (true, _) => {
                let name = member.name;
                Err(source.refused(format!("{name} has {own} signatures and attestations, more than {MAX_ATTACHED}")))
            }
            (_, true) => Err(source.refused(format!("more than {MAX_ALL_ATTACHED} things belong to its images"))),
            _ => Ok(member),
        }
    };
    images.into_values().map(join).collect()
}

/// What belongs to digests.
#[derive(Default)]
struct Belongings {
    signatures: HashMap<String, Arc<Manifest>>,
    referrers: HashMap<String, Vec<Arc<Manifest>>>,
}

impl Belongings {
    fn join(&self, name: Reference, manifest: Manifest) -> Member {
        let (mut attached, mut queue) = (Vec::<Attached>::new(), VecDeque::from(Member::subjects(&manifest)));
        while let Some(subject) = queue.pop_front() {
            let of = |manifest: &Arc<Manifest>, is_signatures| Attached {
                subject: subject.clone(),
                is_signatures,
                manifest: Arc::clone(manifest),
            };
            attached.extend(self.signatures.get(&subject).map(|manifest| of(manifest, true)));
            for manifest in self.referrers.get(&subject).into_iter().flatten() {
                attached.push(of(manifest, false));
                queue.push_back(manifest.digest.clone());
            }
        }
        Member { name, manifest, attached }
    }
}

/// Returns what an entry is called: the whole reference, or a tag of the skill that the image says that it is.
fn name(source: &Source, text: &str, manifest: &Manifest) -> Result<Reference> {
    let no_name = |why: &str| source.refused(format!("{text:?} names an image, and {why}"));
    if !is_tag(text) {
        let name = text.parse::<Reference>().map(Reference::or_latest).map_err(|e| no_name(&e.to_string()))?;
        return match name.digest().is_none_or(|digest| digest == manifest.digest) {
            true => Ok(name),
            false => Err(no_name(&format!("it is {}", manifest.digest))),
        };
    }
    let (namespace, own) = (manifest.info.get(NAMESPACE), manifest.info.get(NAME));
    let whole = format!("{namespace}/{own}:{text}");
    match namespace.is_empty() || own.is_empty() {
        false => whole.parse().map_err(|_| no_name("it says itself that it is no skill by name")),
        true => Err(no_name("is a tag without a repository")),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_an_entry_is_says_its_name() {
        let hex = "a".repeat(64);
        let subject = format!("sha256:{hex}");
        let cases = [
            (json!({REF_NAME: "acme/hr:1.0.0"}), Role::Image("acme/hr:1.0.0".into())),
            (json!({REF_NAME: "1.0.0"}), Role::Image("1.0.0".into())),
            (json!({REF_NAME: "sha256-abc:1"}), Role::Image("sha256-abc:1".into())),
            (json!({REF_NAME: format!("sha256-{hex}")}), Role::Referrers),
            (json!({REF_NAME: format!("sha256-{hex}.sig")}), Role::Signatures(subject.clone())),
            (json!({REF_NAME: format!("sha256-{hex}.att")}), Role::Other),
            (
                json!({REF_NAME: format!("sha256-{}", "é".repeat(40))}),
                Role::Image(format!("sha256-{}", "é".repeat(40))),
            ),
            (json!({SUBJECT: subject}), Role::Signatures(subject.clone())),
            (json!({}), Role::Nameless),
        ];
        for (annotations, wanted) in cases {
            let entry = json!({"mediaType": INDEX, "digest": subject, "size": 1, "annotations": annotations});
            assert_eq!(role(&Entry::new(serde_json::from_value(entry).unwrap())), wanted, "{annotations}");
        }
        let bundle = json!({
            "mediaType": INDEX, "digest": subject, "size": 1, "annotations": {SUBJECT: subject}, "artifactType": "a/b",
        });
        assert_eq!(role(&Entry::new(serde_json::from_value(bundle).unwrap())), Role::Nameless);
    }
}
