//! What is recorded beside an installed skill: which image it is, and every file of it.
//!
//! A receipt has no date and no absolute path, so that a project may keep it in version control. Unknown fields are
//! ignored.

use serde::{Deserialize, Serialize};

use crate::card::Provenance;
use crate::error::{Error, Result};
use crate::layer::{Children, FileNode, Listing, Node};
use crate::reference::Reference;
use crate::trust::identity::{Identities, Written};
use crate::trust::key::PublicKey;
use crate::trust::policy::{Policy, Rule, Scope};
use crate::trust::verify::Signer;

/// Most images that a receipt remembers, newest first: one for each `rollback`.
pub const MAX_PREVIOUS: usize = 5;

/// Who asks for a signature of the same key when a signed skill is upgraded.
pub const SIGNED: &str = "what is installed was signed by it";
/// What `version` says of receipts as they are written here.
const VERSION: u32 = 1;

/// An image that is or was installed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Image {
    /// The whole reference that it was installed by: `registry.example/acme/hr:1.0.0`.
    pub reference: String,
    /// The digest of its manifest.
    pub digest: String,
    /// The skill's version.
    #[serde(default)]
    pub skill_version: String,
    /// [`Listing::digest`] of what the image unpacks to.
    pub content_digest: String,
    /// Where the image was built from, where that was done to install it: repository, commit and path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<Provenance>,
    /// The keys, in PEM, that have signed it, where that was asked for: what comes after it has to be signed, too.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub signed_by: Vec<String>,
    /// The identities that have done so without a key.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub signed_by_identities: Vec<SignedBy>,
    /// The repository that they have signed it for, where it is another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signed_as: Option<String>,
}

/// An identity that has signed an image, as it is asked for of the next one: [`Identity::wanted`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SignedBy {
    /// Who.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<String>,
    /// What that is like.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity_regexp: Option<String>,
    /// Who says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuer: Option<String>,
    /// Who is believed about it: a trusted root, in JSON.
    pub trusted_root: String,
}

impl SignedBy {
    /// Returns each identity that is among signers.
    pub fn among(signers: &[Signer]) -> Vec<Self> {
        let mut all = Vec::new();
        for signer in signers {
            let (Some(identity), Some(root)) = (signer.identity(), &signer.root) else { continue };
            let Written { identity, identity_regexp, issuer, .. } = identity.wanted();
            let one = Self { identity, identity_regexp, issuer, trusted_root: root.to_string() };
            if !all.contains(&one) {
                all.push(one);
            }
        }
        all
    }

    fn written(&self) -> Written {
        let Self { identity, identity_regexp, issuer, .. } = self.clone();
        Written { identity, identity_regexp, issuer, ..Written::default() }
    }
}

impl Image {
    /// Returns what an image has to be signed by that comes after this one; nothing where this one was not signed. Beside the root
    /// that was believed those count that the policy has for it now: authorities get new keys.
    ///
    /// # Errors
    /// [`Error::Damaged`] where a key or a trusted root is none.
    pub fn rule(&self, policy: &Policy) -> Result<Option<Rule>> {
        let object = format!("the receipt of {}", self.reference);
        let key = |pem: &String| PublicKey::from_pem(pem.as_bytes(), &object);
        let keys = self.signed_by.iter().map(key).collect::<Result<Vec<_>>>()?;
        let reference = self.reference.parse::<Reference>().ok();
        let covering: Vec<&Scope> = reference.iter().flat_map(|reference| policy.covering(reference)).collect();
        let mut identities: Vec<Identities> = Vec::new();
        for own in &self.signed_by_identities {
            let now = covering.iter().flat_map(|scope| &scope.rule.identities).map(Identities::root);
            for root in [&*own.trusted_root].into_iter().chain(now) {
                let named = (root.as_bytes(), "its trustedRoot");
                identities.push(Identities::new(named, vec![own.written()]).map_err(|e| Error::damaged(&object, e))?);
            }
        }
        let identity = self.signed_as.as_deref().map(str::parse).transpose()?;
        let rule = Rule { source: SIGNED.to_owned(), keys, identities, identity, ..Rule::default() };
        Ok((!rule.by().is_empty()).then_some(rule))
    }

    /// Returns an image of which nothing is known.
    pub fn unknown() -> Self {
        let nothing = String::new;
        Self {
            reference: nothing(),
            digest: nothing(),
            skill_version: nothing(),
            content_digest: nothing(),
            origin: None,
            signed_by: Vec::new(),
            signed_by_identities: Vec::new(),
            signed_as: None,
        }
    }
}

/// The receipt of one installed skill.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Receipt {
    version: u32,
    /// The skill's directory.
    pub name: String,
    /// The image.
    #[serde(flatten)]
    pub image: Image,
    /// Where the skill's directory leads, where it is a symbolic link to a copy that agents share.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link: Option<String>,
    /// The images before it, newest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub previous: Vec<Image>,
    /// What was done to the skill's card.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub card: Option<CardChange>,
    /// Everything in the directory, in the order of [`Listing::entries`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<Item>,
}

/// Why the `skill.yaml` of the directory is not the image's: the Go tool wants to read there where a skill comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CardChange {
    /// The image has none.
    Added,
    /// The image has this one.
    Replaced(ItemKind),
}

/// One thing in the directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Item {
    /// Its path, relative to the directory.
    pub path: String,
    /// What it is.
    #[serde(flatten)]
    pub kind: ItemKind,
}

/// What a thing is, by its mode in git's notation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "mode")]
pub enum ItemKind {
    /// A directory.
    #[serde(rename = "40000")]
    Directory,
    /// A file.
    #[serde(rename = "100644")]
    File(FileItem),
    /// A file that may be executed.
    #[serde(rename = "100755")]
    Executable(FileItem),
    /// A symbolic link.
    #[serde(rename = "120000")]
    Symlink {
        /// Where it leads.
        target: String,
    },
}

/// Size and digest of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileItem {
    /// In bytes.
    pub size: u64,
    /// Of its content, in hexadecimal digits.
    pub sha256: String,
}

impl Receipt {
    /// Returns the receipt of a skill whose directory is `installed`.
    pub fn new(name: &str, image: Image, installed: &Listing) -> Self {
        let item = |(path, node): (String, &Node)| Item { path, kind: ItemKind::of(node) };
        let files = installed.entries().into_iter().map(item).collect();
        Self { version: VERSION, name: name.to_owned(), image, link: None, previous: Vec::new(), card: None, files }
    }

    /// Returns the receipt of a symbolic link to a copy that agents share.
    pub fn of_link(name: &str, image: Image, target: &str) -> Self {
        Self { link: Some(target.to_owned()), ..Self::new(name, image, &Listing::default()) }
    }

    /// Reads a receipt, and checks that it is as it was written.
    ///
    /// # Errors
    /// [`Error::Damaged`]
    pub fn parse(bytes: &[u8], object: &str) -> Result<Self> {
        let receipt: Self = serde_json::from_slice(bytes).map_err(|e| Error::damaged(object, e))?;
        if receipt.version != VERSION {
            return Err(Error::damaged(object, format!("it is of version {}, which is not known", receipt.version)));
        }
        if receipt.link.is_none() && receipt.of_image(object)?.digest() != receipt.image.content_digest {
            return Err(Error::damaged(object, "its files are not those of its contentDigest: it was edited"));
        }
        Ok(receipt)
    }

    /// Returns the digests of the manifests that a receipt names, whatever else is wrong with it.
    ///
    /// # Errors
    /// If it is no receipt at all.
    pub fn digests(bytes: &[u8]) -> serde_json::Result<Vec<String>> {
        #[derive(Deserialize)]
        struct Named {
            digest: String,
            #[serde(default)]
            previous: Vec<Named>,
        }
        let named: Named = serde_json::from_slice(bytes)?;
        Ok(std::iter::once(named.digest).chain(named.previous.into_iter().map(|image| image.digest)).collect())
    }

    /// Returns it as it is written.
    pub fn to_json(&self) -> String {
        // Texts and numbers: nothing in it can fail to serialise.
        serde_json::to_string_pretty(self).unwrap_or_default() + "\n"
    }

    /// Returns what is in the directory.
    ///
    /// # Errors
    /// [`Error::Damaged`] for paths that no skill has.
    pub fn installed(&self, object: &str) -> Result<Listing> {
        let mut listing = Listing::default();
        for item in &self.files {
            let part = |part: &str| part.is_empty() || part == "." || part == ".." || part.contains('\0');
            if item.path.split('/').any(part) {
                return Err(Error::damaged(object, format!("{:?} is no path in a skill", item.path)));
            }
            listing.insert(&item.path, item.kind.node(object)?)?;
        }
        Ok(listing)
    }

    /// Returns what the image unpacks to.
    fn of_image(&self, object: &str) -> Result<Listing> {
        let mut listing = self.installed(object)?;
        match &self.card {
            None => {}
            Some(CardChange::Added) => listing.remove(crate::card::FILE),
            Some(CardChange::Replaced(kind)) => listing.insert(crate::card::FILE, kind.node(object)?)?,
        }
        Ok(listing)
    }

    /// Returns the images that an upgrade from this one leaves behind, newest first.
    pub fn history(&self) -> Vec<Image> {
        std::iter::once(&self.image).chain(&self.previous).take(MAX_PREVIOUS).cloned().collect()
    }
}

impl ItemKind {
    /// Returns what a node is.
    pub fn of(node: &Node) -> Self {
        match node {
            Node::Directory(_) => Self::Directory,
            Node::Symlink(target) => Self::Symlink { target: target.clone() },
            Node::File(file) => {
                let item = FileItem { size: file.size, sha256: hex::encode(file.sha256) };
                if file.executable { Self::Executable(item) } else { Self::File(item) }
            }
        }
    }

    fn node(&self, object: &str) -> Result<Node> {
        let file = |item: &FileItem, executable| {
            let mut sha256 = [0; 32];
            hex::decode_to_slice(&item.sha256, &mut sha256).map_err(|e| Error::damaged(object, e))?;
            Ok(Node::File(FileNode { size: item.size, executable, sha256 }))
        };
        match self {
            Self::Directory => Ok(Node::Directory(Children::new())),
            Self::Symlink { target } => Ok(Node::Symlink(target.clone())),
            Self::File(item) => file(item, false),
            Self::Executable(item) => file(item, true),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn file(executable: bool, fill: u8) -> Node {
        Node::File(FileNode { size: 3, executable, sha256: [fill; 32] })
    }

    fn receipt(card: Option<CardChange>) -> Receipt {
        let mut of_image = Listing::default();
        let mut installed = Listing::default();
        for listing in [&mut of_image, &mut installed] {
            listing.insert("SKILL.md", file(false, 1)).unwrap();
            listing.insert("scripts", Node::Directory(Children::new())).unwrap();
            listing.insert("scripts/run", file(true, 2)).unwrap();
            listing.insert("scripts/link", Node::Symlink("run".into())).unwrap();
        }
        if let Some(CardChange::Replaced(kind)) = &card {
            of_image.insert("skill.yaml", kind.node("").unwrap()).unwrap();
        }
        if card.is_some() {
            installed.insert("skill.yaml", file(false, 4)).unwrap();
        }
        let image = Image {
            reference: "registry.example/acme/hr:1.0.0".into(),
            digest: format!("sha256:{}", "0".repeat(64)),
            skill_version: "1.0.0".into(),
            content_digest: of_image.digest(),
            ..Image::unknown()
        };
        Receipt { card, ..Receipt::new("hr", image, &installed) }
    }

    #[test]
    fn a_receipt_says_what_is_there_and_what_the_image_has() {
        for card in [None, Some(CardChange::Added), Some(CardChange::Replaced(ItemKind::of(&file(false, 3))))] {
            let receipt = receipt(card);
            let read = Receipt::parse(receipt.to_json().as_bytes(), "hr.json").unwrap();
            assert_eq!(read, receipt);
            assert_eq!(read.installed("").unwrap().entries().len(), receipt.files.len());
        }
    }

    #[test]
    fn an_edited_receipt_is_no_receipt() {
        let text = receipt(None).to_json();
        let cases = [
            ("\"version\": 1", "\"version\": 2", "it is of version 2, which is not known"),
            ("100755", "100644", "its files are not those of its contentDigest: it was edited"),
            ("scripts/run", "scripts/../run", "\"scripts/../run\" is no path in a skill"),
            ("\"scripts/run", "\"/scripts/run", "\"/scripts/run\" is no path in a skill"),
            (&"02".repeat(32), "02", "Invalid string length"),
        ];
        for (from, to, reason) in cases {
            let edited = text.replacen(from, to, 1);
            assert_ne!(edited, text, "{from}");
            let error = Receipt::parse(edited.as_bytes(), "hr.json").unwrap_err().to_string();
            assert_eq!(error, format!("hr.json is damaged: {reason}"));
        }
    }

    #[test]
    fn what_was_before_is_remembered_for_some_steps() {
        let mut receipt = receipt(None);
        for step in 1..=MAX_PREVIOUS + 2 {
            receipt.previous = receipt.history();
            assert_eq!(receipt.previous.len(), step.min(MAX_PREVIOUS));
        }
    }
}
